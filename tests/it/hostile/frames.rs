//! Frames that no library would send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::raw::{RawFrame, RawSocket};
use crate::server::Server;

use super::watch::Watch;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;

const fn frame(opcode: u8, payload: &[u8]) -> RawFrame<'_> {
    RawFrame { fin: true, opcode, masked: true, declared: None, payload }
}

struct Attacker {
    addr: SocketAddr,
    bearer: String,
}

impl Attacker {
    fn connect(&self, subprotocol: &str) -> RawSocket {
        RawSocket::connect(self.addr, &[("authorization", &self.bearer), ("sec-websocket-protocol", subprotocol)])
    }

    /// Writes frames; the code that the connection is closed with.
    fn close_code(&self, subprotocol: &str, frames: &[RawFrame<'_>]) -> u16 {
        let mut socket = self.connect(subprotocol);
        for frame in frames {
            // It may be cut off before the last.
            if socket.write(frame).is_err() {
                break;
            }
        }
        let (code, reason) = socket.read_close().unwrap_or_else(|| panic!("no close frame after {frames:?}"));
        assert!(!reason.is_empty(), "{code} without a reason");
        code
    }
}

async fn attack(watch: &Watch, with: impl FnOnce(Attacker) + Send + 'static) {
    let bearer = format!("Bearer {}", watch.people.token("mallory"));
    let attacker = Attacker { addr: watch.people.server.addr(), bearer };
    let attack = tokio::task::spawn_blocking(move || with(attacker));
    while !attack.is_finished() {
        watch.others_are_served().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    attack.await.unwrap();
    watch.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lying_lengths() {
    let watch = Watch::on(Server::builder()).await;
    attack(&watch, |attacker| {
        for declared in [65_537, 1 << 20, 1 << 32, (1 << 63) - 1] {
            for (subprotocol, opcode) in [("aula.v1.json", TEXT), ("aula.v1.msgpack", BINARY)] {
                let lie = RawFrame { declared: Some(declared), ..frame(opcode, b"{") };
                assert_eq!(attacker.close_code(subprotocol, &[lie]), 1009, "{declared}");
            }
        }
        // Many that promise as much as they may, and send nothing of it.
        let promise = RawFrame { declared: Some(65_536), ..frame(TEXT, b"") };
        let mut sockets: Vec<_> = (0..10).map(|_| attacker.connect("aula.v1.json")).collect();
        for socket in &mut sockets {
            socket.write(&promise).unwrap();
        }
        std::thread::sleep(Duration::from_millis(300));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_against_the_standard() {
    let watch = Watch::on(Server::builder()).await;
    attack(&watch, |attacker| {
        let ping_op = br#"{"op":"ping"}"#;
        let unmasked = RawFrame { masked: false, ..frame(TEXT, ping_op) };
        let begun = RawFrame { fin: false, ..frame(TEXT, b"{") };
        let long_ping = [b'x'; 126];
        let cases: [(&str, Vec<RawFrame<'_>>); 8] = [
            ("unmasked", vec![unmasked]),
            ("unknown opcode", vec![frame(3, ping_op)]),
            ("unknown control opcode", vec![frame(11, b"")]),
            ("a continuation of nothing", vec![frame(0, ping_op)]),
            ("two beginnings", vec![begun.clone(), frame(TEXT, ping_op)]),
            ("a ping in fragments", vec![RawFrame { fin: false, ..frame(PING, b"x") }]),
            ("a ping above 125 bytes", vec![frame(PING, &long_ping)]),
            ("a close with half a code", vec![frame(CLOSE, &[3])]),
        ];
        for (what, frames) in cases {
            assert_eq!(attacker.close_code("aula.v1.json", &frames), 1002, "{what}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_frame() {
    let watch = Watch::on(Server::builder()).await;
    attack(&watch, |attacker| {
        let two_values = br#"{"op":"ping"}{"op":"ping"}"#;
        let json: [&[u8]; 6] = [b"\xff\xfe", b"{\"op\":\"\xc3\x28\"}", b"", b"{\"op\":", two_values, b"\xef\xbb\xbf{}"];
        for bytes in json {
            assert_eq!(attacker.close_code("aula.v1.json", &[frame(TEXT, bytes)]), 1007, "{bytes:?}");
        }
        let begun = RawFrame { fin: false, ..frame(TEXT, b"\xc3") };
        assert_eq!(attacker.close_code("aula.v1.json", &[begun, frame(0, b"\x28")]), 1007);
        let trailing = b"\x81\xa2op\xa4ping\xc0";
        let four_gib_text = b"\x81\xa2op\xdb\xff\xff\xff\xff";
        let four_gib_map = b"\xdf\xff\xff\xff\xff";
        let msgpack: [&[u8]; 6] = [b"", b"\xc1", b"\x81\xa2op", trailing, four_gib_text, four_gib_map];
        for bytes in msgpack {
            assert_eq!(attacker.close_code("aula.v1.msgpack", &[frame(BINARY, bytes)]), 1007, "{bytes:?}");
        }
        assert_eq!(attacker.close_code("aula.v1.msgpack", &[frame(TEXT, br#"{"op":"ping"}"#)]), 1003);
        assert_eq!(attacker.close_code("aula.v1.json", &[frame(BINARY, b"\x81\xa2op\xa4ping")]), 1003);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_of_one_byte() {
    let watch = Watch::on(Server::builder()).await;
    attack(&watch, |attacker| {
        // A request is understood, however it is cut, also by the network and with a ping in its middle.
        let mut socket = attacker.connect("aula.v1.json");
        let text = br#"{"op":"ping","ref":4711}"#;
        for (index, byte) in text.iter().enumerate() {
            let opcode = if index == 0 { TEXT } else { 0 };
            let piece = RawFrame { fin: index + 1 == text.len(), ..frame(opcode, std::slice::from_ref(byte)) };
            for one in piece.bytes() {
                socket.write_bytes(&[one]).unwrap();
            }
            if index == 5 {
                socket.write(&frame(PING, b"!")).unwrap();
            }
        }
        loop {
            let (opcode, payload) = socket.read().expect("an answer");
            if opcode == TEXT && payload.windows(6).any(|found| found == b"\"pong\"") {
                break;
            }
        }
        // As one endless message it is cut off at the limit.
        let mut socket = attacker.connect("aula.v1.json");
        socket.write(&RawFrame { fin: false, ..frame(TEXT, b"x") }).unwrap();
        let piece = RawFrame { fin: false, ..frame(0, b"x") }.bytes().repeat(1000);
        let _ = (0..100).take_while(|_| socket.write_bytes(&piece).is_ok()).count();
        assert_eq!(socket.read_close().expect("a close frame").0, 1009);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_pings_and_empty_frames() {
    let watch = Watch::on(Server::builder()).await;
    attack(&watch, |attacker| {
        for flood in [frame(PING, &[b'x'; 125]).bytes(), frame(10, b"").bytes()] {
            let mut socket = attacker.connect("aula.v1.json");
            let flood = flood.repeat(1000);
            // It reads none of the answers: the server may well stop reading, and must not store them.
            socket.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            for _ in 0..200 {
                if socket.write_bytes(&flood).is_err() {
                    break;
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_dropped_anywhere() {
    let watch = Watch::on(Server::builder()).await;
    attack(&watch, |attacker| {
        let whole = frame(TEXT, br#"{"op":"ping","ref":1}"#).bytes();
        for cut in 0..whole.len() {
            let mut socket = attacker.connect("aula.v1.json");
            socket.write_bytes(&whole[..cut]).unwrap();
        }
        for _ in 0..50 {
            let mut stream = TcpStream::connect(attacker.addr).unwrap();
            stream.write_all(b"GET /ws HTTP/1.1\r\nUpgr").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let _ = stream.read(&mut [0; 64]);
        }
    })
    .await;
}
