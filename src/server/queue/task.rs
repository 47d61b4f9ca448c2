//! What is written on a queue: a version byte, then the task in compact MessagePack.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::message::{ChannelId, ChannelKind, Kind, Message, Millis, Seq, Username};
use crate::server::search::Query;

/// Raised when a field is added or changes; consumers accept every version that was ever released.
const VERSION: u8 = 1;
/// A task is at most a frame's body and a member list; nothing legitimate comes near.
const MAX_BYTES: usize = 4 << 20;

/// A unit of work. Handlers are idempotent: each may run again after a crash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Task {
    Send(SendTask),
    Create(CreateTask),
    Change(ChangeTask),
    Receipts(ReceiptsTask),
    Index(IndexTask),
    Search(SearchTask),
}

/// Append a message. Everything but its seq is fixed here, so that doing it again makes the same entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SendTask {
    pub channel: ChannelId,
    pub id: Uuid,
    pub sender: Username,
    pub client_id: Uuid,
    pub kind: Kind,
    pub body: String,
    pub at: Millis,
    pub retry: bool,
}

impl SendTask {
    pub fn into_message(self, seq: Seq) -> Message {
        let Self { channel, id, sender, client_id, kind, body, at, retry: _ } = self;
        Message { channel, seq, id, sender, client_id, kind, body, at }
    }
}

/// Who asked, and where the answer goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    pub session: Uuid,
    pub reference: Option<u64>,
}

/// Make a channel, unless it is there already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateTask {
    pub channel: ChannelId,
    /// The first entry's id, and its client_id: a second run finds the first by it.
    pub id: Uuid,
    pub kind: ChannelKind,
    pub name: Option<String>,
    /// The creator first.
    pub members: Vec<Username>,
    pub at: Millis,
    pub origin: Origin,
}

/// Add members to a group, or remove some: one of the two lists is empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeTask {
    pub channel: ChannelId,
    /// The entry's id, and its client_id: a second run finds the first by it.
    pub id: Uuid,
    pub by: Username,
    pub add: Vec<Username>,
    pub remove: Vec<Username>,
    pub at: Millis,
    pub origin: Origin,
}

/// Members' newest watermarks in a channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiptsTask {
    pub channel: ChannelId,
    /// Who, delivered up to, read up to; 0 where there is no news.
    pub marks: Vec<(Username, Seq, Seq)>,
}

/// Make stored entries findable, of one channel or of many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexTask {
    pub ranges: Vec<IndexRange>,
}

/// Entries of a channel that follow each other, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRange {
    pub channel: ChannelId,
    pub first: Seq,
    pub last: Seq,
}

impl IndexRange {
    /// Puts `next` behind the others; where it goes on with the last of them, that one becomes longer.
    pub fn append(ranges: &mut Vec<Self>, next: Self) {
        match ranges.last_mut() {
            Some(last) if last.channel == next.channel && last.last + 1 == next.first => last.last = next.last,
            _ => ranges.push(next),
        }
    }
}

/// Find messages for somebody, and tell the gateway that asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchTask {
    /// The gateway's own number for it.
    pub id: u64,
    pub gateway: String,
    pub searcher: Username,
    pub query: Query,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    #[error("empty payload")]
    Empty,
    #[error("payload version {0}, this binary reads up to {VERSION}: upgrade the workers first")]
    Version(u8),
    #[error("payload of {0} bytes, at most {MAX_BYTES} are read")]
    TooLarge(usize),
    #[error("malformed payload: {0}")]
    Malformed(String),
}

impl Task {
    pub fn encode(&self) -> Result<Bytes, BadPayload> {
        let mut bytes = Vec::with_capacity(256);
        bytes.push(VERSION);
        rmp_serde::encode::write(&mut bytes, self).map_err(|error| BadPayload::Malformed(error.to_string()))?;
        if bytes.len() > MAX_BYTES {
            return Err(BadPayload::TooLarge(bytes.len()));
        }
        Ok(bytes.into())
    }

    pub fn decode(payload: &[u8]) -> Result<Self, BadPayload> {
        if payload.len() > MAX_BYTES {
            return Err(BadPayload::TooLarge(payload.len()));
        }
        let (&version, body) = payload.split_first().ok_or(BadPayload::Empty)?;
        if version != VERSION {
            return Err(BadPayload::Version(version));
        }
        rmp_serde::from_slice(body).map_err(|error| BadPayload::Malformed(error.to_string()))
    }

    /// The channel whose shard the task belongs to; `None` for what belongs to none.
    pub fn partition_key(&self) -> Option<ChannelId> {
        match self {
            Self::Send(task) => Some(task.channel),
            Self::Create(task) => Some(task.channel),
            Self::Change(task) => Some(task.channel),
            Self::Receipts(task) => Some(task.channel),
            Self::Index(_) | Self::Search(_) => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_task_comes_back_as_it_was() {
        let task = Task::Send(SendTask {
            channel: ChannelId(Uuid::now_v7()),
            id: Uuid::now_v7(),
            sender: Username::new("ada").unwrap(),
            client_id: Uuid::new_v4(),
            kind: Kind::Text,
            body: "hé\0".into(),
            at: Millis(-1),
            retry: true,
        });
        assert_eq!(Task::decode(&task.encode().unwrap()), Ok(task));
    }

    #[test]
    fn what_is_no_task_says_why() {
        assert_eq!(Task::decode(&[]), Err(BadPayload::Empty));
        assert_eq!(Task::decode(&[9, 1]), Err(BadPayload::Version(9)));
        assert!(matches!(Task::decode(&[1, 0xc1]), Err(BadPayload::Malformed(_))));
        assert!(matches!(Task::decode(&[1, 0xdd, 0xff, 0xff, 0xff, 0xff]), Err(BadPayload::Malformed(_))));
    }
}
