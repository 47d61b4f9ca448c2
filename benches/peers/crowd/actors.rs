use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use aula::ops::simulate::engine::{Data, Ended, Net, Script};
use hdrhistogram::Histogram;

use super::witness::Witness;
use super::{Command, Load, Outcome};
use crate::cast::Cast;
use crate::dialect::{self, Heard};
use crate::peer::Peer;

/// Connections on their way at the same time; a listener's queue holds more.
const CONNECTING: u32 = 128;
/// Between the order to send and the first message.
const RUN_UP: u64 = 50_000_000;
/// For what is still on its way after the last message, in nanoseconds.
const DRAIN: u64 = 15_000_000_000;
/// After the last expected message: what comes still was delivered twice.
const SURPLUS: u64 = 200_000_000;
/// That is told apart, in microseconds.
const LONGEST_LATENCY: u64 = 60_000_000;
/// Faults that are told; the rest is counted.
const FAULTS_TOLD: usize = 5;

pub struct Actors {
    peer: Peer,
    target: SocketAddr,
    cast: Arc<Cast>,
    commands: Receiver<Command>,
    clients: Vec<Client>,
    connecting: Option<Connecting>,
    sending: Option<Sending>,
    /// Loads so far: a timer of an earlier one is none of this one.
    loads: u64,
    /// What earlier loads did not wait for any longer; it may come still.
    missing: u64,
    faults: Vec<String>,
    unheard_faults: u64,
    /// A frame on its way.
    text: String,
    /// Somebody wants to know all that is seen.
    witness: Option<Witness>,
}

#[derive(Default, Clone, Copy)]
struct Client {
    is_joined: bool,
    /// Of the last message in its room, where the server counts them.
    seq: Option<u64>,
}

struct Connecting {
    next: u32,
    clients: Range<u32>,
    joined: u32,
    began: u64,
    answer: SyncSender<Result<Duration, String>>,
}

struct Sending {
    load: Load,
    began: u64,
    total: u64,
    outcome: Outcome,
    answer: SyncSender<Result<Outcome, String>>,
}

pub enum Timer {
    /// The next message of the load with this number is due.
    Next(u64),
    /// No more is waited for.
    End(u64),
}

type ActorsNet = Net<Timer>;

impl Actors {
    pub fn new(peer: Peer, target: SocketAddr, cast: Arc<Cast>, commands: Receiver<Command>) -> Self {
        let clients = vec![Client::default(); cast.people.len()];
        Self {
            peer,
            target,
            cast,
            commands,
            clients,
            connecting: None,
            sending: None,
            loads: 0,
            missing: 0,
            faults: Vec::new(),
            unheard_faults: 0,
            text: String::new(),
            witness: None,
        }
    }

    fn heard(&mut self, net: &mut ActorsNet, client: u32, heard: Heard, frame: &str, at: u64) {
        match heard {
            Heard::Nothing => {}
            Heard::Introduce => self.say(net, client, &dialect::introduction(self.peer, &self.cast, client)),
            Heard::Answer(text) => self.say(net, client, text),
            Heard::Joined(seq) => self.joined(net, client, seq, at),
            Heard::Message(due, seq) => self.received(net, client, due, seq, at),
            Heard::Fault => self.fault(format!("client {client} was sent {frame}")),
        }
    }

    fn say(&mut self, net: &mut ActorsNet, client: u32, text: &str) {
        if net.send(client, Data::Text(text)).is_err() {
            self.fault(format!("client {client} can't send"));
        }
    }

    fn joined(&mut self, net: &mut ActorsNet, client: u32, seq: Option<u64>, at: u64) {
        self.clients[client as usize] = Client { is_joined: true, seq };
        let Some(connecting) = &mut self.connecting else { return };
        connecting.joined += 1;
        if connecting.joined < connecting.clients.len() as u32 {
            return self.connect_next(net);
        }
        if let Some(Connecting { began, answer, .. }) = self.connecting.take() {
            let took = Duration::from_nanos(at - began);
            reply(&answer, self.take_faults().map(|()| took));
        }
    }

    fn connect_next(&mut self, net: &mut ActorsNet) {
        let Some(connecting) = &mut self.connecting else { return };
        if connecting.clients.contains(&connecting.next) {
            let client = connecting.next;
            connecting.next += 1;
            if let Some(witness) = &mut self.witness {
                witness.open(client);
            }
            net.connect(client, self.target, dialect::request(self.peer, self.target, &self.cast, client));
        }
    }

    fn received(&mut self, net: &mut ActorsNet, client: u32, due: u64, seq: Option<u64>, at: u64) {
        if let Some(seq) = seq {
            let last = self.clients[client as usize].seq.replace(seq);
            // Each message once and in the order of the log (promises P1, P3, P5).
            if last.is_none_or(|last| seq != last + 1) {
                self.fault(format!("client {client} got the message with seq {seq} after {last:?}"));
            }
        }
        let Some(sending) = self.sending.as_mut().filter(|sending| due >= sending.began) else {
            match self.missing.checked_sub(1) {
                Some(missing) => self.missing = missing,
                None => self.fault(format!("client {client} got a message that nobody waits for")),
            }
            return;
        };
        let micros = at.saturating_sub(due) / 1000;
        sending.outcome.latency.saturating_record(micros.max(1));
        sending.outcome.received += 1;
        if sending.outcome.received == sending.outcome.expected && sending.outcome.sent == sending.total {
            net.set_timer(at + SURPLUS, Timer::End(self.loads));
        }
    }

