//! One simulated person: what a client keeps in mind.

use std::collections::VecDeque;

use uuid::Uuid;

use crate::message::Seq;
use crate::oracle::record::ConnectionNo;

/// Own messages of a channel whose receipts are waited for; older ones are given up.
const OWN: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Away,
    /// A connection is being made, or its welcome waited for.
    Dialling,
    /// Welcomed.
    Here,
}

pub(super) struct Person {
    /// Among all clients of the run.
    pub number: u32,
    pub standing: Standing,
    /// When the connection was begun.
    pub dialled_at: u64,
    /// When it began to try, of tries that have failed so far.
    pub tries_since: Option<u64>,
    /// Connections in a row that did not come to be.
    pub failures: u8,
    pub has_arrived: bool,
    /// In the record.
    pub connection: Option<ConnectionNo>,
    last_reference: u64,
    /// How many messages it has written.
    pub written: u32,
    pub rooms: Vec<Room>,
    /// Its messages that are not known to be stored, in the order in which they were written.
    pub pending: VecDeque<Pending>,
    pub asked: Vec<Asked>,
    pub speaks_msgpack: bool,
    pub says_delivered: bool,
    pub says_read: bool,
    /// A timer is set for what it will say next.
    pub will_say_delivered: bool,
    pub will_say_read: bool,
    pub will_try_again: bool,
}

/// A channel as its member sees it.
pub(super) struct Room {
    /// In the plan.
    pub channel: u32,
    /// Everything up to here has come.
    pub seq: Seq,
    /// What was reported.
    pub delivered: Seq,
    pub read: Seq,
    /// Entries were missed and are being asked for.
    pub is_behind: bool,
    own: VecDeque<Own>,
}

#[derive(Debug, Clone, Copy)]
struct Own {
    seq: Seq,
    scheduled: u64,
    is_delivered: bool,
}

/// A message that was written and is not known to be stored.
pub(super) struct Pending {
    pub client_id: Uuid,
    pub channel: u32,
    pub scheduled: u64,
    pub number: u32,
    pub body: Box<str>,
    /// Of the last attempt.
    pub reference: u64,
    pub attempts: u32,
    /// When it was tried last, or is to be tried again.
    pub at: u64,
    pub is_accepted: bool,
    /// It was accepted on a connection that is no more: whether it was stored was said there, if at all.
    pub is_unheard: bool,
    /// An attempt waits for its answer on this connection.
    pub is_under_way: bool,
    /// Its deliveries were added to what is expected.
    pub is_counted: bool,
}

/// A request that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub reference: u64,
    pub what: What,
    /// When it was to be asked.
    pub since: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    History,
    Search,
    Resume,
    /// What was missed in this channel.
    Missed(u32),
    /// A page for the oracle.
    Reading,
    /// A search for the oracle.
    Finding,
    Creating(u32),
    Leaving,
}

impl Person {
    pub fn new(number: u32) -> Self {
        Self {
            number,
            standing: Standing::Away,
            dialled_at: 0,
            tries_since: None,
            failures: 0,
            has_arrived: false,
            connection: None,
            last_reference: 0,
            written: 0,
            rooms: Vec::new(),
            pending: VecDeque::new(),
            asked: Vec::new(),
            speaks_msgpack: false,
            says_delivered: false,
            says_read: false,
            will_say_delivered: false,
            will_say_read: false,
            will_try_again: false,
        }
    }

    pub fn is_here(&self) -> bool {
        self.standing == Standing::Here
    }

    /// A number that no other request of this person has.
    pub fn reference(&mut self) -> u64 {
        self.last_reference += 1;
        self.last_reference
    }

    pub fn ask(&mut self, what: What, since: u64) -> u64 {
        let reference = self.reference();
        self.asked.push(Asked { reference, what, since });
        reference
    }

    pub fn answered(&mut self, reference: u64) -> Option<Asked> {
        let index = self.asked.iter().position(|asked| asked.reference == reference)?;
        Some(self.asked.swap_remove(index))
    }

    pub fn room(&self, channel: u32) -> Option<&Room> {
        let index = self.rooms.binary_search_by_key(&channel, |room| room.channel).ok()?;
        self.rooms.get(index)
    }

    pub fn room_mut(&mut self, channel: u32) -> Option<&mut Room> {
        let index = self.rooms.binary_search_by_key(&channel, |room| room.channel).ok()?;
        self.rooms.get_mut(index)
    }

    /// Gets to know a channel; false if it was known.
    pub fn enter(&mut self, channel: u32) -> bool {
        match self.rooms.binary_search_by_key(&channel, |room| room.channel) {
            Ok(_) => false,
            Err(index) => {
                self.rooms.insert(index, Room::new(channel));
                true
            }
        }
    }

    pub fn pending_by_reference(&mut self, reference: u64) -> Option<usize> {
        self.pending.iter().position(|pending| pending.reference == reference && pending.is_under_way)
    }

    pub fn pending_by_id(&mut self, client_id: Uuid) -> Option<usize> {
        self.pending.iter().position(|pending| pending.client_id == client_id)
    }
}

impl Room {
    fn new(channel: u32) -> Self {
        Self { channel, seq: 0, delivered: 0, read: 0, is_behind: false, own: VecDeque::new() }
    }

    /// An own message has its place. Returns one that is followed no longer, because there are so many: whether all
    /// members have it was said by then.
    pub fn wrote(&mut self, seq: Seq, scheduled: u64) -> Option<bool> {
        let given_up = if self.own.len() == OWN { self.own.pop_front() } else { None };
        self.own.push_back(Own { seq, scheduled, is_delivered: false });
        given_up.map(|own| own.is_delivered)
    }

    /// All members have everything up to `seq`; says when those were to be sent of which that is news.
    pub fn delivered_by_all(&mut self, seq: Seq, mut each: impl FnMut(u64)) {
        for own in self.own.iter_mut().take_while(|own| own.seq <= seq) {
            if !own.is_delivered {
                own.is_delivered = true;
                each(own.scheduled);
            }
        }
    }

    /// As above, of reading.
    pub fn read_by_all(&mut self, seq: Seq, mut each: impl FnMut(u64)) {
        while self.own.front().is_some_and(|own| own.seq <= seq) {
            if let Some(own) = self.own.pop_front() {
                each(own.scheduled);
            }
        }
    }
}
