//! How a connection ended.

use std::fmt;
use std::io;

use crate::websocket::Violation;

/// Why there is no connection (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// There is nobody at the address, or no way there.
    Unreachable(io::ErrorKind),
    /// The handshake was answered with this HTTP status.
    Refused(u16),
    /// The server closed it, with this code (RFC 6455 §7.4); 1005: with none.
    Close(u16),
    /// The server's end of the connection was closed without a word.
    Eof,
    Broken(io::ErrorKind),
    /// The handshake's answer was none.
    NoHandshake(&'static str),
    /// What came was not RFC 6455.
    Protocol(Violation),
    /// More waits to be written than may wait.
    Overflow,
}

impl Ended {
    /// For counting: few different ones.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Unreachable(io::ErrorKind::ConnectionRefused) => "refused",
            Self::Unreachable(io::ErrorKind::TimedOut) => "timeout",
            Self::Unreachable(io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse) => "no_free_port",
            Self::Unreachable(_) => "unreachable",
            Self::Refused(401) => "unauthorized",
            Self::Refused(429 | 503) => "overloaded",
            Self::Refused(_) | Self::NoHandshake(_) => "handshake",
            Self::Close(_) | Self::Eof => "closed",
            Self::Broken(_) => "broken",
            Self::Protocol(_) => "protocol",
            Self::Overflow => "overflow",
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(kind) => write!(f, "no connection: {kind}"),
            Self::Refused(status) => write!(f, "the handshake was answered with status {status}"),
            Self::Close(code) => write!(f, "the server closed the connection with code {code}"),
            Self::Eof => f.write_str("the server closed the connection"),
            Self::Broken(kind) => write!(f, "the connection broke: {kind}"),
            Self::NoHandshake(what) => write!(f, "the handshake was answered with {what}"),
            Self::Protocol(violation) => write!(f, "the server sent what is no WebSocket: {violation}"),
            Self::Overflow => f.write_str("the server doesn't read what it is sent"),
        }
    }
}
