//! The clients of one thread, as the script of an engine: people of a plan who connect, write, read and come back.
//!
//! A good client, as the protocol's page describes it: after a lost connection it resumes where it was and repeats what
//! was not accepted, the oldest first, with the same `client_id`; it pages through what a `gap` left out; it keeps what
//! it could not send, and the time at which that was to be sent counts. What it sees goes to the oracle's recorder.

mod arrive;
mod ask;
pub mod body;
mod check;
mod create;
mod finish;
mod load;
mod look;
mod person;
mod receive;
mod script;
mod send;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use uuid::Uuid;

use super::engine::{ClientNo, Data, Engine, Net, Options, Rng, clock};
use super::meter::Meter;
use super::orders::{Order, Report};
use super::plan::Plan;
use crate::message::{ChannelId, Username};
use crate::oracle::Recorder;
use crate::oracle::frame::Sent;
use ask::{Ask, Pen};
use body::Filling;
use check::Checks;
use create::Creations;
use load::Load;
use person::Person;

/// Where the server is.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Target {
    pub address: SocketAddr,
    /// As in its URL, for the `Host` header.
    pub host: String,
}

/// Which of a run's clients are this thread's: every `of`-th, from the `index`-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Share {
    pub index: u32,
    pub of: u32,
}

impl Share {
    pub const fn clients(self, all: u32) -> u32 {
        (all + self.of - 1 - self.index) / self.of
    }

    const fn number(self, client: ClientNo) -> u32 {
        client * self.of + self.index
    }

    const fn client(self, number: u32) -> Option<ClientNo> {
        if number % self.of == self.index { Some(number / self.of) } else { None }
    }
}

/// What a timer of the crowd is for.
#[derive(Debug, Clone, Copy)]
pub enum Timer {
    Dial(ClientNo),
    /// A connection begun then should be welcomed by now.
    Welcomed(ClientNo, u64),
    /// The next message is to be written.
    Write,
    /// Somebody has typed long enough, in this channel, at this time.
    Typed(ClientNo, u32, u64),
    TryAgain(ClientNo),
    Deliver(ClientNo),
    Read(ClientNo),
    Resume(ClientNo),
    /// This span of the plan begins with a storm.
    Storm(usize),
    Create,
    Check,
    Settle,
    Second,
}

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Waiting,
    Connecting,
    Creating,
    Running,
    Settling,
    Checking,
    Leaving,
    Over,
}

/// What a crowd is made with.
pub struct Setup {
    pub plan: Arc<Plan>,
    pub share: Share,
    pub target: Target,
    /// Events that the oracle's recorder may hold; none if it isn't wanted.
    pub record: Option<usize>,
}

/// A stored message: who wrote it where, what names it, and the word that no other one has.
#[derive(Debug, Clone)]
struct Written {
    client: ClientNo,
    channel: ChannelId,
    client_id: Uuid,
    word: String,
}

pub struct Crowd {
    plan: Arc<Plan>,
    share: Share,
    target: Target,
    orders: Receiver<Order>,
    reports: Sender<(u32, Report)>,
    act: Act,
    /// When the first order came.
    began: u64,
    people: Vec<Person>,
    /// Those who can write, and how many there are in all parts.
    writers: Vec<ClientNo>,
    all_writers: u32,
    /// How many were welcomed at least once.
    arrived: u32,
    /// Channels' ids, as far as they are known, and back.
    ids: Vec<Option<ChannelId>>,
    known: HashMap<ChannelId, u32>,
    meter: Meter,
    recorder: Option<Recorder>,
    creations: Creations,
    load: Load,
    checks: Checks,
    /// Stored messages that can be searched for.
    words: VecDeque<Written>,
    pen: Pen,
    filling: Filling,
    rng: Rng,
}

/// A crowd could not begin.
#[derive(Debug, thiserror::Error)]
pub enum CrowdError {
    #[error("the system gives no poll: {0}")]
    Poll(#[from] std::io::Error),
    #[error("no histogram: {0:?}")]
    Histogram(hdrhistogram::CreationError),
}

impl Crowd {
    /// The engine that runs this crowd; whoever sends an order wakes it.
    pub fn engine(
        setup: Setup,
        orders: Receiver<Order>,
        reports: Sender<(u32, Report)>,
    ) -> Result<Engine<Self>, CrowdError> {
        let (crowd, options) = Self::new(setup, orders, reports)?;
        Ok(Engine::new(crowd, options)?)
    }

