//! How the index in use agrees with the store, entry by entry: what `aula verify` asks of it.

use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use super::SearchError;
use crate::message::{ChannelId, Millis, Seq};

/// A piece of a channel's log: above `after`, up to `through`.
#[derive(Debug, Clone)]
pub struct Slice {
    pub channel: ChannelId,
    pub after: Seq,
    pub through: Seq,
    /// All entries in it that belong in the index, ascending.
    pub entries: Vec<(Seq, Uuid)>,
}

/// An entry that belongs in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub channel: ChannelId,
    pub seq: Seq,
    pub id: Uuid,
}

/// Something in the index that is no entry of the log, or not one that belongs there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stray {
    /// The index's own name for it.
    pub document: String,
    /// What it says it is, if that can be told.
    pub channel: Option<ChannelId>,
    pub seq: Option<Seq>,
}

#[derive(Debug, Default)]
pub struct Differences {
    pub missing: Vec<Entry>,
    pub strays: Vec<Stray>,
}

/// What one step through the index brought.
#[derive(Debug, Default)]
pub struct IndexStep {
    /// Channels that the index knows: each is to be looked for in the store.
    pub channels: Vec<ChannelId>,
    pub strays: Vec<Stray>,
    /// Where to go on; `None` at the end.
    pub rest: Option<String>,
}

/// The index in use. What was written a moment ago may be missing from [`compare`](Self::compare), and what was removed
/// may still be there: look twice, by [`missing`](Self::missing) and [`present`](Self::present), which know of it.
#[async_trait]
pub trait IndexAudit: Send + Sync + 'static {
    /// Errors, here and below: [`SearchError::Unavailable`].
    async fn compare(&self, slices: Vec<Slice>) -> Result<Differences, SearchError>;

    /// One step through the index itself, for what no slice asks for.
    async fn walk(&self, after: Option<String>) -> Result<IndexStep, SearchError>;

    /// Those of the entries that are not in the index as of now.
    async fn missing(&self, entries: Vec<Entry>) -> Result<Vec<Entry>, SearchError>;

    /// Those of the entries that a task waits for, which is still to index them; `None` if tasks can't be looked into.
    async fn under_way(&self, _entries: &[Entry]) -> Result<Option<Vec<Entry>>, SearchError> {
        Ok(None)
    }

    /// Those of the strays that are in the index as of now.
    async fn present(&self, strays: Vec<Stray>) -> Result<Vec<Stray>, SearchError>;

    /// Where the message with this id is, if the index can tell at once.
    async fn locate(&self, _id: Uuid) -> Result<Option<(ChannelId, Seq)>, SearchError> {
        Ok(None)
    }

    /// Of an index that looks after itself: entries that are stored and not in it yet, counted up to some thousand, and
    /// when the oldest of them was sent.
    async fn lag(&self) -> Result<(u64, Option<Millis>), SearchError> {
        Ok((0, None))
    }

    /// Takes them out of the index, as far as that can be done one by one.
    async fn remove(&self, strays: Vec<Stray>) -> Result<(), SearchError>;
}
