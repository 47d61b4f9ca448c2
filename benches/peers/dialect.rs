//! What a client says to each server, and what it makes of the answers: of a frame, or of each of its [`parts`]. It
//! looks for as little as it needs: the load's cost is on the same processors.

use std::fmt::Write as _;
use std::net::SocketAddr;

use aula::ops::simulate::engine::Upgrade;
use memchr::memmem;
use serde_json::json;
use uuid::Uuid;

use crate::cast::{Cast, Room};
use crate::peer::Peer;

/// A body begins with the moment at which it was due, in nanoseconds, in so many digits.
const STAMP: usize = 20;
pub const BODY_BYTES: usize = 100;

/// What a frame means.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The server waits for who this is.
    Introduce,
    /// It is in its room, whose log ends at this seq, where the server says so.
    Joined(Option<u64>),
    /// When it was due, and its seq, where it has one.
    Message(u64, Option<u64>),
    Answer(&'static str),
    Nothing,
    Fault,
}

/// The handshake of a client.
pub fn request(peer: Peer, address: SocketAddr, cast: &Cast, client: u32) -> Vec<u8> {
    let host = address.to_string();
    let person = &cast.people[client as usize];
    let room = format!("/{}", cast.room_of(client).name);
    let (path, subprotocol, bearer) = match peer {
        Peer::Bare => (room.as_str(), None, None),
        Peer::Aula => ("/ws", Some("aula.v1.json"), Some(person.credential.as_str())),
        Peer::SocketIo => ("/socket.io/?EIO=4&transport=websocket", None, None),
        Peer::Centrifuge | Peer::Centrifugo => ("/connection/websocket", None, None),
    };
    Upgrade { host: &host, path, subprotocol, bearer }.request(u128::from(client))
}

/// What the upgrade alone means.
pub fn opened(peer: Peer) -> Heard {
    match peer {
        Peer::Bare => Heard::Joined(None),
        Peer::Aula | Peer::SocketIo => Heard::Nothing,
        Peer::Centrifuge | Peer::Centrifugo => Heard::Introduce,
    }
}

/// What is said where a server waits for who this is.
pub fn introduction(peer: Peer, cast: &Cast, client: u32) -> String {
    let room = &cast.room_of(client).name;
    if matches!(peer, Peer::Centrifuge | Peer::Centrifugo) {
        let connect = r#"{"id":1,"connect":{}}"#;
        let subscribe = format!(r#"{{"id":2,"subscribe":{{"channel":"{room}"}}}}"#);
        return format!("{connect}\n{subscribe}");
    }
    let person = &cast.people[client as usize];
    let auth = json!({"name": person.name, "signature": person.credential, "room": room});
    format!("40{auth}")
}

/// What a frame holds: one thing, or a line for each.
pub fn parts(peer: Peer, frame: &str) -> impl Iterator<Item = &str> {
    let (first, rest) = match peer {
        Peer::Bare | Peer::Aula | Peer::SocketIo => (Some(frame), None),
        Peer::Centrifuge | Peer::Centrifugo => (None, Some(frame.split('\n'))),
    };
    first.into_iter().chain(rest.into_iter().flatten())
}

pub fn hear(peer: Peer, frame: &str) -> Heard {
    match peer {
        Peer::Bare => stamp(frame).map_or(Heard::Fault, |due| Heard::Message(due, None)),
        Peer::Aula => hear_aula(frame),
        Peer::SocketIo => hear_socketio(frame),
        Peer::Centrifuge | Peer::Centrifugo => hear_centrifuge(frame),
    }
}

fn hear_aula(frame: &str) -> Heard {
    let Some(op) = frame.strip_prefix(r#"{"op":""#) else { return Heard::Fault };
    if op.starts_with("message") {
        let body = after(frame, r#""body":""#).and_then(stamp);
        return match (body, after(frame, r#""seq":"#).and_then(number)) {
            (Some(due), Some(seq)) => Heard::Message(due, Some(seq)),
            _ => Heard::Fault,
        };
    }
    if op.starts_with("welcome") {
        return after(frame, r#""last_seq":"#).and_then(number).map_or(Heard::Fault, |seq| Heard::Joined(Some(seq)));
    }
    // `ok` and `persisted`.
    if op.starts_with("ok") || op.starts_with("status") { Heard::Nothing } else { Heard::Fault }
}

/// <https://socket.io/docs/v4/socket-io-protocol/>
fn hear_socketio(frame: &str) -> Heard {
    if let Some(body) = frame.strip_prefix(r#"42["message",""#) {
        return stamp(body).map_or(Heard::Fault, |due| Heard::Message(due, None));
    }
    match frame {
        "2" => Heard::Answer("3"),
        r#"42["joined"]"# => Heard::Joined(None),
        _ if frame.starts_with('0') => Heard::Introduce,
        _ if frame.starts_with("40") => Heard::Nothing,
        _ => Heard::Fault,
    }
}

/// <https://centrifugal.dev/docs/transports/client_protocol>
fn hear_centrifuge(line: &str) -> Heard {
    if line.starts_with(r#"{"push":{"#) {
        let body = after(line, r#""pub":{"data":""#).and_then(stamp);
        return body.map_or(Heard::Fault, |due| Heard::Message(due, None));
    }
    match line {
        "{}" => Heard::Answer("{}"),
        // The subscription's and the publications' numbers are those that they were sent with.
        _ if line.starts_with(r#"{"id":2,"subscribe":"#) => Heard::Joined(None),
        _ if line.starts_with(r#"{"id":1,"connect":"#) || line.starts_with(r#"{"id":3,"publish":"#) => Heard::Nothing,
        _ => Heard::Fault,
    }
}

/// Writes the frame that sends a body due at this moment; where it is to be answered, with this reference.
pub fn say(peer: Peer, room: &Room, due: u64, reference: Option<u64>, out: &mut String) {
    out.clear();
    let rest = "x".repeat(BODY_BYTES - STAMP);
    let name = &room.name;
    let written = match peer {
        Peer::Bare => write!(out, "{due:020}{rest}"),
        Peer::Aula => {
            let client_id = Uuid::now_v7();
            let reference = reference.map_or_else(String::new, |reference| format!(r#""ref":{reference},"#));
            write!(
                out,
                r#"{{"op":"send",{reference}"channel":"{name}","client_id":"{client_id}","kind":"text","body":"{due:020}{rest}"}}"#
            )
        }
        Peer::SocketIo => write!(out, r#"42["message","{due:020}{rest}"]"#),
        Peer::Centrifuge | Peer::Centrifugo => {
            write!(out, r#"{{"id":3,"publish":{{"channel":"{name}","data":"{due:020}{rest}"}}}}"#)
        }
    };
    written.unwrap();
}

fn after<'a>(frame: &'a str, what: &str) -> Option<&'a str> {
    let begin = memmem::find(frame.as_bytes(), what.as_bytes())? + what.len();
    frame.get(begin..)
}

fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().ok()
}

fn stamp(body: &str) -> Option<u64> {
    body.get(..STAMP)?.parse().ok()
}
