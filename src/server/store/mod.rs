//! Stage 5: the stored log of each channel, its members and their watermarks.

pub mod audit;
mod cassandra;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub mod contract;
mod members;
mod purge;
mod scan;
mod sqlite;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub(crate) mod testing;

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use crate::message::{ChannelId, ChannelKind, Message, Millis, Role, Seq, Username};
use crate::wire::ErrorCode;
use crate::wire::frame::ChannelInfo;

pub use cassandra::CassandraStore;
pub use purge::{Cause, Extent, Purge, PurgeRecord, Removed};
pub use scan::{Cursor, Part, Scan, Scanned};
pub use sqlite::SqliteStore;
/// What other embedded stages share: readers of the columns, and the local key of a channel.
pub(crate) use sqlite::{columns as sqlite_columns, key as sqlite_key};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing was changed, or not all is known to be; the same call may succeed later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The log holds something else at this seq, or this client_id elsewhere: the caller's picture of the channel is
    /// out of date. Nothing was changed.
    #[error("the stored log of {0} is not what the writer took it for")]
    Conflict(ChannelId),
}

/// Members that a [`ChannelInfo`] lists, at most.
pub const LISTED_MEMBERS: usize = 100;

/// A member, with watermarks that only ever rise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub role: Role,
    pub joined_seq: Seq,
    pub delivered: Seq,
    pub read: Seq,
}

/// All that an owner needs to go on with a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelState {
    pub kind: ChannelKind,
    pub name: Option<String>,
    pub last_seq: Seq,
    pub members: std::collections::BTreeMap<Username, Member>,
    pub delivered_by_all: Seq,
    pub read_by_all: Seq,
}

impl ChannelState {
    pub fn info(&self, id: ChannelId) -> ChannelInfo {
        ChannelInfo {
            id,
            kind: self.kind,
            name: self.name.clone(),
            members: self.members.keys().take(LISTED_MEMBERS).cloned().collect(),
            member_count: self.members.len(),
            last_seq: self.last_seq,
            // An owner need not know: who reads it from the store does.
            purged_seq: 0,
        }
    }
}

/// What one flush adds to one channel: wholly stored, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelBatch {
    pub channel: ChannelId,
    /// Set in the batch that makes the channel.
    pub create: Option<NewChannel>,
    /// Ascending without holes, beginning at the latest right after the stored head; may be empty.
    pub entries: Vec<Arc<Message>>,
    /// Members who are new, or whose role or watermarks changed.
    pub members: Vec<(Username, Member)>,
    pub departed: Vec<Username>,
    pub delivered_by_all: Seq,
    pub read_by_all: Seq,
    /// Requests that are refused: kept as long as a `client_id` is remembered, and durable before any of the entries
    /// is, so that a task that is delivered again is refused again. A batch of nothing else needs no channel.
    pub refused: Vec<Refused>,
}

/// A request that was accepted and is refused now that its turn has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub sender: Username,
    pub client_id: Uuid,
    /// `None`: there was nothing to do.
    pub code: Option<ErrorCode>,
    pub at: Millis,
}

/// What became of a request when it came the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// It is the entry with this seq.
    Stored(Seq),
    Refused(Option<ErrorCode>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChannel {
    pub kind: ChannelKind,
    pub name: Option<String>,
}

/// Which part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The first `limit` entries with a seq above this.
    After(Seq),
    /// The last `limit` entries with a seq below this.
    Before(Seq),
}

/// A channel as one member sees it in lists.
#[derive(Debug, Clone, PartialEq)]
pub struct Membership {
    pub channel: ChannelInfo,
    /// The newest moment of its entries.
    pub last_at: Millis,
    pub delivered_seq: Seq,
    pub read_seq: Seq,
    pub delivered_by_all: Seq,
    pub read_by_all: Seq,
}

/// What a gateway holds of channels because members of them are connected, as new as its events are.
pub trait Known: Send + Sync {
    fn channel(&self, id: ChannelId) -> Option<KnownChannel>;
}

/// A channel, but for what is the reader's own.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownChannel {
    pub info: ChannelInfo,
    pub last_at: Millis,
    pub delivered_by_all: Seq,
    pub read_by_all: Seq,
}

/// Implementations are shared by every task of a process. Each method may be called again after any outcome.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// `None` if there is no such channel. Reads what was stored before the call.
    async fn channel(&self, id: ChannelId) -> Result<Option<ChannelState>, StoreError>;

    /// Stores a batch atomically and durably. Storing again what is there already (the same ids at the same seqs)
    /// changes nothing and succeeds; watermarks never go back.
    ///
    /// Members come, go and change roles only in a batch that also brings an entry that is new: a batch without one,
    /// such as the late write of an owner that was paused, raises the watermarks of those who are still members
    /// since the same `joined_seq`, and brings nobody back.
    ///
    /// Errors: [`StoreError::Conflict`] if another entry has one of the seqs or of the (sender, client_id)s, if the
    /// entries would leave a hole, or if there is no such channel and the batch does not make it;
    /// [`StoreError::Unavailable`].
    async fn append(&self, batch: Arc<ChannelBatch>) -> Result<(), StoreError>;

    /// What became of these (sender, client_id) in the channel, in the order asked. A seq above the stored head is
    /// possible, when a process died while it stored that entry: then it is not in the log.
    async fn find_sends(&self, id: ChannelId, sends: Vec<(Username, Uuid)>)
    -> Result<Vec<Option<Earlier>>, StoreError>;

    /// At most `limit` entries, ascending by seq; empty for an unknown channel.
    async fn messages(&self, id: ChannelId, page: Page, limit: usize) -> Result<Vec<Message>, StoreError>;

    /// The user's membership in a channel: `None` if there is no such channel or the user is not in it.
    async fn role(&self, id: ChannelId, user: &Username) -> Result<Option<(ChannelKind, Role)>, StoreError>;

    /// The user's channels, most recently active first, at most `limit`, skipping `offset`.
    async fn channels_of(&self, user: &Username, offset: usize, limit: usize) -> Result<Vec<Membership>, StoreError>;

    /// All of [`channels_of`](Self::channels_of), for a gateway that knows some of them anyway: `known` need not be
    /// read.
    async fn channels_known(&self, user: &Username, known: &dyn Known) -> Result<Vec<Membership>, StoreError> {
        let _ = known;
        self.channels_of(user, 0, usize::MAX).await
    }

    /// The ids of the user's channels, in no order.
    async fn memberships(&self, user: &Username) -> Result<Vec<ChannelId>, StoreError>;

    /// How many channels each of these users is in, in the order asked.
    async fn channel_counts(&self, users: Vec<Username>) -> Result<Vec<usize>, StoreError>;
}
