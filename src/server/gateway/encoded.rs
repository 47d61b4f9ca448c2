use std::sync::OnceLock;

use bytes::Bytes;

use crate::websocket::{Opcode, frame};
use crate::wire::codec::{to_json, to_msgpack};
use crate::wire::{Encoding, Frame};

/// A frame for many connections: written once for each encoding that is in use, WebSocket head and all, then shared.
pub struct Encoded {
    frame: Frame,
    json: OnceLock<Bytes>,
    msgpack: OnceLock<Bytes>,
}

impl Encoded {
    pub fn new(frame: Frame) -> Self {
        Self { frame, json: OnceLock::new(), msgpack: OnceLock::new() }
    }

    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The bytes for a socket.
    pub fn encoded(&self, encoding: Encoding) -> &Bytes {
        let cell = match encoding {
            Encoding::Json => &self.json,
            Encoding::Msgpack => &self.msgpack,
        };
        cell.get_or_init(|| encode(&self.frame, encoding))
    }
}

/// A frame for one connection, as the bytes for its socket.
pub fn encode(message: &Frame, encoding: Encoding) -> Bytes {
    // Frames are made of text, numbers and lists: encoding them can't fail. Should it ever, the log says so and the
    // client gets a frame that it can't read instead of nothing, so that the fault is seen on both ends.
    match encoding {
        Encoding::Json => frame(Opcode::Text, to_json(message).unwrap_or_else(unencodable).as_bytes()),
        Encoding::Msgpack => frame(Opcode::Binary, &to_msgpack(message).unwrap_or_else(unencodable)),
    }
}

fn unencodable<T: Default>(error: crate::wire::Malformed) -> T {
    tracing::error!(%error, "a frame can't be encoded");
    T::default()
}
