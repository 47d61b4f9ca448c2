//! What a script acts through: connections and timers of one engine.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use mio::{Interest, Registry, Token};

use super::dial::dial;
use super::ended::Ended;
use super::link::{Link, State};
use super::rng::Rng;
use super::timers::Timers;
use super::{ClientNo, Data, Options};
use crate::websocket::{Opcode, put_masked};

pub(super) const ALARM: Token = Token(usize::MAX);
pub(super) const WAKER: Token = Token(usize::MAX - 1);

/// The frame was not sent: too much waits already, or there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// The connections of an engine's clients, and its timers.
pub struct Net<T> {
    registry: Registry,
    slots: Vec<Slot>,
    pub(super) timers: Timers<T>,
    /// Told to the script as soon as it is not being called.
    ended: VecDeque<(ClientNo, Ended)>,
    options: Options,
    rng: Rng,
    /// A frame on its way to a socket.
    scratch: Vec<u8>,
    stopped: bool,
}

/// A client's place. The number of its connection tells late events of the one before.
#[derive(Default)]
struct Slot {
    generation: u32,
    link: Option<Link>,
}

impl<T> Net<T> {
    pub(super) fn new(registry: Registry, options: Options) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(options.clients as usize, Slot::default);
        let rng = Rng::new(options.seed);
        let (timers, ended, scratch) = (Timers::default(), VecDeque::new(), Vec::new());
        Self { registry, slots, timers, ended, options, rng, scratch, stopped: false }
    }

    /// Calls the script's `timer` at this time or a little later.
    pub fn set_timer(&mut self, at: u64, timer: T) {
        self.timers.set(at, timer);
    }

    /// Begins a connection and writes `request` (of [`super::Upgrade`]) when it is there; one that the client has is
    /// cut. What becomes of it is told by `opened` or `closed`.
    pub fn connect(&mut self, client: ClientNo, target: SocketAddr, request: Vec<u8>) {
        self.cut(client);
        if let Err(error) = self.try_connect(client, target, request) {
            self.ended.push_back((client, Ended::Unreachable(error.kind())));
        }
    }

    fn try_connect(&mut self, client: ClientNo, target: SocketAddr, request: Vec<u8>) -> io::Result<()> {
        let sources = &self.options.sources;
        let source = (target.ip().is_loopback() && target.is_ipv4() && !sources.is_empty())
            .then(|| sources[client as usize % sources.len()]);
        let mut stream = dial(target, source)?;
        let slot = self.slots.get_mut(client as usize).ok_or(io::ErrorKind::InvalidInput)?;
        slot.generation = slot.generation.wrapping_add(1) & GENERATIONS;
        let token = token(client, slot.generation);
        self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        slot.link = Some(Link::new(stream, request, self.options.max_message));
        Ok(())
    }

    pub fn is_open(&self, client: ClientNo) -> bool {
        self.link(client).is_some_and(|link| link.state == State::Open)
    }

    /// Sends a message; it is written at once, or queued if the socket is full.
    pub fn send(&mut self, client: ClientNo, data: Data<'_>) -> Result<(), Overflow> {
        match data {
            Data::Text(text) => self.write(client, Opcode::Text, text.as_bytes()),
            Data::Binary(bytes) => self.write(client, Opcode::Binary, bytes),
        }
    }

    fn write(&mut self, client: ClientNo, opcode: Opcode, payload: &[u8]) -> Result<(), Overflow> {
        if !self.is_open(client) {
            return Err(Overflow);
        }
        self.scratch.clear();
        let key = (self.rng.next_u64() as u32).to_ne_bytes();
        put_masked(&mut self.scratch, opcode, payload, key);
        let limit = self.options.max_unsent;
        let Some(link) = self.slots.get_mut(client as usize).and_then(|slot| slot.link.as_mut()) else {
            return Err(Overflow);
        };
        match link.write(&self.scratch, limit) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Overflow),
            Err(error) => {
                self.end(client, Ended::Broken(error.kind()));
                Err(Overflow)
            }
        }
    }

    /// Says goodbye (1000) and closes; `closed` is not called.
    pub fn close(&mut self, client: ClientNo) {
        // Whether the peer still hears it changes nothing.
        if self.write(client, Opcode::Close, &1000u16.to_be_bytes()) == Err(Overflow) {
            self.ended.retain(|(ended, _)| *ended != client);
        }
        self.cut(client);
    }

    /// Ends the connection without a word, as a network does; `closed` is not called.
    pub fn cut(&mut self, client: ClientNo) {
        if let Some(link) = self.slots.get_mut(client as usize).and_then(|slot| slot.link.take()) {
            self.forget(link);
        }
    }

    /// Leaves the loop.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// For choices that need not be the same in each run.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(super) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    pub(super) fn next_ended(&mut self) -> Option<(ClientNo, Ended)> {
        self.ended.pop_front()
    }

    /// Ends a connection, and has the script told.
    pub(super) fn end(&mut self, client: ClientNo, why: Ended) {
        if let Some(link) = self.slots.get_mut(client as usize).and_then(|slot| slot.link.take()) {
            let why = match (link.state, why) {
                (State::Connecting, Ended::Broken(kind)) => Ended::Unreachable(kind),
                (_, why) => why,
            };
            self.forget(link);
            self.ended.push_back((client, why));
        }
    }

    fn forget(&self, mut link: Link) {
        if let Err(error) = self.registry.deregister(&mut link.stream) {
            tracing::debug!(%error, "a socket could not be taken out of the poll");
        }
    }

    /// Whose event it is, unless the connection is no more.
    pub(super) fn client_of(&self, token: Token) -> Option<ClientNo> {
        let client = (token.0 & u32::MAX as usize) as u32;
        let slot = self.slots.get(client as usize)?;
        (slot.link.is_some() && slot.generation as usize == token.0 >> 32).then_some(client)
    }

    pub(super) fn link_of(&mut self, token: Token) -> Option<&mut Link> {
        let client = self.client_of(token)?;
        self.slots.get_mut(client as usize)?.link.as_mut()
    }

    fn link(&self, client: ClientNo) -> Option<&Link> {
        self.slots.get(client as usize)?.link.as_ref()
    }

    /// The socket takes bytes again. False if the connection is no more.
    pub(super) fn writable(&mut self, client: ClientNo) -> bool {
        let Some(link) = self.slots.get_mut(client as usize).and_then(|slot| slot.link.as_mut()) else { return false };
        if link.state == State::Connecting {
            match link.stream.take_error().and_then(|error| error.map_or(Ok(()), Err)) {
                Ok(()) => link.state = State::Upgrading,
                Err(error) => {
                    self.end(client, Ended::Broken(error.kind()));
                    return false;
                }
            }
        }
        match link.flush() {
            Ok(()) => true,
            Err(error) => {
                self.end(client, Ended::Broken(error.kind()));
                false
            }
        }
    }

    /// RFC 6455 §5.5.3.
    pub(super) fn pong(&mut self, client: ClientNo, payload: &[u8]) {
        if self.write(client, Opcode::Pong, payload) == Err(Overflow) {
            self.end(client, Ended::Overflow);
        }
    }
}

/// Below the tokens of the alarm and the waker.
const GENERATIONS: u32 = u32::MAX >> 1;

fn token(client: ClientNo, generation: u32) -> Token {
    Token((generation as usize) << 32 | client as usize)
}
