//! What the table in use has, compared with the messages beside it.

use std::collections::HashMap;

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::rebuild::LIVE;
use super::{Fts5Search, recovery};
use crate::message::{ChannelId, Kind, Millis};
use crate::server::queue::{Family, IndexRange, Task};
use crate::server::search::SearchError;
use crate::server::search::audit::{Differences, Entry, IndexAudit, IndexStep, Slice, Stray};
use crate::server::sqlite::{Admission, DbError};
use crate::server::store::{sqlite_columns as columns, sqlite_key as key};

/// Rows of the index in one step.
const STEP: i64 = 5_000;
/// Tasks that are looked into, at most.
const TASKS: usize = 1_000;
/// Entries that are counted, at most.
const COUNTED: i64 = 10_000;
/// Removals in one transaction.
const REMOVED: usize = 200;

#[async_trait]
impl IndexAudit for Fts5Search {
    /// Strays are found by [`walk`](IndexAudit::walk): a row of the index names a position, not a channel.
    async fn compare(&self, slices: Vec<Slice>) -> Result<Differences, SearchError> {
        let read = self.database.read(move |connection| {
            let mut missing = Vec::new();
            for Slice { channel, after, through, entries } in slices {
                let Some(key) = key(connection, channel)? else { continue };
                let mut absent = connection.prepare_cached(&format!(
                    "SELECT m.seq FROM messages m WHERE m.channel = ?1 AND m.seq > ?2 AND m.seq <= ?3
                       AND m.kind = ?4 AND m.deleted_at IS NULL
                       AND NOT EXISTS (SELECT 1 FROM {LIVE}_docsize d WHERE d.id = m.position) ORDER BY m.seq"
                ))?;
                let bound = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
                let values = params![key, bound(after), bound(through), columns::kind_name(Kind::Text)];
                let seqs = absent.query_map(values, |row| columns::seq(row, 0))?;
                for seq in seqs {
                    let seq = seq?;
                    // What came since is not asked for.
                    if let Ok(index) = entries.binary_search_by_key(&seq, |(seq, _)| *seq) {
                        missing.push(Entry { channel, seq, id: entries[index].1 });
                    }
                }
            }
            Ok(Differences { missing, strays: Vec::new() })
        });
        read.await.map_err(unavailable)
    }

    async fn walk(&self, after: Option<String>) -> Result<IndexStep, SearchError> {
        let after = after.and_then(|after| after.parse().ok()).unwrap_or(i64::MIN);
        let read = self.database.read(move |connection| {
            let mut rows = connection.prepare_cached(&format!(
                "SELECT d.id, m.position IS NOT NULL AND m.kind = ?3 AND m.deleted_at IS NULL
                 FROM (SELECT id FROM {LIVE}_docsize WHERE id > ?1 ORDER BY id LIMIT ?2) d
                 LEFT JOIN messages m ON m.position = d.id ORDER BY d.id"
            ))?;
            let mut rows = rows.query(params![after, STEP, columns::kind_name(Kind::Text)])?;
            let (mut step, mut count, mut last) = (IndexStep::default(), 0, None);
            while let Some(row) = rows.next()? {
                count += 1;
                let position: i64 = row.get(0)?;
                if !row.get::<_, bool>(1)? {
                    step.strays.push(Stray { document: position.to_string(), channel: None, seq: None });
                }
                last = Some(position.to_string());
            }
            step.rest = last.filter(|_| count == STEP);
            Ok(step)
        });
        read.await.map_err(unavailable)
    }

    async fn missing(&self, entries: Vec<Entry>) -> Result<Vec<Entry>, SearchError> {
        let read = self.database.read(move |connection| {
            let mut indexed = connection.prepare_cached(&format!(
                "SELECT 1 FROM channels c CROSS JOIN messages m USING (channel)
                 WHERE c.channel_id = ?1 AND m.seq = ?2
                   AND EXISTS (SELECT 1 FROM {LIVE}_docsize d WHERE d.id = m.position)"
            ))?;
            let mut missing = Vec::new();
            for entry in entries {
                if !indexed.exists(params![entry.channel.0, entry.seq as i64])? {
                    missing.push(entry);
                }
            }
            Ok(missing)
        });
        read.await.map_err(unavailable)
    }

