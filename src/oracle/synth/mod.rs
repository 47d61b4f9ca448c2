//! Correct histories to try the oracle on: a small model of a server that keeps every promise, with clients that
//! connect, resume, send several at once and repeat what they have no answer to, through restarts; and one of them is
//! removed from a channel and added again.

mod clients;
mod end;

use std::collections::{BTreeMap, HashMap, HashSet};

use fastrand::Rng;
use uuid::Uuid;

use super::frame;
use super::record::{ConnectionNo, EntryNo, Mark, Record, Seen};
use super::recorder::Recorder;
use crate::message::{Change, ChannelId, Kind, Millis, Seq, Username};

const USERS: [&str; 4] = ["ada", "bob", "cleo", "dan"];
const CHANNELS: [(&str, &[usize]); 3] = [("all", &[0, 1, 2, 3]), ("pair", &[0, 1]), ("three", &[1, 2, 3])];
/// Who is removed from where, and added again.
const COMES_AND_GOES: (&str, usize) = ("three", 3);
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
    pub removals: u32,
    pub rejected: u32,
}

impl Coverage {
    pub fn counts(&self) -> [u32; 9] {
        let Self { restarts, gaps, retries, deduplicated, ahead_of_store, .. } = *self;
        let Self { refused, deferred, removals, rejected, .. } = *self;
        [restarts, gaps, retries, deduplicated, ahead_of_store, refused, deferred, removals, rejected]
    }

    pub fn add(&mut self, other: &Self) {
        self.restarts += other.restarts;
        self.gaps += other.gaps;
        self.retries += other.retries;
        self.deduplicated += other.deduplicated;
        self.ahead_of_store += other.ahead_of_store;
        self.refused += other.refused;
        self.deferred += other.deferred;
        self.removals += other.removals;
        self.rejected += other.rejected;
    }
}

/// What is accepted and has no seq yet.
enum Task {
    Send { sender: usize, client_id: Uuid, body: String },
    Change { adds: bool, user: usize },
}

/// An entry, and the members from it on.
struct Logged {
    entry: EntryNo,
    sender: usize,
    client_id: Uuid,
    members: Vec<usize>,
}

struct Channel {
    id: ChannelId,
    first_members: &'static [usize],
    queue: Vec<Task>,
    /// What has a seq, for ever.
    log: Vec<Logged>,
    /// How much of the log this run of the server has broadcast, and how much is stored.
    broadcast: Seq,
    stored: Seq,
}

impl Channel {
    /// Who is in it after the entry `seq`.
    fn members_at(&self, seq: Seq) -> &[usize] {
        match usize::try_from(seq).unwrap() {
            0 => self.first_members,
            seq => &self.log[seq - 1].members,
        }
    }

    fn has(&self, user: usize) -> bool {
        self.members_at(self.broadcast).contains(&user)
    }

    /// The entries after `after` up to and with `to`.
    fn slice(&self, after: Seq, to: Seq) -> Vec<EntryNo> {
        let range = usize::try_from(after).unwrap()..usize::try_from(to).unwrap();
        self.log[range].iter().map(|logged| logged.entry).collect()
    }
}

