//! Makes a record of what clients see while they see it.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::frame::{self, Received, Sent, Status};
use super::record::{
    Body, ChannelNo, Connection, ConnectionNo, Entry, EntryNo, Event, Head, History, Hit, Malformed, Mark,
    MembershipChange, NO_REFERENCE, Page, Record, ResumeAsked, ResumeReply, Resumed, Search, Seen, Send, SendNo,
    UserNo, Welcome,
};
use super::symbols::Symbols;
use crate::message::{Change, ChannelId, Kind, Seq};

/// Of a frame that makes no sense, and of what is wrong with it.
const MAX_PROBLEM: usize = 500;
/// Which entry was seen last under an id that ends alike.
const RECENT: usize = 1 << 12;

/// One a thread; the records of several are merged.
///
/// It is bounded: when more is seen than it has room for it lets go of everything, and gives no record in the end,
/// because one that lacks something would show promises as broken that were kept.
#[derive(Debug)]
pub struct Recorder {
    symbols: Symbols,
    record: Record,
    /// By the end of the id: a delivery to many shows each of them the same entry.
    recent: Vec<Option<EntryNo>>,
    left: usize,
    max_events: usize,
    is_full: bool,
}

/// More was seen than there was room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {max_events} events were to be recorded: check a shorter or a smaller run, or allow more")]
pub struct Full {
    pub max_events: usize,
}

impl Recorder {
    /// Room for as many events as `max_events` says; that counts what was sent and received, connections, and each entry of
    /// pages, welcomes and histories. An event takes 24 bytes, and a log entry that differs from all others some 100.
    pub fn new(max_events: usize) -> Self {
        Self {
            symbols: Symbols::default(),
            record: Record::default(),
            recent: vec![None; RECENT],
            left: max_events,
            max_events,
            is_full: false,
        }
    }

    /// Whether there was more than room for it; nothing is recorded any more then.
    pub const fn is_full(&self) -> bool {
        self.is_full
    }

    /// Errors: [`Full`].
    pub fn into_record(self) -> Result<Record, Full> {
        if self.is_full {
            return Err(Full { max_events: self.max_events });
        }
        let Record { connections, histories, hits, searches, .. } = self.record;
        Ok(Record { connections, histories, hits, searches, ..self.symbols.into_record() })
    }

    pub fn user(&mut self, name: &str) -> UserNo {
        self.symbols.user(name)
    }

    pub fn channel(&mut self, id: ChannelId) -> ChannelNo {
        self.symbols.channel(id)
    }

    /// A message, by what names it for good.
    pub fn send(&mut self, channel: ChannelId, sender: UserNo, client_id: Uuid, body: Option<&str>) -> SendNo {
        let channel = self.channel(channel);
        self.symbols.send(Send { channel, sender, client_id, body: body.map(Body::of) })
    }

    /// A connection begins, at the first byte of its handshake.
    pub fn open(&mut self, user: UserNo, at: u64) -> ConnectionNo {
        let number = ConnectionNo(self.record.connections.len() as u32);
        let connection = Connection { user, opened_at: at, closed_at: u64::MAX, events: Vec::new() };
        if self.has_room_for(1) {
            self.record.connections.push(connection);
        }
        number
    }

    pub fn close(&mut self, connection: ConnectionNo, at: u64) {
        if let Some(connection) = self.record.connections.get_mut(connection.0 as usize) {
            connection.closed_at = at;
        }
    }

    /// What a client saw. Each connection's events come in their order.
    pub fn see(&mut self, connection: ConnectionNo, at: u64, seen: Seen) {
        let size = match &seen {
            Seen::Page(page) => 1 + page.entries.len(),
            Seen::Welcome(welcome) => 1 + welcome.heads.iter().map(|head| 1 + head.messages.len()).sum::<usize>(),
            Seen::ResumeAsked(asked) => 1 + asked.channels.len(),
            Seen::ResumeReply(reply) => 1 + reply.channels.len(),
            _ => 1,
        };
        if self.has_room_for(size)
            && let Some(connection) = self.record.connections.get_mut(connection.0 as usize)
        {
            connection.events.push(Event { at, seen });
        }
    }

