//! What the oracle says of a record.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::{ChannelNo, Entry, EntryNo, Record, Send, SendNo};
use crate::message::{ChannelId, Seq};

/// Of each promise, at most this many violations are described; the rest is only counted.
pub const DESCRIBED: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Promise {
    /// The frames are as the protocol says: each is well-formed, each send is answered once, and its sender is told that
    /// it is stored.
    Wire,
    /// An accepted message is never lost.
    P1,
    /// Nothing is delivered that was not sent; a refused send is never seen.
    P2,
    /// One entry per (channel, sender, `client_id`).
    P3,
    /// (channel, seq) → message is one function.
    P4,
    /// On one connection a channel's seq only rises, without holes, unless the server said `gap`.
    P5,
    /// Two sends of one connection keep their order; one begun after another was accepted comes after it.
    P6,
    /// After `persisted`, history holds it, for everyone.
    P7,
    /// A resume is complete or refused.
    P8,
    /// Watermarks never go back, unread is derived from them, and seqs are dense.
    P9,
    /// Search finds every stored message within a bounded time; judged of the messages that were searched for.
    P10,
    /// A removed member receives nothing with a seq after its removal.
    P11,
    /// What was purged is read by nobody any more.
    P12,
}

impl Promise {
    pub const ALL: [Self; 13] = [
        Self::Wire,
        Self::P1,
        Self::P2,
        Self::P3,
        Self::P4,
        Self::P5,
        Self::P6,
        Self::P7,
        Self::P8,
        Self::P9,
        Self::P10,
        Self::P11,
        Self::P12,
    ];

    /// What is promised, in a line.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Wire => "frames are as the protocol says",
            Self::P1 => "an accepted message is never lost",
            Self::P2 => "nothing is delivered that was not sent",
            Self::P3 => "a message is in the log once",
            Self::P4 => "a channel and a seq name one message for everybody",
            Self::P5 => "on a connection, seqs rise without holes",
            Self::P6 => "the log keeps the order of sending",
            Self::P7 => "what is persisted is in the history",
            Self::P8 => "a resume is complete or refused",
            Self::P9 => "watermarks never go back",
            Self::P10 => "search finds what is stored",
            Self::P11 => "who is removed receives nothing more",
            Self::P12 => "what is purged is gone",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What names a message, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageIds {
    pub channel: ChannelId,
    pub seq: Option<Seq>,
    pub id: Option<Uuid>,
    pub client_id: Option<Uuid>,
}

/// One promise broken once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub promise: Promise,
    /// Who saw what, for people.
    pub detail: String,
    /// The messages that it is about.
    pub messages: Vec<MessageIds>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.detail)
    }
}

/// What became of the messages that clients tried to send. Each counts once, however often it was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Messages that somebody tried to send.
    pub attempts: u64,
    /// … of which an attempt was accepted.
    pub acknowledged: u64,
    /// … that are in the log, or where nobody read it were shown.
    pub ok: u64,
    /// Acknowledged, and missing in what a member read in the end.
    pub lost: u64,
    /// Under more than one seq.
    pub duplicated: u64,
    /// Seen, though nobody sent them, or though they were refused for good.
    pub unexpected: u64,
    /// Of those that are ok: what was not accepted at the first attempt, or came to no member but by a resume, a
    /// welcome or the history.
    pub recovered: u64,
    /// Said to be persisted more often than it was tried, on one connection: no fault, as a server says again what it may
    /// have failed to say.
    #[serde(default)]
    pub retold: u64,
}

/// What had not come when the record ended, and might have come still: that it was lost is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unjudged {
    /// Channels on connections that stayed to the end, and lacked the channel's last entries.
    pub stream_ends: u64,
    /// Answers to sends, and words that a message is persisted.
    pub statuses: u64,
}

