//! The wire, version `aula.v1`: what clients may send ([`request`]), what the server sends ([`frame`]), and the two
//! encodings of both ([`codec`]). `docs/protocol.md` shows each with an example.

pub mod codec;
pub mod error_code;
pub mod frame;
pub mod request;

pub use codec::{Encoding, Incoming, Malformed, OPS as OPS_FROM_CLIENTS, decode_json, decode_msgpack};
pub use error_code::ErrorCode;
pub use frame::{Frame, OPS as OPS_FROM_SERVER};
pub use request::Request;

/// WebSocket subprotocols, RFC 6455 §1.9.
pub const SUBPROTOCOL_JSON: &str = "aula.v1.json";
pub const SUBPROTOCOL_MSGPACK: &str = "aula.v1.msgpack";
