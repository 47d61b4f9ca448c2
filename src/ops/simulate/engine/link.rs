//! One connection: a socket, and what is cut or waits.

use std::io::{self, Write as _};

use mio::net::TcpStream;

use super::ended::Ended;
use super::upgrade;
use crate::websocket::{Reader, Role};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Upgrading,
    Open,
}

pub(super) struct Link {
    pub stream: TcpStream,
    pub state: State,
    /// Keeps what is cut.
    pub reader: Reader,
    /// The beginning of the handshake's answer, until it is whole.
    answer: Vec<u8>,
    /// What the socket did not take, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
}

impl Link {
    /// `request` is written as soon as there is a connection.
    pub fn new(stream: TcpStream, request: Vec<u8>, max_message: usize) -> Self {
        let reader = Reader::new(Role::Client, max_message);
        Self { stream, state: State::Connecting, reader, answer: Vec::new(), unsent: request, sent: 0 }
    }

    /// Takes bytes of the handshake's answer. When it is whole, the connection is open; returns how many of the bytes
    /// belonged to it.
    pub fn answer(&mut self, bytes: &[u8]) -> Result<Option<usize>, Ended> {
        let before = self.answer.len();
        self.answer.extend_from_slice(bytes);
        let Some(length) = upgrade::answer(&self.answer)? else { return Ok(None) };
        self.answer = Vec::new();
        self.state = State::Open;
        Ok(Some(length - before))
    }

    /// Writes at once if nothing waits, and queues what is left. False, and nothing is queued, if more than `limit`
    /// bytes would wait.
    pub fn write(&mut self, bytes: &[u8], limit: usize) -> io::Result<bool> {
        let mut rest = bytes;
        if self.unsent.is_empty() && self.state != State::Connecting {
            let written = write_some(&mut self.stream, bytes)?;
            rest = &bytes[written..];
        }
        if rest.is_empty() {
            return Ok(true);
        }
        // Of a frame that has begun, the rest must follow.
        if rest.len() == bytes.len() && self.waits() + rest.len() > limit {
            return Ok(false);
        }
        self.unsent.extend_from_slice(rest);
        Ok(true)
    }

    /// Writes what waits, as far as the socket takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        self.sent += write_some(&mut self.stream, &self.unsent[self.sent..])?;
        if self.sent == self.unsent.len() {
            self.unsent = Vec::new();
            self.sent = 0;
        }
        Ok(())
    }

    fn waits(&self) -> usize {
        self.unsent.len() - self.sent
    }
}

/// How much of `bytes` the socket took.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
