//! The index of a distributed deployment: Elasticsearch, behind one alias.
//!
//! [`schema`] makes the template and the first index, [`bulk`] writes, [`request`] and [`page`] search.

mod audit;
mod bulk;
mod client;
mod cursor;
mod document;
mod forget;
mod page;
mod rebuild;
mod request;
pub mod schema;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub(super) mod testing;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use elasticsearch::indices::IndicesExistsAliasParts;
use elasticsearch::{Elasticsearch, SearchParts};
use tokio::time::timeout;

use super::query::{self, Term};
use super::rebuild::Rejected;
use super::{Query, Search, SearchError, SearchIndex};
use crate::message::{ChannelId, Kind, Message, Username};
use crate::server::queue::IndexRange;
use crate::server::store::{Store, StoreError};
use crate::wire::frame::SearchPage;

use bulk::{Bulk, Written};
pub use client::{connect, failure};
use cursor::Cursor;
use document::Document;
pub use rebuild::ElasticsearchRebuild;
use request::Request;

/// Documents that one call of [`SearchIndex::index`] should bring: two bulks, which are under way together.
const PAGE: usize = 2000;
/// The first version of a message's document; an edit or a removal has a higher one.
const AS_SENT: u64 = 1;

/// The messages behind an alias. Clones share the connections.
#[derive(Clone)]
pub struct ElasticsearchIndex {
    client: Elasticsearch,
    alias: String,
    /// Who is a member of what.
    store: Arc<dyn Store>,
    timeout: Duration,
    total_cap: u64,
}

impl ElasticsearchIndex {
    /// A search is given up after `timeout`; hits are counted up to `total_cap`.
    pub fn new(client: Elasticsearch, alias: String, store: Arc<dyn Store>, timeout: Duration, total_cap: u64) -> Self {
        Self { client, alias, store, timeout, total_cap }
    }

    /// The channels to search: those the searcher is a member of now, or the one asked for if it is among them.
    async fn channels(&self, searcher: &Username, only: Option<ChannelId>) -> Result<Vec<ChannelId>, SearchError> {
        let unavailable = |error: StoreError| SearchError::Unavailable(error.to_string());
        match only {
            None => self.store.memberships(searcher).await.map_err(unavailable),
            Some(channel) => match self.store.role(channel, searcher).await.map_err(unavailable)? {
                Some(_) => Ok(vec![channel]),
                None => Err(SearchError::NotAMember),
            },
        }
    }

    async fn is_alias(&self, name: &str) -> Result<bool, SearchError> {
        let response = self.client.indices().exists_alias(IndicesExistsAliasParts::Name(&[name])).send().await;
        let response = response.map_err(|error| SearchError::Unavailable(client::failure(&error)))?;
        match response.status_code().as_u16() {
            404 => Ok(false),
            200..300 => Ok(true),
            _ => Err(SearchError::Unavailable(client::refusal(response).await)),
        }
    }

    async fn find(&self, searcher: &Username, query: Query, terms: &[Term]) -> Result<SearchPage, SearchError> {
        let after = query.cursor.as_deref().map(Cursor::decode).transpose()?;
        let channels = self.channels(searcher, query.channel).await?;
        let request = Request { channels: &channels, terms, query: &query, after };
        if channels.is_empty() {
            return Ok(page::empty(&query));
        }
        let response = self
            .client
            .search(SearchParts::Index(&[&self.alias]))
            .body(request.body(self.timeout, self.total_cap))
            .send()
            .await
            .map_err(|error| SearchError::Unavailable(client::failure(&error)))?;
        if !response.status_code().is_success() {
            return Err(SearchError::Unavailable(client::refusal(response).await));
        }
        let found = response.json().await.map_err(|error| SearchError::Unavailable(client::failure(&error)))?;
        page::of(found, &query, terms, self.total_cap)
    }
}

/// The message stays in the store, and is not found. Its text is not logged, nor what the server says of it: that
/// quotes the text.
fn pass_over(rejected: &Rejected) {
    metrics::counter!("aula_index_poison_total").increment(1);
    let Rejected { id, channel, seq, why } = rejected;
    tracing::error!(%id, %channel, seq, why, "a message can't be indexed, and is passed over");
}

#[async_trait]
impl Search for ElasticsearchIndex {
    async fn search(&self, searcher: &Username, query: Query) -> Result<SearchPage, SearchError> {
        let terms = query::terms(&query.text)?;
        // The server gives up by itself after the same time, but looks at the clock only now and then.
        match timeout(self.timeout, self.find(searcher, query, &terms)).await {
            Ok(found) => found,
            Err(_elapsed) => Err(SearchError::TooSlow),
        }
    }
}

#[async_trait]
impl SearchIndex for ElasticsearchIndex {
    async fn index(&self, messages: Vec<Message>) -> Result<(), SearchError> {
        let texts = messages.iter().filter(|message| message.kind == Kind::Text);
        let documents: Vec<Document> =
            texts.map(|message| Document::new(message, AS_SENT)).collect::<Result<_, _>>()?;
        let next = rebuild::next(&self.alias);
        let is_being_rebuilt = self.is_alias(&next).await?;
        let again = if is_being_rebuilt { documents.clone() } else { Vec::new() };
        let Written { rejected, .. } = Bulk { client: &self.client, alias: &self.alias }.write(documents).await?;
        if is_being_rebuilt {
            // If that has taken the place of the other meanwhile, this fails, and the whole call is repeated.
            Bulk { client: &self.client, alias: &next }.write(again).await?;
        }
        rejected.iter().for_each(pass_over);
        Ok(())
    }

    async fn count(&self, entries: IndexRange) -> Result<u64, SearchError> {
        forget::count(&self.client, &self.alias, entries).await
    }

    async fn is_being_rebuilt(&self) -> Result<bool, SearchError> {
        self.is_alias(&rebuild::next(&self.alias)).await
    }

    async fn forget(&self, entries: IndexRange) -> Result<u64, SearchError> {
        let mut removed = forget::remove(&self.client, &self.alias, entries).await?;
        for beside in [rebuild::next(&self.alias), rebuild::former(&self.alias)] {
            if self.is_alias(&beside).await? {
                removed = removed.max(forget::remove(&self.client, &beside, entries).await?);
            }
        }
        Ok(removed)
    }

    fn page(&self) -> usize {
        PAGE
    }
}
