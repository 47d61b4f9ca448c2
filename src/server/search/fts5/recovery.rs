//! What was stored, and not indexed when the process died.
//!
//! A message that is handed over in memory has no task that would be delivered again: between its storing and its index
//! task a crash leaves an entry that nobody would index. So it is noted from time to time up to which position everything
//! is indexed, and a start looks at what comes behind that.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};

use super::Fts5Search;
use crate::message::{ChannelId, Kind};
use crate::server::queue::IndexRange;
use crate::server::search::{SearchError, SearchIndex as _};
use crate::server::sqlite::{Admission, DbError};
use crate::server::store::sqlite_columns as columns;

/// Where the note is kept.
const NOTE: &str = "index.complete_to";
/// Between two notes: what comes in that time is looked through at the next start, and in each of them.
const INTERVAL: Duration = Duration::from_secs(10);
/// The pause after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// Entries in one transaction, at most.
const PAGE: usize = 500;

impl Fts5Search {
    /// Indexes what an earlier process left behind, and keeps the note. What is missing for long is looked for again.
    /// Runs until dropped.
    pub async fn recover(self) {
        loop {
            match self.index_the_missed().await {
                Ok(found) => {
                    if found > 0 {
                        tracing::info!(found, "messages that were stored and not indexed are indexed now");
                    }
                    break;
                }
                Err(error) => tracing::warn!(%error, "what is not indexed can't be looked for yet"),
            }
            tokio::time::sleep(AGAIN).await;
        }
        let mut stuck_at = None;
        loop {
            match self.note_progress().await {
                // An indexer that is only slow would have come by: its task is lost.
                Ok(first_missed) if first_missed.is_some() && first_missed == stuck_at => {
                    if let Err(error) = self.index_the_missed().await {
                        tracing::warn!(%error, "what is not indexed can't be looked for yet");
                    }
                }
                Ok(first_missed) => stuck_at = first_missed,
                Err(error) => tracing::debug!(%error, "how far the index is complete can't be noted"),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Indexes what is stored and was not indexed by the time of the call; how many that were.
    ///
    /// Errors: [`SearchError::Unavailable`]; what was indexed until then stays.
    pub async fn index_the_missed(&self) -> Result<usize, SearchError> {
        let database = &self.database;
        let (mut after, end) = database
            .read(|connection| Ok((complete_to(connection)?, newest(connection)?)))
            .await
            .map_err(unavailable)?;
        let mut found = 0;
        loop {
            // Looked for beside the writer: there may be few among many.
            let missed = database.read(move |connection| missed(connection, after, end, PAGE)).await;
            let missed = missed.map_err(unavailable)?;
            let Some(last) = missed.last() else { return Ok(found) };
            after = last.position;
            found += missed.len();
            let mut ranges = Vec::new();
            missed.into_iter().for_each(|Missed { entry, .. }| IndexRange::append(&mut ranges, entry));
            self.index_stored(ranges).await?;
        }
    }

    /// Notes up to which position everything is indexed. The first that is not.
    async fn note_progress(&self) -> Result<Option<i64>, DbError> {
        let progress = self.database.read(|connection| {
            let (noted, newest) = (complete_to(connection)?, newest(connection)?);
            let first_missed = missed(connection, noted, newest, 1)?.first().map(|missed| missed.position);
            let complete = first_missed.map_or(newest, |missed| missed - 1);
            Ok((first_missed, (complete > noted).then_some(complete)))
        });
        let (first_missed, complete) = progress.await?;
        let Some(complete) = complete else { return Ok(first_missed) };
        let noted = self.database.write_as(Admission::Relaxed, move |connection| note(connection, NOTE, complete));
        noted.await?;
        Ok(first_missed)
    }
}

fn unavailable(error: DbError) -> SearchError {
    SearchError::Unavailable(error.to_string())
}

/// Up to where everything is indexed; 0 where nothing was ever noted.
pub(super) fn complete_to(connection: &Connection) -> rusqlite::Result<i64> {
    noted(connection, NOTE)
}

/// Has everything behind it looked for again.
pub(super) fn doubt(connection: &Connection, complete_to: i64) -> rusqlite::Result<()> {
    note(connection, NOTE, complete_to)
}

pub(super) fn noted(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    let noted: Option<String> = connection
        .prepare_cached("SELECT value FROM settings WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(noted.and_then(|noted| noted.parse().ok()).unwrap_or(0))
}

pub(super) fn note(connection: &Connection, name: &str, position: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )?
        .execute((name, position.to_string()))
        .map(drop)
}

pub(super) fn newest(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT coalesce(max(position), 0) FROM messages")?.query_row([], |row| row.get(0))
}

/// A stored entry that is not indexed.
struct Missed {
    position: i64,
    entry: IndexRange,
}

/// The first of them, in the order of their positions.
fn missed(connection: &Connection, after: i64, end: i64, limit: usize) -> rusqlite::Result<Vec<Missed>> {
    let mut missed = connection.prepare_cached(
        "SELECT m.position, c.channel_id, m.seq FROM messages m CROSS JOIN channels c ON c.channel = m.channel
         WHERE m.position > ?1 AND m.position <= ?2 AND m.kind = ?3 AND m.deleted_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM messages_fts_docsize d WHERE d.id = m.position)
         ORDER BY m.position LIMIT ?4",
    )?;
    let rows = missed.query_map((after, end, columns::kind_name(Kind::Text), limit as i64), |row| {
        let (channel, seq) = (ChannelId(row.get(1)?), columns::seq(row, 2)?);
        Ok(Missed { position: row.get(0)?, entry: IndexRange { channel, first: seq, last: seq } })
    })?;
    rows.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::message::Username;
    use crate::server::sqlite::testing::TempDatabase;
    use crate::server::store::testing::{Owned, message};
    use crate::server::store::{SqliteStore, Store as _};

    async fn indexed(search: &Fts5Search) -> Vec<i64> {
        let read = search.database.read(|connection| {
            let mut ids = connection.prepare("SELECT id FROM messages_fts_docsize ORDER BY id")?;
            ids.query_map([], |row| row.get(0))?.collect()
        });
        read.await.unwrap()
    }

    #[tokio::test]
    async fn what_is_missed_is_found_and_the_note_never_runs_ahead_of_it() {
        let database = TempDatabase::new();
        let store = SqliteStore::new(database.database(), Duration::from_secs(60));
        let search = Fts5Search::new(database.database(), Duration::from_secs(5), 100);
        assert_eq!(search.index_the_missed().await.unwrap(), 0);
        assert_eq!(search.note_progress().await.unwrap(), None);

        // The entry that makes the channel has the first position, and is never indexed.
        let ada = Username::new("ada").unwrap();
        let mut channel = Owned::new();
        store.append(Arc::new(channel.creation(&[&ada]))).await.unwrap();
        let entries = (2..=10).map(|seq| message(channel.id, seq, &ada)).collect();
        store.append(Arc::new(channel.batch(entries))).await.unwrap();
        let range = |first, last| IndexRange { channel: channel.id, first, last };
        search.index_stored(vec![range(2, 4), range(8, 9)]).await.unwrap();

        assert_eq!(search.note_progress().await.unwrap(), Some(5));
        assert_eq!(database.database().read(|connection| complete_to(connection)).await.unwrap(), 4);
        assert_eq!(search.index_the_missed().await.unwrap(), 4);
        assert_eq!(indexed(&search).await, [2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(search.note_progress().await.unwrap(), None);
        assert_eq!(database.database().read(|connection| complete_to(connection)).await.unwrap(), 10);
        assert_eq!(search.index_the_missed().await.unwrap(), 0);
    }
}