    /// A frame was sent; `at` is before its first byte.
    pub fn sent(&mut self, connection: ConnectionNo, at: u64, frame: &Sent<'_>) {
        let Some(user) = self.user_of(connection) else { return };
        let seen = match frame {
            Sent::Send(frame::Send { reference, channel, client_id, body }) => {
                Seen::Send { reference: *reference, send: self.send(*channel, user, *client_id, Some(body)) }
            }
            Sent::Resume { reference, channels } => {
                let channels = channels.iter().map(|(id, after)| (self.channel(*id), *after)).collect();
                Seen::ResumeAsked(Box::new(ResumeAsked { reference: *reference, channels }))
            }
            Sent::Newest { reference, channel } => {
                Seen::NewestAsked { reference: *reference, channel: self.channel(*channel) }
            }
            Sent::Other => return,
        };
        self.see(connection, at, seen);
    }

    /// A frame was received; `at` is after its last byte.
    pub fn received(&mut self, connection: ConnectionNo, at: u64, frame: &Received<'_>) {
        let Some(user) = self.user_of(connection) else { return };
        match self.seen(user, frame) {
            Ok(Some(seen)) => self.see(connection, at, seen),
            Ok(None) => {}
            Err(problem) => self.malformed(connection, at, &problem),
        }
    }

    /// A frame makes no sense.
    pub fn malformed(&mut self, connection: ConnectionNo, at: u64, problem: &str) {
        let problem = problem.chars().take(MAX_PROBLEM).collect();
        self.see(connection, at, Seen::Malformed(Box::new(Malformed { problem })));
    }

