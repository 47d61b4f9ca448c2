//! WebSocket frames (RFC 6455) for both ends, without any I/O.
//!
//! The sockets of a gateway are most of its memory and its writes most of its time; both are decided here. So there is
//! no buffer a connection: [`Reader`] takes bytes from whatever buffer they were read into, and keeps only what is cut;
//! a frame for many is written once, head and all, by [`frame()`].

mod frame;
pub mod handshake;
mod reader;

pub use frame::{Opcode, close_frame, frame, put_masked};
pub use reader::{Item, Reader, Role, Violation};