impl Unjudged {
    /// For people; none if everything was judged.
    pub fn text(&self) -> Option<String> {
        let several = |count: u64, one: &str, more: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{count} {more}")),
        };
        let parts = [
            several(self.stream_ends, "stream end", "stream ends"),
            several(self.statuses, "status that had not come", "statuses that had not come"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// What a record has to judge by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Scope {
    /// Channels that somebody sent to or saw.
    pub channels: u64,
    /// … of which nobody read the history in the end: what was lost there (P1, P7) isn't known.
    pub unread: u64,
    /// Searches for stored messages, without which nothing is known of P10.
    pub searches: u64,
    pub unjudged: Unjudged,
}

impl Scope {
    pub(super) fn of(record: &Record, unjudged: Unjudged) -> Self {
        let mut was_read = vec![false; record.channels.len()];
        record.histories.iter().for_each(|history| was_read[history.channel.0 as usize] = true);
        Self {
            channels: record.channels.len() as u64,
            unread: was_read.iter().filter(|was_read| !**was_read).count() as u64,
            searches: record.searches.len() as u64,
            unjudged,
        }
    }

    /// Why the record proves nothing about loss, whatever else it shows; none if it does.
    pub fn fault(&self) -> Option<String> {
        match *self {
            Self { channels: 0, .. } => {
                Some("the record has no channels: nothing was sent, and nothing seen".to_owned())
            }
            Self { unread: 0, .. } => None,
            Self { channels, unread, .. } => Some(format!(
                "of {unread} of {channels} channels nobody read the history in the end: what was lost there is not known"
            )),
        }
    }
}

/// What a record shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub counts: Counts,
    /// How often each promise was seen broken; those that were not are left out.
    pub broken: BTreeMap<Promise, u64>,
    /// By promise; of each at most [`DESCRIBED`].
    pub violations: Vec<Violation>,
    /// What could be judged at all.
    pub scope: Scope,
}

impl Verdict {
    /// Whether the record shows no promise broken.
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }

    /// Adds what somebody else found out.
    pub fn add(&mut self, violation: Violation) {
        let count = self.broken.entry(violation.promise).or_default();
        *count += 1;
        if *count <= DESCRIBED as u64 {
            let place = self.violations.partition_point(|known| known.promise <= violation.promise);
            self.violations.insert(place, violation);
        }
    }
}

/// Collects violations, of each promise a bounded number.
#[derive(Default)]
pub(super) struct Found {
    by_promise: BTreeMap<Promise, (Vec<Violation>, u64)>,
}

impl Found {
    /// `describe` gives what was seen, and the messages that it is about; it is only called where there is room for it.
    pub(super) fn add<const N: usize>(
        &mut self,
        promise: Promise,
        describe: impl FnOnce() -> (String, [MessageIds; N]),
    ) {
        let (described, count) = self.by_promise.entry(promise).or_default();
        *count += 1;
        if described.len() < DESCRIBED {
            let (detail, messages) = describe();
            described.push(Violation { promise, detail, messages: messages.to_vec() });
        }
    }

    pub(super) fn into_verdict(self, counts: Counts, scope: Scope) -> Verdict {
        let mut verdict = Verdict { counts, scope, ..Verdict::default() };
        for (promise, (described, count)) in self.by_promise {
            verdict.broken.insert(promise, count);
            verdict.violations.extend(described);
        }
        verdict
    }
}

impl Record {
    pub(super) fn ids_of(&self, entry: EntryNo) -> MessageIds {
        let Entry { channel, seq, id, client_id, .. } = *self.entry(entry);
        MessageIds { channel: self.channel(channel), seq: Some(seq), id: Some(id), client_id }
    }

    pub(super) fn ids_of_send(&self, send: SendNo, seq: Option<Seq>) -> MessageIds {
        let send = self.send(send);
        MessageIds { channel: self.channel(send.channel), seq, id: None, client_id: Some(send.client_id) }
    }

    pub(super) fn place(&self, channel: ChannelNo, seq: Seq) -> MessageIds {
        MessageIds { channel: self.channel(channel), seq: Some(seq), id: None, client_id: None }
    }

    /// An entry, for people.
    pub(super) fn show(&self, entry: EntryNo) -> String {
        let Entry { channel, sender, seq, id, client_id, kind, body, at } = *self.entry(entry);
        let (channel, sender) = (self.channel(channel), self.user(sender));
        let client_id =
            client_id.map_or_else(|| "no client_id".to_owned(), |client_id| format!("client_id {client_id}"));
        let kind = format!("{kind:?}").to_lowercase();
        format!("{seq} of {channel} ({kind} {id} of {sender} at {at}, {client_id}, body hash {:016x})", body.0)
    }

    /// What somebody tried to send, for people.
    pub(super) fn show_send(&self, send: SendNo) -> String {
        let Send { channel, sender, client_id, .. } = *self.send(send);
        format!("{}'s message {client_id} to {}", self.user(sender), self.channel(channel))
    }
}