    /// A channel's log as `reader` read it to its end, when all was over. Errors: which message names no channel.
    pub fn history(
        &mut self,
        reader: UserNo,
        channel: ChannelId,
        from: Seq,
        messages: &[frame::Message<'_>],
    ) -> Result<(), String> {
        if !self.has_room_for(1 + messages.len()) {
            return Ok(());
        }
        let entries = self.entries(messages, Some(channel))?;
        let channel = self.channel(channel);
        self.record.histories.push(History { reader, channel, from, entries });
        Ok(())
    }

    /// What `reader` found by searching. Errors: it names no channel.
    pub fn hit(&mut self, reader: UserNo, hit: &frame::Message<'_>) -> Result<(), String> {
        if !self.has_room_for(1) {
            return Ok(());
        }
        let channel = self.channel(hit.channel.ok_or("a hit without channel")?);
        let sender = self.user(&hit.sender);
        let body = Body::of(&hit.body);
        self.record.hits.push(Hit { reader, channel, sender, seq: hit.seq, id: hit.id, body, at: hit.at });
        Ok(())
    }

    /// Whether a stored message was found by searching for it.
    pub fn search(&mut self, search: Search) {
        if self.has_room_for(1) {
            self.record.searches.push(search);
        }
    }

    /// The entry that a message shows; cheap if the same was seen not long before. Errors: it names no channel.
    pub(super) fn entry(&mut self, message: &frame::Message<'_>, around: Option<ChannelId>) -> Result<EntryNo, String> {
        let channel = message.channel.or(around).ok_or("a message without channel")?;
        let slot = message.id.as_u128() as usize % RECENT;
        let body = Body::of(&message.body);
        if let Some(number) = self.recent[slot]
            && let Some(entry) = self.symbols.entries.get_index(number.0 as usize)
            && entry.id == message.id
            && entry.seq == message.seq
            && entry.body == body
            && entry.at == message.at
            && entry.client_id == message.client_id
            && entry.kind == message.kind
            && self.symbols.channels.get_index(entry.channel.0 as usize) == Some(&channel)
            && self.symbols.users.get_index(entry.sender.0 as usize).is_some_and(|name| *name == message.sender)
        {
            return Ok(number);
        }
        let (channel, sender) = (self.channel(channel), self.user(&message.sender));
        let frame::Message { seq, id, client_id, kind, at, .. } = *message;
        let (number, is_new) = self.symbols.entry(Entry { channel, sender, seq, id, client_id, kind, body, at });
        self.recent[slot] = Some(number);
        if is_new && kind == Kind::System {
            let change: Change = serde_json::from_str(&message.body)
                .map_err(|error| format!("the body of the system entry {id} is no change: {error}"))?;
            let (added, members) = match change {
                Change::Created { members } | Change::Added { members } => (true, members),
                Change::Removed { members } => (false, members),
            };
            let members = members.iter().map(|name| self.user(name.as_str())).collect();
            self.symbols.change(MembershipChange { entry: number, added, members });
        }
        Ok(number)
    }

    fn entries(&mut self, messages: &[frame::Message<'_>], around: Option<ChannelId>) -> Result<Vec<EntryNo>, String> {
        messages.iter().map(|message| self.entry(message, around)).collect()
    }

    /// What a frame means to the oracle; none for what it doesn't judge.
    fn seen(&mut self, user: UserNo, frame: &Received<'_>) -> Result<Option<Seen>, String> {
        Ok(Some(match frame {
            Received::Message(message) => Seen::Message(self.entry(message, None)?),
            Received::Accepted { reference } => Seen::Accepted { reference: *reference },
            Received::Error(frame::Error { reference, code, retry, .. }) => {
                Seen::Refused { reference: reference.unwrap_or(NO_REFERENCE), code: *code, retry: *retry }
            }
            Received::Status(Status::Persisted { channel, client_id, seq }) => {
                Seen::Persisted { send: self.send(*channel, user, *client_id, None), seq: *seq }
            }
            Received::Status(Status::Rejected { channel, client_id }) => {
                Seen::Rejected { send: self.send(*channel, user, *client_id, None) }
            }
            Received::Status(Status::Delivered { channel, seq }) => {
                Seen::Watermark { mark: Mark::Delivered, channel: self.channel(*channel), seq: *seq }
            }
            Received::Status(Status::Read { channel, seq }) => {
                Seen::Watermark { mark: Mark::Read, channel: self.channel(*channel), seq: *seq }
            }
            Received::Page { reference, channel, messages, .. } => {
                let entries = self.entries(messages, *channel)?;
                Seen::Page(Box::new(Page { reference: *reference, entries }))
            }
            Received::Welcome(welcome) => {
                let heads = welcome.channels.iter().map(|head| self.head(head)).collect::<Result<_, _>>()?;
                Seen::Welcome(Box::new(Welcome { heads }))
            }
            Received::Gap(gap) => Seen::Gap { channel: self.channel(gap.channel), last_seq: gap.last_seq },
            Received::Purged(purged) => Seen::Purged { channel: self.channel(purged.channel), seq: purged.seq },
            Received::Resumed { reference, channels } => {
                Seen::ResumeReply(Box::new(self.resume_reply(*reference, channels)))
            }
            Received::SearchResults(_) | Received::Other => return Ok(None),
        }))
    }

    fn head(&mut self, head: &frame::Head<'_>) -> Result<Head, String> {
        Ok(Head {
            channel: self.channel(head.id),
            last_seq: head.last_seq,
            delivered_seq: head.delivered_seq,
            read_seq: head.read_seq,
            unread: head.unread,
            by_all: head.delivered_by_all.zip(head.read_by_all),
            messages: self.entries(&head.messages, Some(head.id))?,
        })
    }

    fn resume_reply(&mut self, reference: u64, channels: &BTreeMap<ChannelId, frame::Resumed>) -> ResumeReply {
        let resumed = channels.iter().map(|(id, reply)| Resumed {
            channel: self.channel(*id),
            complete: reply.complete,
            last_seq: reply.last_seq,
        });
        ResumeReply { reference, channels: resumed.collect() }
    }

    fn user_of(&self, connection: ConnectionNo) -> Option<UserNo> {
        self.record.connections.get(connection.0 as usize).map(|connection| connection.user)
    }

    /// Takes the room, or lets go of everything.
    fn has_room_for(&mut self, size: usize) -> bool {
        if self.is_full {
            return false;
        }
        if let Some(left) = self.left.checked_sub(size) {
            self.left = left;
            return true;
        }
        *self = Self { is_full: true, ..Self::new(self.max_events) };
        false
    }
}
