//! One thread that is thousands of WebSocket clients.
//!
//! An [`Engine`] has one poll, one buffer that all connections read into, and one heap of timers; a client is a slot in
//! a table, with buffers of its own only while a frame is cut in two or the socket takes no more. What the clients say
//! and when is their [`Script`]'s business, which is called from the loop and acts through [`Net`]: nothing here knows
//! a protocol above RFC 6455, so the same loop drives servers of any.

mod alarm;
pub mod clock;
mod dial;
mod ended;
mod link;
mod net;
mod rng;
#[cfg(test)]
mod tests;
mod timers;
mod upgrade;

use std::io::{self, Read as _};
use std::net::IpAddr;
use std::sync::Arc;

use mio::event::Event;
use mio::{Events, Poll, Token, Waker};

use crate::websocket::{Item, Reader, Role, Violation};
use alarm::Alarm;
pub use ended::Ended;
use link::State;
pub use net::{Net, Overflow};
pub use rng::Rng;
pub use timers::Timers;
pub use upgrade::Upgrade;

/// Bytes read at once, by all connections into the same buffer.
const READ_BUFFER: usize = 64 << 10;
/// Events of one poll.
const EVENTS: usize = 1024;

/// A client's number: its slot in the engine.
pub type ClientNo = u32;

/// A whole data message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

impl<'a> Data<'a> {
    pub const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// What the clients of an engine do. Each method is told the time ([`clock`], nanoseconds) and may act through `net`.
pub trait Script {
    /// What a timer is for.
    type Timer;

    /// Called once, before anything else.
    fn start(&mut self, net: &mut Net<Self::Timer>, at: u64);

    /// The handshake of this client's connection was accepted.
    fn opened(&mut self, net: &mut Net<Self::Timer>, client: ClientNo, at: u64);

    /// A message; `at` is after its last byte was read. Pings were answered already.
    fn message(&mut self, net: &mut Net<Self::Timer>, client: ClientNo, data: Data<'_>, at: u64);

    /// A timer is due; it may be late, never early.
    fn timer(&mut self, net: &mut Net<Self::Timer>, timer: Self::Timer, at: u64);

    /// The connection has ended, or never came to be; not called for what the script ended itself.
    fn closed(&mut self, net: &mut Net<Self::Timer>, client: ClientNo, why: Ended, at: u64);

    /// Somebody used the engine's [`Waker`].
    fn woken(&mut self, _net: &mut Net<Self::Timer>, _at: u64) {}
}

/// How an engine is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Clients that there may be: numbers below this.
    pub clients: u32,
    /// Addresses to connect from, by turns, when the target is a loopback address: each gives as many ports again.
    /// Empty: whichever the system chooses.
    pub sources: Vec<IpAddr>,
    /// The largest message that a server may send, in bytes.
    pub max_message: usize,
    /// Bytes that may wait to be written to one connection.
    pub max_unsent: usize,
    /// For masks, which need no more than to differ.
    pub seed: u64,
}

impl Options {
    pub fn new(clients: u32) -> Self {
        Self { clients, sources: Vec::new(), max_message: 16 << 20, max_unsent: 4 << 20, seed: 0 }
    }

