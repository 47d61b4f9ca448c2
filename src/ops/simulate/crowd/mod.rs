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
mod load;
mod look;
mod person;
mod receive;
mod send;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use super::engine::{ClientNo, Data, Ended, Engine, Net, Options, Rng, Script, clock};
use super::measured::Stage;
use super::meter::Meter;
use super::orders::{Order, Part, Report};
use super::plan::Plan;
use crate::message::{ChannelId, Username};
use crate::oracle::Recorder;
use crate::oracle::frame::{Received, Sent, Status};
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
    /// Stored messages that can be searched for: who wrote them, and their word.
    words: VecDeque<(ClientNo, String)>,
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
        let mut crowd = Self {
            share,
            target,
            orders,
            reports,
            act: Act::Waiting,
            began: 0,
            people,
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
        Ok(Engine::new(crowd, options)?)
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

    /// Leaves out what given accounts see of channels that are none of the run's: nobody here knows what was sent there.
    fn only_of_the_run<'a>(&self, mut frame: Received<'a>) -> Received<'a> {
        if !self.plan.settings.are_accounts_given {
            return frame;
        }
        let is_ours = |id: &ChannelId| self.known.contains_key(id);
        let channel = match &mut frame {
            Received::Welcome(welcome) => {
                welcome.channels.retain(|head| is_ours(&head.id));
                return frame;
            }
            Received::SearchResults(results) => {
                results.hits.retain(|hit| hit.channel.is_some_and(|id| is_ours(&id)));
                return frame;
            }
            Received::Message(message) => message.channel,
            Received::Gap(gap) => Some(gap.channel),
            Received::Status(
                Status::Persisted { channel, .. }
                | Status::Rejected { channel, .. }
                | Status::Delivered { channel, .. }
                | Status::Read { channel, .. },
            ) => Some(*channel),
            _ => return frame,
        };
        if channel.is_none_or(|id| is_ours(&id)) { frame } else { Received::Other }
    }

    fn finish(&mut self, net: &mut Net<Timer>, at: u64) {
        self.act = Act::Over;
        for client in 0..self.people.len() as u32 {
            if self.people[client as usize].is_here() {
                net.close(client);
                self.gone(client, at);
            } else {
                net.cut(client);
            }
        }
        self.count_unanswered();
        self.tick(at);
        let (record, overflowed) = match self.recorder.take().map(Recorder::into_record) {
            Some(Ok(record)) => (Some(record), None),
            Some(Err(full)) => (None, Some(full.max_events)),
            None => (None, None),
        };
        let part = Part {
            stages: self.meter.pack(),
            received: self.meter.received,
            expected: self.meter.expected,
            unfound: self.checks.take_unfound(),
            record,
            record_file: None,
            overflowed,
        };
        self.report(Report::Over(Box::new(part)));
        net.stop();
    }

    /// What never came to an end.
    fn count_unanswered(&mut self) {
        for pending in self.people.iter().flat_map(|person| &person.pending) {
            match (pending.is_accepted, pending.attempts) {
                (true, _) => self.meter.error(Stage::Persisted, "no_answer"),
                (false, 0) => self.meter.error(Stage::Accepted, "not_sent"),
                (false, _) => self.meter.error(Stage::Accepted, "no_answer"),
            }
        }
    }
}

const SECOND: u64 = 1_000_000_000;

impl Script for Crowd {
    type Timer = Timer;

    fn start(&mut self, _net: &mut Net<Timer>, _at: u64) {}

    fn woken(&mut self, net: &mut Net<Timer>, at: u64) {
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.obey(net, order, at),
                Err(std::sync::mpsc::TryRecvError::Empty) => return,
                // Whoever conducted is gone: nobody wants to know any more.
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return net.stop(),
            }
        }
    }

    fn opened(&mut self, _net: &mut Net<Timer>, client: ClientNo, _at: u64) {
        self.begin_connection(client);
    }

    fn message(&mut self, net: &mut Net<Timer>, client: ClientNo, data: Data<'_>, at: u64) {
        let received = match data {
            Data::Text(text) => Received::from_json(text.as_bytes()),
            Data::Binary(bytes) => Received::from_msgpack(bytes),
        };
        let connection = self.people[client as usize].connection;
        if matches!(received, Ok(Received::Welcome(_))) && self.people[client as usize].has_arrived {
            self.learn_from_welcome(data);
        }
        let frame = match received {
            Ok(frame) => self.only_of_the_run(frame),
            Err(problem) => {
                self.meter.error(Stage::SendToReceive, "malformed");
                if let (Some(recorder), Some(connection)) = (&mut self.recorder, connection) {
                    recorder.malformed(connection, at, &problem);
                }
                return;
            }
        };
        if let (Some(recorder), Some(connection)) = (&mut self.recorder, connection) {
            recorder.received(connection, at, &frame);
        }
        match &frame {
            Received::Message(message) => self.receive(net, client, message, at),
            Received::Accepted { reference } => self.accepted(client, *reference, at),
            Received::Status(Status::Persisted { channel, client_id, .. }) => {
                self.persisted(client, *channel, *client_id, at);
            }
            Received::Status(Status::Rejected { client_id, .. }) => self.rejected(client, *client_id),
            Received::Status(Status::Delivered { channel, seq }) => self.delivered_by_all(client, *channel, *seq, at),
            Received::Status(Status::Read { channel, seq }) => self.read_by_all(client, *channel, *seq, at),
            Received::Error(error) => self.refused(net, client, error, at),
            Received::Welcome(welcome) => self.welcomed(net, client, welcome, at),
            Received::Resumed { reference, channels } => self.resumed(net, client, *reference, channels, at),
            Received::Gap(gap) => self.missed(net, client, gap.channel, at),
            Received::Page { reference, messages, more, .. } => {
                self.page(net, client, *reference, messages, *more, at);
            }
            Received::SearchResults(results) => self.found(net, client, results, at),
            Received::Other => self.other(net, client, data, at),
        }
    }

    fn timer(&mut self, net: &mut Net<Timer>, timer: Timer, at: u64) {
        match timer {
            Timer::Dial(client) => self.dial(net, client, at),
            Timer::Welcomed(client, dialled_at) => self.give_up_dialling(net, client, dialled_at, at),
            Timer::Write => self.write_what_is_due(net, at),
            Timer::Typed(client, channel, scheduled) => self.typed(net, client, channel, scheduled, at),
            Timer::TryAgain(client) => {
                self.people[client as usize].will_try_again = false;
                self.send_pending(net, client, at);
            }
            Timer::Deliver(client) => self.say_delivered(net, client),
            Timer::Read(client) => self.say_read(net, client),
            Timer::Resume(client) => self.resume(net, client),
            Timer::Storm(span) => self.storm(net, span, at),
            Timer::Create => self.create(net, at),
            Timer::Check => self.check(net, at),
            Timer::Settle => self.settle(net, at),
            Timer::Second => {
                self.tick(at);
                // At the seconds of the run, however late this one was.
                let seconds = at.saturating_sub(self.began) / SECOND;
                net.set_timer(self.began + (seconds + 1) * SECOND, Timer::Second);
            }
        }
    }

    fn closed(&mut self, net: &mut Net<Timer>, client: ClientNo, why: Ended, at: u64) {
        self.lost(net, client, why, at);
    }
}
