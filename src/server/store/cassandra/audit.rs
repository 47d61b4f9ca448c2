//! Looking at the tables as they are, and mending them. What is mended is written as its owner would have written it,
//! with seqs as timestamps: nothing newer is undone.

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use scylla::response::{PagingState, PagingStateResponse};
use uuid::Uuid;

use super::errors::{unavailable, unreadable};
use super::partition::Picture;
use super::rows::{bigint, bucket, role_name, seq, seq_or_zero, username};
use super::{CONCURRENCY, CassandraStore, Inner, StoreError};
use crate::message::{ChannelId, Seq, Username};
use crate::server::store::audit::{Audit, ListCursor, ListStep, Listed, Mend};
use crate::server::store::{ChannelState, Member};

#[async_trait]
impl Audit for CassandraStore {
    async fn picture(&self, id: ChannelId) -> Result<Option<ChannelState>, StoreError> {
        let picture = self.inner.picture(id).await?;
        Ok(picture.filter(|picture| picture.head.is_some()).map(Picture::state))
    }

    async fn next_seq(&self, id: ChannelId, after: Seq, through: Seq) -> Result<Option<Seq>, StoreError> {
        let inner = &self.inner;
        // A log without an end is not searched for one: beyond a bucket that may be begun, none is empty.
        let last_bucket = bucket(through.min(after.saturating_add(super::rows::BUCKET).max(self.head(id).await?)));
        for bucket in bucket(after.saturating_add(1))..=last_bucket {
            let values = (id.0, bigint(bucket), bigint(after), bigint(through));
            let rows: Vec<(i64,)> = inner.rows(&inner.statements.next_seq, values).await?;
            if let Some((found,)) = rows.first() {
                return seq(*found).map(Some);
            }
        }
        Ok(None)
    }

    async fn listed(&self, id: ChannelId, users: Vec<Username>) -> Result<Vec<Option<Seq>>, StoreError> {
        let inner = &self.inner;
        let since = |user: Username| async move {
            let rows: Vec<(Option<i64>,)> = inner.rows(&inner.statements.listed, (user.as_str(), id.0)).await?;
            rows.first().map(|(joined_seq,)| seq_or_zero(*joined_seq)).transpose()
        };
        let reads: Vec<_> = users.into_iter().map(since).collect();
        stream::iter(reads).buffered(CONCURRENCY).try_collect().await
    }

    async fn strays_in_lists(&self, after: Option<ListCursor>) -> Result<ListStep, StoreError> {
        let inner = &self.inner;
        let state = after.map_or_else(PagingState::start, |ListCursor(bytes)| PagingState::new_from_raw_bytes(bytes));
        let asked = inner.cassandra.session.execute_single_page(&inner.statements.scan_lists, (), state);
        let (result, next) = asked.await.map_err(unavailable)?;
        let page = result.into_rows_result().map_err(unreadable)?;
        let (mut rows, mut last_token) = (Vec::new(), i64::MAX);
        for row in page.rows::<(i64, String, Uuid)>().map_err(unreadable)? {
            let (token, user, id) = row.map_err(unreadable)?;
            last_token = token;
            rows.push((username(&user)?, ChannelId(id)));
        }
        let count = rows.len() as u64;
        let stray = |(user, id): (Username, ChannelId)| async move {
            let is_member = inner.role(id, &user).await?.is_some();
            Ok::<_, StoreError>((!is_member).then_some(Listed { user, channel: Some(id) }))
        };
        let looks: Vec<_> = rows.into_iter().map(stray).collect();
        let strays: Vec<Option<Listed>> = stream::iter(looks).buffered(CONCURRENCY).try_collect().await?;
        let rest = match next {
            PagingStateResponse::HasMorePages { state } => {
                state.as_bytes_slice().map(|bytes| ListCursor(bytes.to_vec()))
            }
            PagingStateResponse::NoMorePages => None,
        };
        let fraction = match rest {
            Some(_) => (last_token as f64 - i64::MIN as f64) / (i64::MAX as f64 - i64::MIN as f64),
            None => 1.0,
        };
        Ok(ListStep { rows: count, fraction, strays: strays.into_iter().flatten().collect(), rest })
    }

    fn whereabouts(&self, seq: Seq) -> String {
        format!("table messages_by_channel, bucket {}", bucket(seq))
    }

    async fn mend(&self, id: ChannelId, mend: Mend) -> Result<(), StoreError> {
        let inner = &self.inner;
        let statements = &inner.statements;
        match mend {
            // What an owner does first.
            Mend::Head => inner.load(id).await.map(drop),
            Mend::List { user, joined_seq, as_of } => {
                let values = (user.as_str(), id.0, bigint(joined_seq), bigint(as_of));
                inner.write(&statements.list_channel, values).await
            }
            Mend::Unlist { user, as_of } => {
                inner.write(&statements.unlist_channel, (bigint(as_of), user.as_str(), id.0)).await
            }
            Mend::Member { user, member, as_of } => inner.mend_member(id, &user, &member, as_of).await,
            Mend::NoMember { user, joined_seq, as_of } => {
                let values = (bigint(as_of), id.0, user.as_str(), bigint(joined_seq));
                inner.write(&statements.end_memberships, values).await
            }
            Mend::ByAll { delivered, read } => {
                let (delivered, read) = (bigint(delivered), bigint(read));
                inner.write(&statements.set_delivered_by_all, (delivered, delivered, id.0)).await?;
                inner.write(&statements.set_read_by_all, (read, read, id.0)).await
            }
        }
    }
}

impl CassandraStore {
    async fn head(&self, id: ChannelId) -> Result<Seq, StoreError> {
        Ok(self.inner.read_head(id).await?.map_or(0, |head| head.last_seq))
    }
}

impl Inner {
    async fn mend_member(&self, id: ChannelId, user: &Username, member: &Member, as_of: Seq) -> Result<(), StoreError> {
        let Member { role, joined_seq, delivered, read } = *member;
        let (joined_seq, delivered, read) = (bigint(joined_seq), bigint(delivered), bigint(read));
        let values = (bigint(as_of), role_name(role), id.0, user.as_str(), joined_seq);
        self.write(&self.statements.set_role, values).await?;
        // The watermark is its own timestamp: a higher one stays.
        let values = (delivered, delivered, id.0, user.as_str(), joined_seq);
        self.write(&self.statements.set_delivered, values).await?;
        let values = (read, read, id.0, user.as_str(), joined_seq);
        self.write(&self.statements.set_read, values).await?;
        if joined_seq > 1 {
            let values = (bigint(as_of), id.0, user.as_str(), joined_seq - 1);
            self.write(&self.statements.end_memberships, values).await?;
        }
        Ok(())
    }
}