#[derive(Default)]
struct User {
    connection: Option<ConnectionNo>,
    next_ref: u64,
    contiguous: BTreeMap<&'static str, Seq>,
    read: BTreeMap<&'static str, Seq>,
    /// Sends without an answer, in order.
    unanswered: Vec<(&'static str, Uuid, String)>,
}

pub struct Synth {
    rng: Rng,
    clock: u64,
    ids: u128,
    channels: BTreeMap<&'static str, Channel>,
    users: Vec<User>,
    known: HashSet<Uuid>,
    /// Where what is stored stands.
    stored: HashMap<Uuid, Seq>,
    rejected: HashSet<Uuid>,
    recorder: Recorder,
    coverage: Coverage,
}

/// A correct record; the same for the same seed.
pub fn record(seed: u64) -> (Record, Coverage) {
    long_record(seed, STEPS)
}

/// One of so many steps.
pub fn long_record(seed: u64, steps: u64) -> (Record, Coverage) {
    let channels = CHANNELS.iter().zip(1..).map(|((name, first_members), number)| {
        let id = ChannelId(Uuid::from_u128(number));
        (*name, Channel { id, first_members, queue: vec![], log: vec![], broadcast: 0, stored: 0 })
    });
    let mut synth = Synth {
        rng: Rng::with_seed(seed),
        clock: 0,
        ids: 1 << 32,
        channels: channels.collect(),
        users: USERS.iter().map(|_| User::default()).collect(),
        known: HashSet::new(),
        stored: HashMap::new(),
        rejected: HashSet::new(),
        recorder: Recorder::new(usize::MAX),
        coverage: Coverage::default(),
    };
    for _ in 0..steps {
        synth.step();
    }
    synth.settle();
    synth.read_all()
}

impl Synth {
    fn step(&mut self) {
        let user = self.rng.usize(0..USERS.len());
        let channel = CHANNELS[self.rng.usize(0..CHANNELS.len())].0;
        match self.rng.u64(0..41) {
            0 => self.crash(),
            1 => self.disconnect(user),
            2..=5 if self.users[user].connection.is_none() => self.connect(user),
            6..=19 => self.send(user),
            20..=31 => self.work(channel),
            32..=35 => self.store(channel),
            36..=37 => self.look(user),
            38 => self.change_members(),
            _ => self.watermark(channel),
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.rng.u64(0..n) == 0
    }

    fn new_id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn tell(&mut self, user: usize, seen: Seen) {
        self.clock += 1;
        if let Some(connection) = self.users[user].connection {
            self.recorder.see(connection, self.clock, seen);
            self.recorder.close(connection, self.clock);
        }
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

    fn change_members(&mut self) {
        let (name, user) = COMES_AND_GOES;
        let channel = self.channels.get_mut(name).unwrap();
        let is_under_way = channel.queue.iter().any(|task| matches!(task, Task::Change { .. }));
        if !is_under_way && channel.broadcast == channel.log.len() as u64 {
            let adds = !channel.has(user);
            channel.queue.push(Task::Change { adds, user });
        }
    }

    /// The next entry is given its seq and goes to everyone who is there.
    fn work(&mut self, name: &'static str) {
        if self.channels[name].broadcast == self.channels[name].log.len() as u64 && !self.append(name) {
            return;
        }
        let channel = self.channels.get_mut(name).unwrap();
        let before = channel.members_at(channel.broadcast).to_vec();
        channel.broadcast += 1;
        let (seq, entry) = (channel.broadcast, channel.slice(channel.broadcast - 1, channel.broadcast)[0]);
        let after = channel.members_at(seq).to_vec();
        for user in (0..USERS.len()).filter(|user| before.contains(user) || after.contains(user)) {
            if self.users[user].connection.is_some() {
                self.tell(user, Seen::Message(entry));
                // A user's first connection is to an empty server, so what it sees has no hole before it.
                let contiguous = self.users[user].contiguous.entry(name).or_insert(0);
                *contiguous = if *contiguous + 1 >= seq { seq.max(*contiguous) } else { *contiguous };
            }
        }
    }

    /// Takes the next task; false if no entry comes of it.
    fn append(&mut self, name: &'static str) -> bool {
        let (id, task_id, at) = (self.new_id(), self.new_id(), Millis(self.clock as i64));
        let channel = self.channels.get_mut(name).unwrap();
        let mut members = channel.members_at(channel.broadcast).to_vec();
        let (sender, client_id, kind, body) = match channel.queue.first() {
            None => return false,
            Some(Task::Send { sender, client_id, .. }) if !members.contains(sender) => {
                let (sender, client_id, channel_id) = (*sender, *client_id, channel.id);
                // It is told: nobody could know otherwise why the message is missing.
                if self.users[sender].connection.is_some() {
                    channel.queue.remove(0);
                    self.coverage.rejected += 1;
                    self.rejected.insert(client_id);
                    let user = self.recorder.user(USERS[sender]);
                    let send = self.recorder.send(channel_id, user, client_id, None);
                    self.tell(sender, Seen::Rejected { send });
                }
                return false;
            }
            Some(_) => match channel.queue.remove(0) {
                Task::Send { sender, client_id, body } => (sender, client_id, Kind::Text, body),
                Task::Change { adds, user } => {
                    let changed = vec![Username::new(USERS[user]).unwrap()];
                    members.retain(|member| *member != user);
                    let change = if adds {
                        members.push(user);
                        Change::Added { members: changed }
                    } else {
                        self.coverage.removals += 1;
                        Change::Removed { members: changed }
                    };
                    (1, task_id, Kind::System, change.to_body())
                }
            },
        };
        let message = frame::Message {
            channel: Some(channel.id),
            seq: channel.broadcast + 1,
            id,
            sender: USERS[sender].into(),
            client_id: Some(client_id),
            kind,
            body: body.into(),
            at,
        };
        let entry = self.recorder.entry(&message, None).unwrap();
        channel.log.push(Logged { entry, sender, client_id, members });
        true
    }

    fn store(&mut self, name: &'static str) {
        let channel = self.channels.get_mut(name).unwrap();
        let (stored, id) = (channel.stored, channel.id);
        channel.stored = channel.broadcast;
        for seq in stored + 1..=self.channels[name].broadcast {
            let Logged { sender, client_id, .. } = self.channels[name].log[usize::try_from(seq).unwrap() - 1];
            // The sender of a change is not told so.
            if self.known.contains(&client_id) {
                self.stored.insert(client_id, seq);
                let user = self.recorder.user(USERS[sender]);
                let send = self.recorder.send(id, user, client_id, None);
                self.tell(sender, Seen::Persisted { send, seq });
            }
        }
    }

    fn watermark(&mut self, name: &'static str) {
        let (seq, channel) = (self.channels[name].stored, self.recorder.channel(self.channels[name].id));
        for user in self.channels[name].members_at(self.channels[name].broadcast).to_vec() {
            self.users[user].read.insert(name, seq);
            for mark in [Mark::Delivered, Mark::Read] {
                self.tell(user, Seen::Watermark { mark, channel, seq });
            }
        }
    }
}

/// The channels that a user is in, or was at first.
fn channels_of(user: usize) -> impl Iterator<Item = &'static str> {
    CHANNELS.iter().filter(move |(_, members)| members.contains(&user)).map(|(name, _)| *name)
}
