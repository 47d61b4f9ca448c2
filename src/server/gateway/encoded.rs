use std::sync::OnceLock;

use axum::body::Bytes;
use axum::extract::ws::{Message as WsMessage, Utf8Bytes};

use crate::wire::codec::{to_json, to_msgpack};
use crate::wire::{Encoding, Frame};

/// A frame for many connections: encoded once for each encoding that is in use, then shared.
pub struct Encoded {
    frame: Frame,
    json: OnceLock<Utf8Bytes>,
    msgpack: OnceLock<Bytes>,
}

impl Encoded {
    pub fn new(frame: Frame) -> Self {
        Self { frame, json: OnceLock::new(), msgpack: OnceLock::new() }
    }

    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    pub fn encoded(&self, encoding: Encoding) -> WsMessage {
        match encoding {
            Encoding::Json => WsMessage::Text(self.json.get_or_init(|| json(&self.frame)).clone()),
            Encoding::Msgpack => WsMessage::Binary(self.msgpack.get_or_init(|| msgpack(&self.frame)).clone()),
        }
    }
}

/// A frame for one connection.
pub fn encode(frame: &Frame, encoding: Encoding) -> WsMessage {
    match encoding {
        Encoding::Json => WsMessage::Text(json(frame)),
        Encoding::Msgpack => WsMessage::Binary(msgpack(frame)),
    }
}

// Frames are made of text, numbers and lists: encoding them can't fail. Should it ever, the log says so and the
// client gets a frame that it can't read instead of nothing, so that the fault is seen on both ends.
fn json(frame: &Frame) -> Utf8Bytes {
    to_json(frame).unwrap_or_else(unencodable).into()
}

fn msgpack(frame: &Frame) -> Bytes {
    to_msgpack(frame).unwrap_or_else(|error| unencodable(error).into()).into()
}

fn unencodable(error: crate::wire::Malformed) -> String {
    tracing::error!(%error, "a frame can't be encoded");
    String::new()
}
