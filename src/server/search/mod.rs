//! Search: an index of the stored messages, beside the store.

mod answers;
pub mod audit;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub mod contract;
mod elasticsearch;
mod fts5;
mod html;
mod query;
mod queued;
pub mod rebuild;
mod words;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::message::{ChannelId, Message, Millis, Username};
use crate::server::queue::IndexRange;
use crate::wire::frame::SearchPage;

pub use answers::{RabbitAnswers, receive as receive_answers};
pub use elasticsearch::{
    ElasticsearchIndex, ElasticsearchRebuild, connect as connect_elasticsearch, failure as elasticsearch_failure,
    schema as elasticsearch_schema,
};
pub use fts5::Fts5Search;
pub(crate) use fts5::forget_indexed;
pub use queued::{QueuedSearch, SearchAnswer, SearchAnswers};

/// Counts of each kind in [`Facets`](crate::wire::frame::Facets), at most: the largest.
const FACET_SIZE: usize = 10;

/// What somebody searches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Words, all of which must be there; `"…"` is a phrase, a trailing `*` any ending. Everything else is text.
    pub text: String,
    pub channel: Option<ChannelId>,
    pub from: Option<Username>,
    /// Sent before, sent after; both exclude the moment itself.
    pub before: Option<Millis>,
    pub after: Option<Millis>,
    pub limit: usize,
    /// From the page before.
    pub cursor: Option<String>,
    /// Whether the matches are also counted by channel and by sender.
    pub facets: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SearchError {
    #[error("{0}")]
    Invalid(String),
    /// The channel asked for is not one of the searcher's.
    #[error("not a member of this channel")]
    NotAMember,
    #[error("the search took longer than it may: use rarer words, or a channel")]
    TooSlow,
    /// The same call may succeed later. What is said of it is for the log, not for who searches.
    #[error("search is not available: {0}")]
    Unavailable(String),
}

/// Finds messages, for those who may read them.
#[async_trait]
pub trait Search: Send + Sync + 'static {
    /// The searcher's matches, newest first, at most `query.limit`, only from channels it is a member of now. Newest
    /// is what was sent last, or what was stored last: they differ for messages that were sent at about the same time.
    ///
    /// Errors: [`SearchError::Invalid`] for a text without words or a cursor of another make,
    /// [`SearchError::NotAMember`], [`SearchError::TooSlow`], [`SearchError::Unavailable`].
    async fn search(&self, searcher: &Username, query: Query) -> Result<SearchPage, SearchError>;
}

/// Makes messages findable.
#[async_trait]
pub trait SearchIndex: Search {
    /// Indexes stored entries; those that are no text are passed over, those that are indexed already, in this or a
    /// newer version, stay as they are. They are found a bounded time after the call.
    ///
    /// An entry that can never be indexed is logged, counted and passed over: it is in the store, and repeating the
    /// call would only hold up the others.
    ///
    /// Errors: [`SearchError::Unavailable`]: some of them may be indexed; call again with all.
    async fn index(&self, messages: Vec<Message>) -> Result<(), SearchError>;

    /// The same for stored entries that the index can read by itself, because it is in the store's own file. `false`,
    /// and nothing is done, if it can't: then they must be read for it.
    ///
    /// Errors: as [`SearchIndex::index`].
    async fn index_stored(&self, _ranges: Vec<IndexRange>) -> Result<bool, SearchError> {
        Ok(false)
    }

    /// Takes entries that were purged out of the index, and out of those that are kept or built beside it; how many were
    /// in the one in use. Of an index in the store's own file they are gone with the entries, and there is nothing to do.
    ///
    /// Errors: [`SearchError::Unavailable`]: some of them may be gone; call again.
    async fn forget(&self, _entries: IndexRange) -> Result<u64, SearchError> {
        Ok(0)
    }

    /// How many of these entries are in the index in use. A moment old.
    async fn count(&self, entries: IndexRange) -> Result<u64, SearchError>;

    /// Whether another index is being built that may take in, from what it read of the store before, entries that
    /// [`SearchIndex::forget`] has taken out.
    async fn is_being_rebuilt(&self) -> Result<bool, SearchError> {
        Ok(false)
    }

    /// How many entries one call of [`SearchIndex::index`] should bring where there are many: so few that it does not
    /// hold others up for long, so many that they are written cheaply.
    fn page(&self) -> usize {
        100
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
