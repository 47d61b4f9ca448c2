//! The tables of a record while it grows: each user, channel, message and entry once.

use indexmap::{IndexMap, IndexSet};
use uuid::Uuid;

use super::record::{Body, ChannelNo, Entry, EntryNo, MembershipChange, Record, Send, SendNo, UserNo};
use crate::message::ChannelId;

#[derive(Debug, Default)]
pub struct Symbols {
    pub users: IndexSet<String>,
    pub channels: IndexSet<ChannelId>,
    sends: IndexMap<(ChannelNo, UserNo, Uuid), Option<Body>>,
    pub entries: IndexSet<Entry>,
    changes: Vec<MembershipChange>,
}

/// A place in a table; 2³² entries would take more memory than any machine has.
const fn number(index: usize) -> u32 {
    index as u32
}

impl Symbols {
    pub fn user(&mut self, name: &str) -> UserNo {
        let known = self.users.get_index_of(name);
        UserNo(number(known.unwrap_or_else(|| self.users.insert_full(name.to_owned()).0)))
    }

    pub fn channel(&mut self, id: ChannelId) -> ChannelNo {
        ChannelNo(number(self.channels.insert_full(id).0))
    }

    /// `body` is kept if none was known.
    pub fn send(&mut self, send: Send) -> SendNo {
        let entry = self.sends.entry((send.channel, send.sender, send.client_id));
        let index = entry.index();
        let known = entry.or_insert(send.body);
        *known = known.or(send.body);
        SendNo(number(index))
    }

    /// The entry's place, and whether it is new.
    pub fn entry(&mut self, entry: Entry) -> (EntryNo, bool) {
        let (index, is_new) = self.entries.insert_full(entry);
        (EntryNo(number(index)), is_new)
    }

    /// What a new entry says.
    pub fn change(&mut self, change: MembershipChange) {
        self.changes.push(change);
    }

    /// A record with these tables and nothing else.
    pub fn into_record(self) -> Record {
        let send = |((channel, sender, client_id), body)| Send { channel, sender, client_id, body };
        Record {
            users: self.users.into_iter().collect(),
            channels: self.channels.into_iter().collect(),
            sends: self.sends.into_iter().map(send).collect(),
            entries: self.entries.into_iter().collect(),
            changes: self.changes,
            ..Record::default()
        }
    }
}
