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
mod frame;
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

use alarm::Alarm;
pub use ended::Ended;
pub use frame::Opcode;
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

/// What the clients of an engine do. Each method is told the time ([`clock`], nanoseconds) and may act through `net`.
pub trait Script {
    /// What a timer is for.
    type Timer;

    /// Called once, before anything else.
    fn start(&mut self, net: &mut Net<Self::Timer>, at: u64);

    /// The handshake of this client's connection was accepted.
    fn opened(&mut self, net: &mut Net<Self::Timer>, client: ClientNo, at: u64);

    /// A whole data frame; `at` is after its last byte was read. Pings were answered already.
    fn frame(&mut self, net: &mut Net<Self::Timer>, client: ClientNo, opcode: Opcode, payload: &[u8], at: u64);

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
    /// The largest frame that a server may send, in bytes.
    pub max_frame: usize,
    /// Bytes that may wait to be written to one connection.
    pub max_unsent: usize,
    /// For masks, which need no more than to differ.
    pub seed: u64,
}

impl Options {
    pub fn new(clients: u32) -> Self {
        Self { clients, sources: Vec::new(), max_frame: 16 << 20, max_unsent: 4 << 20, seed: 0 }
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

    /// Takes `length` bytes of the shared buffer; only what is cut is copied.
    fn received(&mut self, client: ClientNo, token: Token, length: usize) {
        let at = clock::now();
        let Some(link) = self.net.link_of(token) else { return };
        let mut joined = std::mem::take(&mut link.unread);
        if joined.is_empty() {
            // The buffer is lent to the script while the loop has it no more.
            let buffer = std::mem::take(&mut self.buffer);
            let used = self.take_in(client, token, &buffer[..length], at);
            if let (Some(used), Some(link)) = (used, self.net.link_of(token))
                && used < length
            {
                link.unread.extend_from_slice(&buffer[used..length]);
            }
            self.buffer = buffer;
            return;
        }
        joined.extend_from_slice(&self.buffer[..length]);
        let used = self.take_in(client, token, &joined, at);
        if let (Some(used), Some(link)) = (used, self.net.link_of(token)) {
            joined.drain(..used);
            // Idle clients hold no memory.
            link.unread = if joined.is_empty() { Vec::new() } else { joined };
        }
    }

    /// Reads what is whole in `bytes` and says how much that was; none if the connection is no more.
    fn take_in(&mut self, client: ClientNo, token: Token, bytes: &[u8], at: u64) -> Option<usize> {
        let mut used = 0;
        if self.net.link_of(token)?.state == State::Upgrading {
            match upgrade::answer(bytes) {
                Ok(None) => return Some(0),
                Ok(Some(length)) => used = length,
                Err(why) => {
                    self.net.end(client, why);
                    return None;
                }
            }
            self.net.link_of(token)?.state = State::Open;
            self.script.opened(&mut self.net, client, at);
        }
        loop {
            self.net.link_of(token)?;
            let header = match frame::Header::parse(&bytes[used..], self.net.max_frame()) {
                Ok(Some(header)) if bytes.len() - used >= header.frame_length() => header,
                Ok(_) => return Some(used),
                Err(why) => {
                    self.net.end(client, Ended::Protocol(why));
                    return None;
                }
            };
            let payload = &bytes[used + header.length..used + header.frame_length()];
            used += header.frame_length();
            match header.opcode {
                Opcode::Ping => self.net.pong(client, payload),
                Opcode::Pong => {}
                Opcode::Close => self.net.end(client, Ended::close(payload)),
                opcode => self.script.frame(&mut self.net, client, opcode, payload, at),
            }
        }
    }
}