    /// Connects from `count` addresses 127.0.0.1, 127.0.0.2, …, where the system has them all.
    pub fn with_loopback_sources(mut self, count: u8) -> Self {
        if cfg!(target_os = "linux") {
            self.sources = (1..=count).map(|last| IpAddr::from([127, 0, 0, last])).collect();
        }
        self
    }
}

/// The loop.
pub struct Engine<S: Script> {
    poll: Poll,
    waker: Arc<Waker>,
    alarm: Alarm,
    net: Net<S::Timer>,
    script: S,
    buffer: Box<[u8]>,
}

impl<S: Script> Engine<S> {
    /// Errors: the system gives no poll, waker or timer.
    pub fn new(script: S, options: Options) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), net::WAKER)?);
        let alarm = Alarm::new(poll.registry(), net::ALARM)?;
        let net = Net::new(poll.registry().try_clone()?, options);
        Ok(Self { poll, waker, alarm, net, script, buffer: vec![0; READ_BUFFER].into_boxed_slice() })
    }

    /// Makes the script's `woken` be called, from any thread.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Runs until the script says [`Net::stop`], and gives the script back; what is still connected is cut.
    ///
    /// Errors: the poll fails, which a working system's does not.
    pub fn run(mut self) -> io::Result<S> {
        let mut events = Events::with_capacity(EVENTS);
        self.script.start(&mut self.net, clock::now());
        loop {
            self.run_timers();
            self.tell_ended();
            if self.net.is_stopped() {
                return Ok(self.script);
            }
            // Ends that the script caused just now are told at once.
            let timeout = if self.net.has_ended() {
                Some(std::time::Duration::ZERO)
            } else {
                self.alarm.arm(self.net.timers.next())?
            };
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            for event in &events {
                match event.token() {
                    net::ALARM => self.alarm.fired(),
                    net::WAKER => self.script.woken(&mut self.net, clock::now()),
                    token => self.ready(token, event),
                }
            }
        }
    }

    /// Those that are due now; what they set anew waits for the next round, so that sockets get their turn.
    fn run_timers(&mut self) {
        let now = clock::now();
        while let Some(timer) = self.net.timers.due(now) {
            self.script.timer(&mut self.net, timer, clock::now());
        }
    }

    fn tell_ended(&mut self) {
        let now = clock::now();
        while let Some((client, why)) = self.net.next_ended() {
            self.script.closed(&mut self.net, client, why, now);
        }
    }

    fn ready(&mut self, token: Token, event: &Event) {
        // An event of a connection that ended meanwhile may still be in the batch.
        let Some(client) = self.net.client_of(token) else { return };
        if event.is_writable() && !self.net.writable(client) {
            return;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(client, token, event.is_read_closed() || event.is_error());
        }
    }

    fn read(&mut self, client: ClientNo, token: Token, to_the_end: bool) {
        loop {
            let Some(link) = self.net.link_of(token) else { return };
            if link.state == State::Connecting {
                return;
            }
            match link.stream.read(&mut self.buffer) {
                Ok(0) => return self.net.end(client, Ended::Eof),
                Ok(length) => {
                    self.received(client, token, length);
                    // Less than asked for: the socket is empty, and what comes next is a new event (epoll(7)).
                    if length < self.buffer.len() && !to_the_end {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.net.end(client, Ended::Broken(error.kind())),
            }
        }
    }

    /// Takes `length` bytes of the shared buffer.
    fn received(&mut self, client: ClientNo, token: Token, length: usize) {
        let at = clock::now();
        let mut begin = 0;
        let Some(link) = self.net.link_of(token) else { return };
        if link.state == State::Upgrading {
            match link.answer(&self.buffer[..length]) {
                Ok(None) => return,
                Ok(Some(used)) => begin = used,
                Err(why) => return self.net.end(client, why),
            }
            self.script.opened(&mut self.net, client, at);
        }
        let Some(link) = self.net.link_of(token) else { return };
        // Out of the table, so that the script can have the table while it is called.
        let mut reader = std::mem::replace(&mut link.reader, Reader::new(Role::Client, 0));
        let (net, script) = (&mut self.net, &mut self.script);
        let read = reader.read(&mut self.buffer[begin..length], |item| {
            match item {
                Item::Text(text) => script.message(net, client, Data::Text(text), at),
                Item::Binary(bytes) => script.message(net, client, Data::Binary(bytes), at),
                Item::Ping(payload) => net.pong(client, payload),
                Item::Pong(_) => {}
                Item::Close(reason) => net.end(client, Ended::Close(reason.map_or(NO_CODE, |(code, _)| code))),
            }
            // The script may have ended the connection, or begun another.
            net.client_of(token).map(drop).ok_or(Stop::Gone)
        });
        match (read, self.net.link_of(token)) {
            (Ok(()), Some(link)) => link.reader = reader,
            (Err(Stop::Violation(violation)), _) => self.net.end(client, Ended::Protocol(violation)),
            _ => {}
        }
    }
}

/// Stands for a close without a code (RFC 6455 §7.1.5).
const NO_CODE: u16 = 1005;

/// Why no more messages are read.
enum Stop {
    Gone,
    Violation(Violation),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}
