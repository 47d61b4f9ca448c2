//! Building the index anew from the store, beside the one that is in use.
//!
//! While one is being built, [`SearchIndex::index`](super::SearchIndex::index) writes to both. An entry is stored before
//! it is to be indexed, so whoever did not know yet that another index is being built wrote something that the walk
//! through the store, which begins after that, comes by. Nothing has to be caught up with, then, when the new one takes
//! the place of the old one.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::SearchError;
use crate::message::{ChannelId, Millis, Seq};
use crate::server::store::{Cursor, Part};

/// How far a part of the store has been walked through. Kept in a checkpoint: a walk goes on where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Walk {
    /// Of an index in the store's own file: positions above `after`, up to `last`.
    Positions { first: i64, after: i64, last: i64 },
    /// Channels of a part, behind `after`; of the next of these, the entries above `seq` alone.
    Channels { part: Part, after: Option<Cursor>, seq: Seq },
}

impl Walk {
    /// How much of it is done, 0 to 1, as far as that can be told beforehand.
    pub fn fraction(&self) -> f64 {
        let (first, now, last) = match *self {
            Self::Positions { first, after, last } => (first, after, last),
            Self::Channels { part, after, .. } => {
                (part.after, after.map_or(part.after, |after| after.place), part.through)
            }
        };
        let (done, all) = (i128::from(now) - i128::from(first), i128::from(last) - i128::from(first));
        if all <= 0 { 1.0 } else { done as f64 / all as f64 }
    }
}

/// What one step of a walk brought.
#[derive(Debug, Default)]
pub struct Filled {
    /// Where to go on; `None` at the end.
    pub rest: Option<Walk>,
    /// Entries that are in the index now and are to be.
    pub entries: u64,
    /// Those that the index can't take, ever.
    pub rejected: Vec<Rejected>,
}

/// An entry that can't be indexed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    pub channel: ChannelId,
    pub seq: Seq,
    pub id: Uuid,
    /// Never quotes the message.
    pub why: String,
}

/// Which indexes there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Indexes {
    /// The one in use.
    pub live: String,
    /// The one that is being built.
    pub next: Option<String>,
    /// The one that was in use before, until it is dropped.
    pub former: Option<String>,
}

/// How a new index agrees with the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Entries that it must have at least; what is sent meanwhile comes on top.
    pub expected: u64,
    pub found: u64,
    /// Entries whose content was looked at.
    pub sampled: u64,
    /// Those of them that are missing or other than stored.
    pub different: Vec<(ChannelId, Seq)>,
}

impl Comparison {
    pub fn agrees(&self) -> bool {
        self.found >= self.expected && self.different.is_empty()
    }
}

/// What an index that was out of use for a while may lack: for [`Rebuild::mend`].
#[derive(Debug)]
pub struct Mending {
    pub walks: Vec<Walk>,
    pub since: Option<Millis>,
}

/// The operator's side of an index. Each method may be called again after any outcome, and by a process that is not the
/// one that began: the index itself knows what there is.
#[async_trait]
pub trait Rebuild: Send + Sync + 'static {
    async fn indexes(&self) -> Result<Indexes, SearchError>;

    /// Makes an empty index beside the one in use, unless there is one, and the walks that fill it. What is indexed
    /// from now on goes to both.
    async fn begin(&self) -> Result<Vec<Walk>, SearchError>;

    /// The walks over all that is stored: for [`Rebuild::mend`].
    async fn walks(&self) -> Result<Vec<Walk>, SearchError>;

    /// One step of a walk, into the index that is being built. Entries that are there already stay.
    ///
    /// Errors: [`SearchError::Unavailable`]: the same step may be tried again.
    async fn fill(&self, walk: Walk) -> Result<Filled, SearchError>;

    /// One step of a walk, into the index in use: of entries sent since `since`.
    async fn mend(&self, walk: Walk, since: Option<Millis>) -> Result<Filled, SearchError>;

    /// Compares the index that is being built with the store: its number of entries, of which `expected` were walked
    /// by, and the content of about `sample` of them.
    async fn compare(&self, expected: u64, sample: usize) -> Result<Comparison, SearchError>;

    /// Puts the new index in the place of the one in use, in one step; that one is kept as the former one, and an older
    /// former one is dropped.
    ///
    /// Errors: [`SearchError::Invalid`] if none is being built; [`SearchError::Unavailable`].
    async fn swap(&self) -> Result<(), SearchError>;

    /// Puts the former index back in its place, in one step; the one in use becomes the former one. What was sent while
    /// that was in use is to be mended next.
    ///
    /// Errors: [`SearchError::Invalid`] if there is none; [`SearchError::Unavailable`].
    async fn roll_back(&self) -> Result<Mending, SearchError>;

    /// Drops the index that is being built.
    async fn abandon(&self) -> Result<(), SearchError>;

    /// Drops the former index.
    async fn drop_former(&self) -> Result<(), SearchError>;
}
