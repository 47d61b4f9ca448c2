//! What the oracle judges: everything each client saw, in the order it saw it, and the channels' final histories.
//!
//! Made for tens of millions of deliveries: people, channels, messages and log entries are kept once, in tables, and
//! named by their place there; an event takes 24 bytes, and of a body a hash is left.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::message::{ChannelId, Kind, Millis, Seq};
use crate::wire::ErrorCode;

/// A user, by its place in [`Record::users`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UserNo(pub u32);

/// A channel, by its place in [`Record::channels`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelNo(pub u32);

/// A message as its sender names it, by its place in [`Record::sends`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SendNo(pub u32);

/// An entry of a log as somebody saw it, by its place in [`Record::entries`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryNo(pub u32);

/// A connection, by its place in [`Record::connections`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionNo(pub u32);

/// The reference of an error that answers no request (a broken frame); no request has it.
pub const NO_REFERENCE: u64 = u64::MAX;

/// What is left of a body: equal for equal texts, on every machine and in every version (XXH3, 64 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Body(pub u64);

impl Body {
    pub fn of(text: &str) -> Self {
        Self(twox_hash::XxHash3_64::oneshot(text.as_bytes()))
    }
}

/// A whole run. Times are nanoseconds of CLOCK_MONOTONIC, which is one for all processes of a machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    pub users: Vec<String>,
    pub channels: Vec<ChannelId>,
    pub sends: Vec<Send>,
    /// Each differs from all others in something.
    pub entries: Vec<Entry>,
    /// What entries of [`Kind::System`] say about who is in the channel.
    pub changes: Vec<MembershipChange>,
    pub connections: Vec<Connection>,
    /// Channels' histories read to their end after everything settled, each by one or more members.
    pub histories: Vec<History>,
    /// What was found by searching.
    pub hits: Vec<Hit>,
    /// Searches for stored messages, after everything settled.
    pub searches: Vec<Search>,
}

/// What names a message for good, and its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Send {
    pub channel: ChannelNo,
    pub sender: UserNo,
    pub client_id: Uuid,
    /// None if it was only heard of, and nobody was seen to send it.
    pub body: Option<Body>,
}

/// One entry of a channel's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    pub channel: ChannelNo,
    pub sender: UserNo,
    pub seq: Seq,
    pub id: Uuid,
    pub client_id: Option<Uuid>,
    pub kind: Kind,
    pub body: Body,
    pub at: Millis,
}

/// Who was in a channel from an entry on, or no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipChange {
    pub entry: EntryNo,
    /// Removed if false.
    pub added: bool,
    pub members: Vec<UserNo>,
}

/// From the TCP handshake to the end of the socket.
#[derive(Debug, Clone, PartialEq)]
pub struct Connection {
    pub user: UserNo,
    pub opened_at: u64,
    /// [`u64::MAX`] while it is open.
    pub closed_at: u64,
    /// In the order in which they were sent and received.
    pub events: Vec<Event>,
}

/// A channel's log as one member reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    pub reader: UserNo,
    pub channel: ChannelNo,
    /// The first seq that this reader may see: 1, unless it joined later.
    pub from: Seq,
    pub entries: Vec<EntryNo>,
}

/// A search result; it has no `client_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    pub reader: UserNo,
    pub channel: ChannelNo,
    pub sender: UserNo,
    pub seq: Seq,
    pub id: Uuid,
    pub body: Body,
    pub at: Millis,
}

/// A stored message was looked for by a word that no other one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    pub reader: UserNo,
    pub send: SendNo,
    /// How long it was looked for again and again, in nanoseconds.
    pub waited: u64,
    pub is_found: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// For what was sent: before its first byte; for what was received: after its last.
    pub at: u64,
    pub seen: Seen,
}

// A run has tens of millions of them.
const _: () = assert!(size_of::<Event>() <= 24);

/// What a client sent or received; what is rare and large is behind a pointer.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// An attempt at a send.
    Send {
        reference: u64,
        send: SendNo,
    },
    /// The reply to a send.
    Accepted {
        reference: u64,
    },
    /// An `error` reply to anything; without `retry` it is final.
    Refused {
        reference: u64,
        code: ErrorCode,
        retry: bool,
    },
    Persisted {
        send: SendNo,
        seq: Seq,
    },
    Rejected {
        send: SendNo,
    },
    /// Of all members together.
    Watermark {
        mark: Mark,
        channel: ChannelNo,
        seq: Seq,
    },
    /// Live, or as part of a resume.
    Message(EntryNo),
    /// A request for the newest page of `history`.
    NewestAsked {
        reference: u64,
        channel: ChannelNo,
    },
    /// A reply to `history`.
    Page(Box<Page>),
    Welcome(Box<Welcome>),
    /// Entries up to `last_seq` were left out.
    Gap {
        channel: ChannelNo,
        last_seq: Seq,
    },
    /// Everything up to `seq` is gone.
    Purged {
        channel: ChannelNo,
        seq: Seq,
    },
    ResumeAsked(Box<ResumeAsked>),
    ResumeReply(Box<ResumeReply>),
    /// A frame that is not as its op promises.
    Malformed(Box<Malformed>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Delivered,
    Read,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub reference: u64,
    pub entries: Vec<EntryNo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    pub heads: Vec<Head>,
}

/// A channel in a `welcome`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub channel: ChannelNo,
    pub last_seq: Seq,
    pub delivered_seq: Seq,
    pub read_seq: Seq,
    pub unread: u64,
    /// What `status` frames report, where the welcome has it: delivered and read by all.
    pub by_all: Option<(Seq, Seq)>,
    pub messages: Vec<EntryNo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeAsked {
    pub reference: u64,
    /// Each with the last seq that the client has; no channel twice.
    pub channels: Vec<(ChannelNo, Seq)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeReply {
    pub reference: u64,
    /// No channel twice.
    pub channels: Vec<Resumed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    pub channel: ChannelNo,
    pub complete: bool,
    pub last_seq: Seq,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    pub problem: String,
}

impl Record {
    pub fn user(&self, user: UserNo) -> &str {
        self.users.get(user.0 as usize).map_or("(unknown)", String::as_str)
    }

    pub fn channel(&self, channel: ChannelNo) -> ChannelId {
        self.channels[channel.0 as usize]
    }

    pub fn send(&self, send: SendNo) -> &Send {
        &self.sends[send.0 as usize]
    }

    pub fn entry(&self, entry: EntryNo) -> &Entry {
        &self.entries[entry.0 as usize]
    }
}

impl Entry {
    pub fn is_system(&self) -> bool {
        self.kind == Kind::System
    }
}
