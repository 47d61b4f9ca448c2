//! Joins the records of several threads and processes.

use super::record::{
    ChannelNo, Connection, Entry, EntryNo, Event, Head, History, Hit, MembershipChange, Page, Record, ResumeAsked,
    ResumeReply, Resumed, Search, Seen, Send, SendNo, UserNo, Welcome,
};
use super::symbols::Symbols;

impl Record {
    /// One record of all that is in `parts`, in their order.
    pub fn merge(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut symbols = Symbols::default();
        let (mut connections, mut histories) = (Vec::new(), Vec::new());
        let (mut hits, mut searches) = (Vec::new(), Vec::new());
        for part in parts {
            let (places, rest) = Places::of(part, &mut symbols);
            connections.extend(rest.connections.into_iter().map(|connection| places.connection(connection)));
            histories.extend(rest.histories.into_iter().map(|history| places.history(history)));
            hits.extend(rest.hits.into_iter().map(|hit| places.hit(hit)));
            searches.extend(rest.searches.into_iter().map(|search| places.search(search)));
        }
        Self { connections, histories, hits, searches, ..symbols.into_record() }
    }
}

/// Where the symbols of a part are in the whole.
struct Places {
    users: Vec<UserNo>,
    channels: Vec<ChannelNo>,
    sends: Vec<SendNo>,
    entries: Vec<EntryNo>,
}

impl Places {
    /// Also gives back the part, without its tables.
    fn of(part: Record, symbols: &mut Symbols) -> (Self, Record) {
        let Record { users, channels, sends, entries, changes, .. } = &part;
        let mut places = Self {
            users: users.iter().map(|name| symbols.user(name)).collect(),
            channels: channels.iter().map(|id| symbols.channel(*id)).collect(),
            sends: Vec::with_capacity(sends.len()),
            entries: Vec::with_capacity(entries.len()),
        };
        for send in sends {
            let (channel, sender) = (places.channel(send.channel), places.user(send.sender));
            places.sends.push(symbols.send(Send { channel, sender, ..*send }));
        }
        let mut is_new = Vec::with_capacity(entries.len());
        for entry in entries {
            let (channel, sender) = (places.channel(entry.channel), places.user(entry.sender));
            let (number, new) = symbols.entry(Entry { channel, sender, ..*entry });
            places.entries.push(number);
            is_new.push(new);
        }
        for change in changes.iter().filter(|change| is_new[change.entry.0 as usize]) {
            let members = change.members.iter().map(|user| places.user(*user)).collect();
            symbols.change(MembershipChange { entry: places.entry(change.entry), added: change.added, members });
        }
        let Record { connections, histories, hits, searches, .. } = part;
        (places, Record { connections, histories, hits, searches, ..Record::default() })
    }

    fn user(&self, user: UserNo) -> UserNo {
        self.users[user.0 as usize]
    }

    fn channel(&self, channel: ChannelNo) -> ChannelNo {
        self.channels[channel.0 as usize]
    }

    fn send(&self, send: SendNo) -> SendNo {
        self.sends[send.0 as usize]
    }

    fn entry(&self, entry: EntryNo) -> EntryNo {
        self.entries[entry.0 as usize]
    }

    fn entries(&self, entries: Vec<EntryNo>) -> Vec<EntryNo> {
        entries.into_iter().map(|entry| self.entry(entry)).collect()
    }

    fn connection(&self, connection: Connection) -> Connection {
        let Connection { user, opened_at, closed_at, mut events } = connection;
        for Event { seen, .. } in &mut events {
            self.rename(seen);
        }
        Connection { user: self.user(user), opened_at, closed_at, events }
    }

    fn rename(&self, seen: &mut Seen) {
        match seen {
            Seen::Send { send, .. } | Seen::Persisted { send, .. } | Seen::Rejected { send } => {
                *send = self.send(*send);
            }
            Seen::Message(entry) => *entry = self.entry(*entry),
            Seen::Watermark { channel, .. }
            | Seen::NewestAsked { channel, .. }
            | Seen::Gap { channel, .. }
            | Seen::Purged { channel, .. } => {
                *channel = self.channel(*channel);
            }
            Seen::Page(page) => {
                let Page { entries, .. } = &mut **page;
                *entries = self.entries(std::mem::take(entries));
            }
            Seen::Welcome(welcome) => {
                let Welcome { heads } = &mut **welcome;
                for Head { channel, messages, .. } in heads {
                    *channel = self.channel(*channel);
                    *messages = self.entries(std::mem::take(messages));
                }
            }
            Seen::ResumeAsked(asked) => {
                let ResumeAsked { channels, .. } = &mut **asked;
                channels.iter_mut().for_each(|(channel, _)| *channel = self.channel(*channel));
            }
            Seen::ResumeReply(reply) => {
                let ResumeReply { channels, .. } = &mut **reply;
                for Resumed { channel, .. } in channels {
                    *channel = self.channel(*channel);
                }
            }
            Seen::Accepted { .. } | Seen::Refused { .. } | Seen::Malformed(_) => {}
        }
    }

    fn history(&self, history: History) -> History {
        let History { reader, channel, from, entries } = history;
        let entries = self.entries(entries);
        History { reader: self.user(reader), channel: self.channel(channel), from, entries }
    }

    fn hit(&self, hit: Hit) -> Hit {
        let (reader, sender) = (self.user(hit.reader), self.user(hit.sender));
        Hit { reader, sender, channel: self.channel(hit.channel), ..hit }
    }

    fn search(&self, search: Search) -> Search {
        Search { reader: self.user(search.reader), send: self.send(search.send), ..search }
    }
}
