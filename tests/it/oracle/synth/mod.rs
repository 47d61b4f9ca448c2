//! Correct histories to try the oracle on: a small model of a server that keeps every promise, with clients that
//! connect, resume, send several at once and repeat what they have no answer to, through restarts.

mod clients;

use std::collections::{BTreeMap, HashMap};

use super::record::{Entry, Event, History, Hit, Mark, Record, Seen};
use crate::rng::Rng;

const USERS: [&str; 4] = ["ada", "bob", "cleo", "dan"];
const CHANNELS: [(&str, &[usize]); 3] = [("all", &[0, 1, 2, 3]), ("pair", &[0, 1]), ("three", &[1, 2, 3])];
const STEPS: u64 = 600;
/// More missing than this is a `gap`.
const RESUME_LIMIT: u64 = 12;

/// What a run happened to contain, so that a test can say that the interesting cases occur.
#[derive(Debug, Default)]
pub struct Coverage {
    pub restarts: u32,
    pub gaps: u32,
    pub retries: u32,
    pub deduplicated: u32,
    pub ahead_of_store: u32,
    pub refused: u32,
    pub deferred: u32,
}

#[derive(Default)]
struct Channel {
    /// Accepted and not yet given a seq: (sender, `client_id`, body).
    queue: Vec<(usize, String, String)>,
    /// What has a seq, for ever.
    log: Vec<Entry>,
    /// How much of the log this run of the server has broadcast, and how much is stored.
    broadcast: u64,
    stored: u64,
}

#[derive(Default)]
struct User {
    /// The open connection's place in the record.
    connection: Option<usize>,
    next_ref: u64,
    contiguous: BTreeMap<&'static str, u64>,
    read: BTreeMap<&'static str, u64>,
    /// Sends without an answer, in order.
    unanswered: Vec<(&'static str, String, String)>,
}

pub struct Synth {
    rng: Rng,
    clock: u64,
    ids: u64,
    channels: BTreeMap<&'static str, Channel>,
    users: Vec<User>,
    known: HashMap<String, ()>,
    record: Record,
    coverage: Coverage,
}

/// A correct record; the same for the same seed.
pub fn record(seed: u64) -> (Record, Coverage) {
    let mut synth = Synth {
        rng: Rng::new(seed),
        clock: 0,
        ids: 0,
        channels: CHANNELS.iter().map(|(name, _)| (*name, Channel::default())).collect(),
        users: USERS.iter().map(|_| User::default()).collect(),
        known: HashMap::new(),
        record: Record::default(),
        coverage: Coverage::default(),
    };
    for _ in 0..STEPS {
        synth.step();
    }
    synth.settle();
    (synth.record, synth.coverage)
}

impl Synth {
    fn step(&mut self) {
        let user = usize::try_from(self.rng.below(USERS.len() as u64)).unwrap();
        let channel = self.rng.pick(&CHANNELS).0;
        match self.rng.below(40) {
            0 => self.crash(),
            1 => self.disconnect(user),
            2..=5 if self.users[user].connection.is_none() => self.connect(user),
            6..=19 => self.send(user),
            20..=31 => self.work(channel),
            32..=35 => self.store(channel),
            36..=37 => self.look(user),
            _ => self.watermark(channel),
        }
    }

    fn tell(&mut self, user: usize, seen: Seen) {
        self.clock += 1;
        let Some(connection) = self.users[user].connection else { return };
        let connection = &mut self.record.connections[connection];
        connection.events.push(Event { at: self.clock, seen });
        connection.closed_at = self.clock;
    }

    fn reference(&mut self, user: usize) -> u64 {
        self.users[user].next_ref += 1;
        self.users[user].next_ref
    }

    fn disconnect(&mut self, user: usize) {
        self.users[user].connection = None;
    }

    fn crash(&mut self) {
        self.coverage.restarts += 1;
        for user in 0..USERS.len() {
            self.disconnect(user);
        }
        for channel in self.channels.values_mut() {
            channel.broadcast = channel.stored;
        }
    }

    /// The next entry is given its seq and goes to everyone who is there.
    fn work(&mut self, name: &'static str) {
        let channel = self.channels.get_mut(name).unwrap();
        if channel.broadcast == channel.log.len() as u64 {
            if channel.queue.is_empty() {
                return;
            }
            let (sender, client_id, body) = channel.queue.remove(0);
            let seq = channel.broadcast + 1;
            channel.log.push(Entry {
                channel: name.into(),
                seq,
                id: format!("{name}-{seq}"),
                sender: USERS[sender].into(),
                client_id: Some(client_id),
                kind: "text".into(),
                body,
                at: format!("at {}", self.clock),
            });
        }
        channel.broadcast += 1;
        let seq = channel.broadcast;
        let entry = channel.log[usize::try_from(seq).unwrap() - 1].clone();
        for user in members_of(name) {
            if self.users[*user].connection.is_some() {
                self.tell(*user, Seen::Message(entry.clone()));
                // A user's first connection is to an empty server, so what it sees has no hole before it.
                let contiguous = self.users[*user].contiguous.entry(name).or_insert(0);
                *contiguous = if *contiguous + 1 >= seq { seq.max(*contiguous) } else { *contiguous };
            }
        }
    }

    fn store(&mut self, name: &'static str) {
        let channel = self.channels.get_mut(name).unwrap();
        let new = slice(channel, channel.stored, channel.broadcast);
        channel.stored = channel.broadcast;
        for entry in new {
            let sender = USERS.iter().position(|user| *user == entry.sender).unwrap();
            let client_id = entry.client_id.clone().unwrap();
            self.tell(sender, Seen::Persisted { channel: name.into(), client_id, seq: entry.seq });
        }
    }

    fn watermark(&mut self, name: &'static str) {
        let seq = self.channels[name].stored;
        for user in members_of(name) {
            self.users[*user].read.insert(name, seq);
            for mark in [Mark::Delivered, Mark::Read] {
                self.tell(*user, Seen::Watermark { mark, channel: name.into(), seq });
            }
        }
    }

    fn settle(&mut self) {
        loop {
            for user in 0..USERS.len() {
                if self.users[user].connection.is_none() {
                    self.connect(user);
                }
            }
            if self.users.iter().all(|user| user.connection.is_some() && user.unanswered.is_empty()) {
                break;
            }
            (0..USERS.len()).for_each(|user| {
                if !self.users[user].unanswered.is_empty() {
                    self.disconnect(user);
                }
            });
        }
        for (name, members) in CHANNELS {
            while !self.channels[name].queue.is_empty()
                || self.channels[name].broadcast < self.channels[name].log.len() as u64
            {
                self.work(name);
            }
            self.store(name);
            for user in members {
                let entries = self.channels[name].log.clone();
                self.record.hits.extend(entries.first().map(|entry| Hit {
                    reader: USERS[*user].into(),
                    entry: Entry { client_id: None, ..entry.clone() },
                }));
                let (reader, channel) = (USERS[*user].into(), name.into());
                self.record.histories.push(History { reader, channel, from: 1, entries });
            }
        }
    }
}

fn channels_of(user: usize) -> impl Iterator<Item = &'static str> {
    CHANNELS.iter().filter(move |(_, members)| members.contains(&user)).map(|(name, _)| *name)
}

fn members_of(name: &str) -> &'static [usize] {
    CHANNELS.iter().find(|(known, _)| *known == name).unwrap().1
}

/// The entries after `after` up to and with `to`.
fn slice(channel: &Channel, after: u64, to: u64) -> Vec<Entry> {
    channel.log[usize::try_from(after).unwrap()..usize::try_from(to).unwrap()].to_vec()
}
