//! The channels in the order of their local keys, which is about the order in which they were made.

use async_trait::async_trait;
use rusqlite::params;

use super::super::scan::{Cursor, Part, Scan, Scanned, cut};
use super::columns::seq;
use super::{SqliteStore, StoreError, count};
use crate::message::ChannelId;

#[async_trait]
impl Scan for SqliteStore {
    async fn parts(&self, wanted: usize) -> Result<Vec<Part>, StoreError> {
        let newest: i64 = self
            .read(|connection| {
                connection.query_row("SELECT coalesce(max(channel), 0) FROM channels", [], |row| row.get(0))
            })
            .await?;
        let mut parts = cut(0, newest, wanted);
        // What is made later comes behind all that there is, and so into the last part.
        if let Some(last) = parts.last_mut() {
            last.through = i64::MAX;
        }
        Ok(parts)
    }

    async fn channels(&self, part: Part, after: Option<Cursor>, limit: usize) -> Result<Vec<Scanned>, StoreError> {
        let from = after.map_or(part.after, |cursor| cursor.place);
        self.read(move |connection| {
            let mut channels = connection.prepare_cached(
                "SELECT channel, channel_id, last_seq FROM channels WHERE channel > ?1 AND channel <= ?2
                 ORDER BY channel LIMIT ?3",
            )?;
            let rows = channels.query_map(params![from, part.through, count(limit)], |row| {
                let channel = ChannelId(row.get(1)?);
                let cursor = Cursor { place: row.get(0)?, channel };
                Ok(Scanned { channel, last_seq: seq(row, 2)?, cursor })
            })?;
            rows.collect()
        })
        .await
    }
}
