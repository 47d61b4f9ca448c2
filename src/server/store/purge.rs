//! Removing the beginning of a channel's log for good.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StoreError;
use crate::message::{ChannelId, Millis, Seq};

/// What is removed is always the log's beginning, so the rest stays dense: the entries above `purged_seq`.
///
/// The channel, its members and their watermarks stay, and its next entry has the next seq. What was sent once stays
/// known by its `client_id` as long as that is remembered, so that a repeated send is not stored a second time.
#[async_trait]
pub trait Purge: Send + Sync + 'static {
    /// Where the channel's log begins and ends; `None` if there is no such channel.
    async fn extent(&self, id: ChannelId) -> Result<Option<Extent>, StoreError>;

    /// Removes the oldest entries, none above `through`: about `limit` at most, but never a part of what costs no more
    /// as a whole. First it is noted that they are gone,
    /// then they are, so a step that was cut off is finished by the next. To be called until it says that nothing is
    /// left.
    ///
    /// Errors: [`StoreError::Unavailable`]: some of it may be done; call again.
    async fn remove(&self, id: ChannelId, through: Seq, limit: usize) -> Result<Removed, StoreError>;

    /// Keeps a record of a purge, in the place of an earlier one with its id.
    async fn keep(&self, record: PurgeRecord) -> Result<(), StoreError>;

    /// The newest records first, at most `limit`: of one channel, or of all.
    async fn records(&self, of: Option<ChannelId>, limit: usize) -> Result<Vec<PurgeRecord>, StoreError>;
}

/// The entries above `purged_seq`, up to `last_seq`, are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub purged_seq: Seq,
    pub last_seq: Seq,
}

/// What a step of a purge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Everything up to here is gone.
    pub purged_seq: Seq,
    /// Entries that this step removed; of one that finishes what was cut off, also those that were counted then.
    pub entries: u64,
    /// Of them, those that were in an index in the store's own file: they are gone from it.
    pub indexed: u64,
    /// Nothing is left up to `through`.
    pub is_done: bool,
}

/// Who had what removed: kept for ever. It never says what the messages were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeRecord {
    /// UUID v7, so in the order of their beginnings.
    pub id: Uuid,
    pub channel: ChannelId,
    /// Entries above this were removed…
    pub after: Seq,
    /// … up to this.
    pub through: Seq,
    /// The operator's user and host, or the process that keeps to the retention.
    pub by: String,
    pub cause: Cause,
    pub began_at: Millis,
    /// `None`: it was interrupted, or is under way.
    pub ended_at: Option<Millis>,
    /// Entries of the log.
    pub entries: u64,
    /// Documents of the search index.
    pub indexed: u64,
    /// Tasks that had been set aside.
    pub dead_letters: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Somebody asked for it.
    Command,
    /// The retention in the configuration.
    Retention,
}