    fn new(
        setup: Setup,
        orders: Receiver<Order>,
        reports: Sender<(u32, Report)>,
    ) -> Result<(Self, Options), CrowdError> {
        let Setup { plan, share, target, record } = setup;
        let clients = share.clients(plan.clients());
        let seed = Rng::part(plan.settings.seed, 100 + u64::from(share.index)).next_u64();
        let mut options = Options::new(clients).with_loopback_sources(8);
        options.seed = seed;
        let scenario = &plan.settings.scenario;
        let mut rng = Rng::new(seed);
        let people = (0..clients).map(|client| {
            let mut person = Person::new(share.number(client));
            person.speaks_msgpack = rng.chance(scenario.msgpack);
            person.says_delivered = rng.chance(scenario.receipts.delivered);
            person.says_read = rng.chance(scenario.receipts.read);
            person
        });
        let people: Vec<_> = people.collect();
        let writers = (0..clients).filter(|client| plan.can_write(share.number(*client))).collect();
        let mut crowd = Self {
            share,
            target,
            orders,
            reports,
            act: Act::Waiting,
            began: 0,
            people,
            writers,
            all_writers: plan.writers(),
            arrived: 0,
            ids: vec![None; plan.channels.len()],
            known: HashMap::new(),
            meter: Meter::new().map_err(CrowdError::Histogram)?,
            recorder: record.map(Recorder::new),
            creations: Creations::of(&plan, share),
            load: Load::default(),
            checks: Checks::default(),
            words: VecDeque::new(),
            pen: Pen::default(),
            filling: Filling::new(scenario.body.max, seed),
            rng,
            plan,
        };
        crowd.learn_direct_channels();
        Ok((crowd, options))
    }

    /// A direct channel's id follows from its members.
    fn learn_direct_channels(&mut self) {
        let plan = Arc::clone(&self.plan);
        for (index, channel) in plan.channels.iter().enumerate() {
            if let (true, [one, other]) = (channel.is_direct, channel.members.as_slice()) {
                let name = |client: &u32| Username::new(&plan.accounts[*client as usize].name);
                if let (Ok(one), Ok(other)) = (name(one), name(other)) {
                    self.learn(index as u32, ChannelId::direct(&one, &other));
                }
            }
        }
    }

    fn learn(&mut self, channel: u32, id: ChannelId) {
        self.ids[channel as usize] = Some(id);
        self.known.insert(id, channel);
    }

    fn report(&self, report: Report) {
        if self.reports.send((self.share.index, report)).is_err() {
            tracing::debug!("nobody conducts this crowd any more");
        }
    }

    fn obey(&mut self, net: &mut Net<Timer>, order: Order, at: u64) {
        match order {
            Order::Connect { within } => {
                self.began = at;
                net.set_timer(at + SECOND, Timer::Second);
                self.connect_all(net, within, at);
            }
            Order::Create => {
                self.act = Act::Creating;
                self.create(net, at);
            }
            Order::Go { at } => self.begin(net, at),
            Order::Settle => {
                self.stop_writing(at);
                self.act = Act::Settling;
                self.settle(net, at);
            }
            Order::Check => self.begin_checks(net, at),
            Order::Leave => self.leave_all(net, at),
            Order::Finish => self.finish(net, at),
        }
    }

    /// Tells how things stand.
    fn tick(&mut self, at: u64) {
        let pending = self.people.iter().map(|person| person.pending.len() as u64).sum();
        // At the end of a second, or a little later, it is that second which is told of.
        let second = at.saturating_sub(self.began + SECOND / 10) / SECOND;
        let tick = self.meter.tick(second, pending);
        self.report(Report::Tick(tick));
    }

    /// Somebody waits for the end of what is under way: told more often than once a second.
    fn settle(&mut self, net: &mut Net<Timer>, at: u64) {
        if self.act == Act::Settling {
            self.repeat_what_is_not_stored(net, at);
            self.tick(at);
            net.set_timer(at + SECOND / 5, Timer::Settle);
        }
    }

    /// Asks something for this client; nothing is sent where it has no connection.
    fn say(&mut self, net: &mut Net<Timer>, client: ClientNo, ask: &Ask<'_>) -> bool {
        let person = &self.people[client as usize];
        let sent = if person.speaks_msgpack {
            self.pen.msgpack(ask).map(|bytes| net.send(client, Data::Binary(bytes)))
        } else {
            self.pen.json(ask).map(|text| net.send(client, Data::Text(text)))
        };
        match sent {
            Ok(sent) => sent.is_ok(),
            Err(error) => {
                tracing::error!(error, "a request could not be written");
                false
            }
        }
    }

    /// For the oracle: what is about to be sent.
    fn note_sent(&mut self, client: ClientNo, frame: &Sent<'_>) {
        let connection = self.people[client as usize].connection;
        if let (Some(recorder), Some(connection)) = (&mut self.recorder, connection) {
            recorder.sent(connection, clock::now(), frame);
        }
    }
}

const SECOND: u64 = 1_000_000_000;
