//! The store on Cassandra. What the tables are and why is in `schema/cassandra/0001_messages.cql`.
//!
//! A batch is written in steps, each of which may be repeated:
//!
//! 1. refusals, and what no entry says of a new channel;
//! 2. the entries, a batch of one partition, and beside it what became of their sends. From here on the entries are in
//!    the log;
//! 3. the lists of channels of those who came and went;
//! 4. head, members and watermarks: one batch of the channel's partition. The head says that everything up to it is
//!    complete.
//!
//! A process may die between two of them. Whoever reads the channel next ([`Store::channel`], which an owner calls before
//! anything else) finds entries above the head, and does the rest ([`repair`]).

mod append;
mod audit;
mod errors;
mod heads;
mod lists;
mod log;
mod partition;
mod plan;
mod purge;
mod repair;
mod rows;
mod scan;
mod sends;
mod statements;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

use self::errors::{unavailable, unreadable};
use self::heads::Heads;
use self::statements::Statements;
use super::{ChannelBatch, ChannelState, Earlier, Known, Membership, Page, Store, StoreError};
use crate::message::{ChannelId, ChannelKind, Message, Role, Username};
use crate::server::cassandra::Cassandra;

/// Requests of one call that are under way at a time.
const CONCURRENCY: usize = 32;

/// The store of a distributed deployment. Clones share it.
#[derive(Clone)]
pub struct CassandraStore {
    inner: Arc<Inner>,
}

struct Inner {
    cassandra: Cassandra,
    statements: Statements,
    /// Of the channels that this process loaded or wrote.
    heads: Heads,
    /// How long sends and refusals are remembered, in seconds.
    dedup_ttl: i32,
}

impl CassandraStore {
    /// Needs the tables. What became of a request is remembered for `dedup_ttl`.
    ///
    /// Errors: the database is not there, or lacks a table.
    pub async fn new(cassandra: Cassandra, dedup_ttl: Duration) -> anyhow::Result<Self> {
        let statements = Statements::prepare(&cassandra).await?;
        // 0 would mean "for ever".
        let dedup_ttl = i32::try_from(dedup_ttl.as_secs()).unwrap_or(i32::MAX).max(1);
        Ok(Self { inner: Arc::new(Inner { cassandra, statements, heads: Heads::default(), dedup_ttl }) })
    }
}

impl Inner {
    async fn write(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<(), StoreError> {
        self.cassandra.session.execute_unpaged(statement, values).await.map_err(unavailable)?;
        Ok(())
    }

    /// All rows, page after page.
    async fn rows<R>(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<Vec<R>, StoreError>
    where
        R: for<'frame, 'metadata> scylla::deserialize::row::DeserializeRow<'frame, 'metadata>,
    {
        let mut rows = Vec::new();
        let mut state = PagingState::start();
        loop {
            let (result, next) =
                self.cassandra.session.execute_single_page(statement, &values, state).await.map_err(unavailable)?;
            let page = result.into_rows_result().map_err(unreadable)?;
            for row in page.rows::<R>().map_err(unreadable)? {
                rows.push(row.map_err(unreadable)?);
            }
            match next {
                PagingStateResponse::HasMorePages { state: next } => state = next,
                PagingStateResponse::NoMorePages => return Ok(rows),
            }
        }
    }
}

#[async_trait]
impl Store for CassandraStore {
    async fn channel(&self, id: ChannelId) -> Result<Option<ChannelState>, StoreError> {
        self.inner.load(id).await
    }

    async fn append(&self, batch: Arc<ChannelBatch>) -> Result<(), StoreError> {
        self.inner.append(&batch).await
    }

    async fn find_sends(
        &self,
        id: ChannelId,
        sends: Vec<(Username, Uuid)>,
    ) -> Result<Vec<Option<Earlier>>, StoreError> {
        self.inner.find_sends(id, sends).await
    }

    async fn messages(&self, id: ChannelId, page: Page, limit: usize) -> Result<Vec<Message>, StoreError> {
        self.inner.messages(id, page, limit).await
    }

    async fn role(&self, id: ChannelId, user: &Username) -> Result<Option<(ChannelKind, Role)>, StoreError> {
        self.inner.role(id, user).await
    }

    async fn channels_of(&self, user: &Username, offset: usize, limit: usize) -> Result<Vec<Membership>, StoreError> {
        let all = self.inner.list(user, None).await?;
        Ok(all.into_iter().skip(offset).take(limit).collect())
    }

    async fn channels_known(&self, user: &Username, known: &dyn Known) -> Result<Vec<Membership>, StoreError> {
        self.inner.list(user, Some(known)).await
    }

    async fn memberships(&self, user: &Username) -> Result<Vec<ChannelId>, StoreError> {
        self.inner.memberships(user).await
    }

    async fn channel_counts(&self, users: Vec<Username>) -> Result<Vec<usize>, StoreError> {
        self.inner.channel_counts(users).await
    }
}
