//! Purging: an entry, what the index has of it, and the note that it is gone, in one transaction.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::columns::seq;
use super::{SqliteStore, StoreError, count, unavailable};
use crate::message::{ChannelId, Millis, Seq, Username};
use crate::server::search::forget_indexed;
use crate::server::sqlite::Admission;
use crate::server::store::{Extent, Purge, PurgeRecord, Removed};

#[async_trait]
impl Purge for SqliteStore {
    async fn extent(&self, id: ChannelId) -> Result<Option<Extent>, StoreError> {
        self.read(move |connection| Ok(channel(connection, id)?.map(|(_, extent)| extent))).await
    }

    async fn remove(&self, id: ChannelId, through: Seq, limit: usize) -> Result<Removed, StoreError> {
        let kept_ms = i64::try_from(self.dedup_ttl.as_millis()).unwrap_or(i64::MAX);
        let known_since = Millis::now().0.saturating_sub(kept_ms);
        let removed = self
            .database
            .write_as(Admission::Relaxed, move |connection| remove(connection, id, through, limit, known_since));
        removed.await.map_err(unavailable)
    }

    async fn keep(&self, record: PurgeRecord) -> Result<(), StoreError> {
        let json = serde_json::to_string(&record).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let keep = move |connection: &Connection| {
            connection
                .prepare_cached(
                    "INSERT INTO purges (id, channel_id, record) VALUES (?1, ?2, ?3)
                     ON CONFLICT (id) DO UPDATE SET record = excluded.record",
                )?
                .execute(params![record.id, record.channel.0, json])
                .map(drop)
        };
        self.database.write(keep).await.map_err(unavailable)
    }

    async fn records(&self, of: Option<ChannelId>, limit: usize) -> Result<Vec<PurgeRecord>, StoreError> {
        let found: Vec<String> = self
            .read(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT record FROM purges WHERE ?1 IS NULL OR channel_id = ?1 ORDER BY id DESC LIMIT ?2",
                    )?
                    .query_map(params![of.map(|id| id.0), count(limit)], |row| row.get(0))?
                    .collect()
            })
            .await?;
        let read = |json: &String| serde_json::from_str(json);
        found.iter().map(read).collect::<Result<_, _>>().map_err(|error| StoreError::Unavailable(error.to_string()))
    }
}

fn channel(connection: &Connection, id: ChannelId) -> rusqlite::Result<Option<(i64, Extent)>> {
    connection
        .prepare_cached("SELECT channel, purged_seq, last_seq FROM channels WHERE channel_id = ?1")?
        .query_row([id.0], |row| Ok((row.get(0)?, Extent { purged_seq: seq(row, 1)?, last_seq: seq(row, 2)? })))
        .optional()
}

fn remove(
    connection: &Connection,
    id: ChannelId,
    through: Seq,
    limit: usize,
    known_since: i64,
) -> rusqlite::Result<Removed> {
    let nothing = |purged_seq| Removed { purged_seq, entries: 0, indexed: 0, is_done: true };
    let Some((key, Extent { purged_seq, last_seq })) = channel(connection, id)? else { return Ok(nothing(0)) };
    let through = through.min(last_seq);
    if through <= purged_seq {
        return Ok(nothing(purged_seq));
    }
    let end = through.min(purged_seq.saturating_add(limit.max(1) as Seq));
    let range = (key, purged_seq as i64, end as i64);
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO purged_sends (channel_id, client_id, sender, seq, at)
             SELECT ?4, client_id, sender, seq, at FROM messages
             WHERE channel = ?1 AND seq > ?2 AND seq <= ?3 AND at >= ?5",
        )?
        .execute(params![range.0, range.1, range.2, id.0, known_since])?;
    connection.prepare_cached("DELETE FROM purged_sends WHERE at < ?1")?.execute([known_since])?;
    let indexed = forget_indexed(connection, range)?;
    let entries = connection
        .prepare_cached("DELETE FROM messages WHERE channel = ?1 AND seq > ?2 AND seq <= ?3")?
        .execute(range)?;
    connection
        .prepare_cached("UPDATE channels SET purged_seq = max(purged_seq, ?2) WHERE channel = ?1")?
        .execute((key, end as i64))?;
    Ok(Removed { purged_seq: end, entries: entries as u64, indexed, is_done: end == through })
}

/// The seq of a send whose entry is purged.
pub(super) fn find_purged(
    connection: &Connection,
    channel: ChannelId,
    sender: &Username,
    client_id: Uuid,
) -> rusqlite::Result<Option<Seq>> {
    connection
        .prepare_cached("SELECT seq FROM purged_sends WHERE channel_id = ?1 AND client_id = ?2 AND sender = ?3")?
        .query_row(params![channel.0, client_id, sender.as_str()], |row| seq(row, 0))
        .optional()
}