    fn send_due(&mut self, net: &mut ActorsNet, at: u64) {
        let Some(mut sending) = self.sending.take() else { return };
        let interval = 1_000_000_000.0 / sending.load.rate as f64;
        let due = |number: u64| sending.began + (number as f64 * interval) as u64;
        let mut number = sending.outcome.sent;
        let mut text = std::mem::take(&mut self.text);
        while number < sending.total && due(number) <= at {
            let sender = sending.load.senders[number as usize % sending.load.senders.len()];
            let room = self.cast.room_of(sender);
            let reference = self.witness.as_mut().map(Witness::reference);
            dialect::say(self.peer, room, due(number), reference, &mut text);
            sending.outcome.expected += room.members.len() as u64;
            if let Some(witness) = &mut self.witness {
                witness.says(sender, &text);
            }
            self.say(net, sender, &text);
            number += 1;
        }
        sending.outcome.sent = number;
        self.text = text;
        if number < sending.total {
            net.set_timer(due(number), Timer::Next(self.loads));
        } else {
            net.set_timer(at + DRAIN, Timer::End(self.loads));
        }
        self.sending = Some(sending);
    }

    fn ended(&mut self) {
        if let Some(Sending { outcome, answer, .. }) = self.sending.take() {
            if outcome.received > outcome.expected {
                self.fault(format!("{} were received of {}", outcome.received, outcome.expected));
            }
            self.missing += outcome.expected.saturating_sub(outcome.received);
            reply(&answer, self.take_faults().map(|()| outcome));
        }
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_TOLD {
            self.faults.push(fault);
        } else {
            self.unheard_faults += 1;
        }
    }

    fn take_faults(&mut self) -> Result<(), String> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let more = std::mem::take(&mut self.unheard_faults);
        let faults = std::mem::take(&mut self.faults).join("\n");
        Err(format!("{}: {faults}\nand {more} more", self.peer.name()))
    }
}

fn reply<T>(to: &SyncSender<T>, answer: T) {
    // Who asked may have been interrupted.
    let _ = to.try_send(answer);
}

impl Script for Actors {
    type Timer = Timer;

    fn start(&mut self, _net: &mut ActorsNet, _at: u64) {}

    fn opened(&mut self, net: &mut ActorsNet, client: u32, at: u64) {
        self.heard(net, client, dialect::opened(self.peer), "", at);
    }

    fn message(&mut self, net: &mut ActorsNet, client: u32, data: Data<'_>, at: u64) {
        match data {
            Data::Text(text) => {
                if let Some(witness) = &mut self.witness {
                    witness.hears(client, text, at);
                }
                for part in dialect::parts(self.peer, text) {
                    self.heard(net, client, dialect::hear(self.peer, part), part, at);
                }
            }
            Data::Binary(_) => self.fault(format!("client {client} was sent a binary frame")),
        }
    }

    fn timer(&mut self, net: &mut ActorsNet, timer: Timer, at: u64) {
        match timer {
            Timer::Next(load) if load == self.loads => self.send_due(net, at),
            Timer::End(load) if load == self.loads => self.ended(),
            Timer::Next(_) | Timer::End(_) => {}
        }
    }

    fn closed(&mut self, _net: &mut ActorsNet, client: u32, why: Ended, _at: u64) {
        self.clients[client as usize].is_joined = false;
        self.fault(format!("client {client}: {why}"));
        // It would be waited for in vain.
        if let Some(Connecting { answer, .. }) = self.connecting.take() {
            reply(&answer, self.take_faults().map(|()| Duration::ZERO));
        }
    }

    fn woken(&mut self, net: &mut ActorsNet, at: u64) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Connect { clients, answer } => {
                    let next = clients.start;
                    self.connecting = Some(Connecting { next, clients, joined: 0, began: at, answer });
                    for _ in 0..CONNECTING {
                        self.connect_next(net);
                    }
                }
                Command::Send { load, answer } => {
                    let latency = Histogram::new_with_bounds(1, LONGEST_LATENCY, 3).unwrap();
                    let outcome = Outcome { sent: 0, received: 0, expected: 0, latency };
                    let total = (load.rate as f64 * load.length.as_secs_f64()) as u64;
                    let began = at + RUN_UP;
                    self.loads += 1;
                    self.sending = Some(Sending { load, began, total, outcome, answer });
                    net.set_timer(began, Timer::Next(self.loads));
                }
                Command::Check { answer } => reply(&answer, self.take_faults()),
                Command::Witness => {
                    let mut witness = Witness::new(&self.cast);
                    let here = self.clients.iter().enumerate().filter(|(_, client)| client.is_joined);
                    here.for_each(|(client, _)| witness.open(client as u32));
                    self.witness = Some(witness);
                }
                Command::Witnessed { answer } => {
                    let record = self.witness.take().map(Witness::into_record);
                    reply(&answer, self.take_faults().map(|()| record.unwrap_or_default()));
                }
                Command::Stop => net.stop(),
            }
        }
    }
}