    async fn under_way(&self, entries: &[Entry]) -> Result<Option<Vec<Entry>>, SearchError> {
        let read = self.database.read(|connection| {
            let mut tasks = connection.prepare_cached("SELECT payload FROM tasks WHERE family = ?1 LIMIT ?2")?;
            let family = Family::IndexTasks.as_str();
            let payloads = tasks.query_map(params![family, TASKS as i64 + 1], |row| row.get::<_, Vec<u8>>(0))?;
            payloads.collect::<rusqlite::Result<Vec<_>>>()
        });
        let payloads = read.await.map_err(unavailable)?;
        if payloads.len() > TASKS {
            return Ok(None);
        }
        let mut ranges: HashMap<ChannelId, Vec<IndexRange>> = HashMap::new();
        for payload in &payloads {
            // What can't be read indexes nothing.
            if let Ok(Task::Index(task)) = Task::decode(payload) {
                task.ranges.into_iter().for_each(|range| ranges.entry(range.channel).or_default().push(range));
            }
        }
        let waits = |entry: &&Entry| {
            let mut of_channel = ranges.get(&entry.channel).into_iter().flatten();
            of_channel.any(|range| (range.first..=range.last).contains(&entry.seq))
        };
        Ok(Some(entries.iter().filter(waits).copied().collect()))
    }

    async fn present(&self, strays: Vec<Stray>) -> Result<Vec<Stray>, SearchError> {
        let read = self.database.read(move |connection| {
            let mut stray = connection.prepare_cached(&format!(
                "SELECT 1 FROM {LIVE}_docsize d WHERE d.id = ?1 AND NOT EXISTS (
                    SELECT 1 FROM messages m WHERE m.position = d.id AND m.kind = ?2 AND m.deleted_at IS NULL)"
            ))?;
            let mut present = Vec::new();
            for one in strays {
                let position: i64 = one.document.parse().unwrap_or(i64::MIN);
                if stray.exists(params![position, columns::kind_name(Kind::Text)])? {
                    present.push(one);
                }
            }
            Ok(present)
        });
        read.await.map_err(unavailable)
    }

    async fn lag(&self) -> Result<(u64, Option<Millis>), SearchError> {
        let read = self.database.read(|connection| {
            let mut waiting = connection.prepare_cached(&format!(
                "SELECT count(*), min(at) FROM (
                    SELECT m.at FROM messages m WHERE m.position > ?1 AND m.kind = ?2 AND m.deleted_at IS NULL
                      AND NOT EXISTS (SELECT 1 FROM {LIVE}_docsize d WHERE d.id = m.position) LIMIT ?3)"
            ))?;
            let values = params![recovery::complete_to(connection)?, columns::kind_name(Kind::Text), COUNTED];
            waiting
                .query_row(values, |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, Option<i64>>(1)?.map(Millis))))
        });
        read.await.map_err(unavailable)
    }

    /// To remove a row, the index must be told the words that it was made of. Where the message is there they are
    /// read from it. Where it is gone they stay: only an index that is built anew is without them.
    async fn remove(&self, strays: Vec<Stray>) -> Result<(), SearchError> {
        for strays in strays.chunks(REMOVED) {
            let positions: Vec<i64> = strays.iter().filter_map(|stray| stray.document.parse().ok()).collect();
            let removed = self.database.write_as(Admission::Internal, move |connection| {
                positions.iter().try_for_each(|position| remove(connection, *position))
            });
            removed.await.map_err(unavailable)?;
        }
        Ok(())
    }
}

/// <https://sqlite.org/fts5.html#the_delete_command>
fn remove(connection: &Connection, position: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&format!(
            "INSERT INTO {LIVE} ({LIVE}, rowid, body, channel)
             SELECT 'delete', m.position, m.body, m.channel FROM messages m
             WHERE m.position = ?1 AND (m.kind <> ?2 OR m.deleted_at IS NOT NULL)
               AND EXISTS (SELECT 1 FROM {LIVE}_docsize d WHERE d.id = m.position)"
        ))?
        .execute(params![position, columns::kind_name(Kind::Text)])
        .map(drop)
}

fn unavailable(error: DbError) -> SearchError {
    SearchError::Unavailable(error.to_string())
}
