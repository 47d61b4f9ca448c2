//! The channels in the order of their tokens, which is the order in which the nodes have them.

use async_trait::async_trait;
use scylla::response::{PagingState, PagingStateResponse};
use uuid::Uuid;

use super::super::scan::{Cursor, Part, Scan, Scanned, cut};
use super::errors::{unavailable, unreadable};
use super::rows::seq;
use super::{CassandraStore, StoreError};
use crate::message::ChannelId;

#[async_trait]
impl Scan for CassandraStore {
    async fn parts(&self, wanted: usize) -> Result<Vec<Part>, StoreError> {
        // No partition has the least token: https://cassandra.apache.org/doc/latest/cassandra/architecture/dynamo.html
        Ok(cut(i64::MIN, i64::MAX, wanted))
    }

    async fn channels(&self, part: Part, after: Option<Cursor>, limit: usize) -> Result<Vec<Scanned>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // With the cursor's own token: another channel may have it as well.
        let first = after.map_or(part.after.saturating_add(1), |cursor| cursor.place);
        let session = &self.inner.cassandra.session;
        let mut statement = self.inner.statements.scan_channels.clone();
        // One more: the cursor's own channel is among them.
        statement
            .set_page_size(statement.get_page_size().min(i32::try_from(limit).unwrap_or(i32::MAX).saturating_add(1)));
        let mut found = Vec::new();
        let mut state = PagingState::start();
        loop {
            let asked = session.execute_single_page(&statement, (first, part.through), state);
            let (result, next) = asked.await.map_err(unavailable)?;
            let page = result.into_rows_result().map_err(unreadable)?;
            for row in page.rows::<(i64, Uuid, Option<i64>)>().map_err(unreadable)? {
                let (place, id, last_seq) = row.map_err(unreadable)?;
                let channel = ChannelId(id);
                let is_behind = after.is_none_or(|after| (place, channel) > (after.place, after.channel));
                // Without a head it is none yet.
                if let (true, Some(last_seq)) = (is_behind, last_seq) {
                    found.push(Scanned { channel, last_seq: seq(last_seq)?, cursor: Cursor { place, channel } });
                }
                if found.len() == limit {
                    return Ok(found);
                }
            }
            match next {
                PagingStateResponse::HasMorePages { state: next } => state = next,
                PagingStateResponse::NoMorePages => return Ok(found),
            }
        }
    }
}
