//! Search: an index of the stored messages, beside the store.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub mod contract;
mod answers;
mod fts5;
mod query;
mod queued;

use async_trait::async_trait;

use crate::message::{ChannelId, Message, Millis, Username};
use crate::wire::frame::SearchPage;

pub use answers::{RabbitAnswers, receive as receive_answers};
pub use fts5::Fts5Search;
pub use queued::{QueuedSearch, SearchAnswer, SearchAnswers};

/// What somebody searches for.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    #[error("{0}")]
    Invalid(String),
    /// The channel asked for is not one of the searcher's.
    #[error("not a member of this channel")]
    NotAMember,
    #[error("the search took longer than it may: use rarer words, or a channel")]
    TooSlow,
    #[error("search is not available: {0}")]
    Unavailable(String),
}

/// Finds messages, for those who may read them.
#[async_trait]
pub trait Search: Send + Sync + 'static {
    /// The searcher's newest matches first, at most `query.limit`, only from channels it is a member of now.
    async fn search(&self, searcher: &Username, query: Query) -> Result<SearchPage, SearchError>;
}

/// Makes messages findable.
#[async_trait]
pub trait SearchIndex: Search {
    /// Indexes stored entries; those that are no text are passed over, those that are indexed already stay as they
    /// are.
    async fn index(&self, messages: Vec<Message>) -> Result<(), SearchError>;
}
