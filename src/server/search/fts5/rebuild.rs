//! The index of the embedded deployment, built anew in another table of the same file.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Fts5Search, recovery};
use crate::message::{ChannelId, Kind, Millis, Seq};
use crate::server::search::rebuild::{Comparison, Filled, Indexes, Mending, Rebuild, Walk};
use crate::server::search::{SearchError, words};
use crate::server::sqlite::{Admission, DbError};
use crate::server::store::sqlite_columns as columns;

/// The table in use.
pub(super) const LIVE: &str = "messages_fts";
pub(super) const NEXT: &str = "messages_fts_next";
pub(super) const FORMER: &str = "messages_fts_former";
/// Entries of one step, each a transaction: some ten milliseconds, in which nobody else writes.
const STEP: i64 = 1_000;
/// Entries that are named as different, at most.
const NAMED: usize = 100;
/// Up to where the former index was complete when it was replaced.
const FORMER_COMPLETE_TO: &str = "index.former_complete_to";

#[async_trait]
impl Rebuild for Fts5Search {
    async fn indexes(&self) -> Result<Indexes, SearchError> {
        let read = self.database.read(|connection| {
            let named = |name: &str| Ok::<_, rusqlite::Error>(exists(connection, name)?.then(|| name.to_owned()));
            Ok(Indexes { live: LIVE.to_owned(), next: named(NEXT)?, former: named(FORMER)? })
        });
        read.await.map_err(unavailable)
    }

    async fn begin(&self) -> Result<Vec<Walk>, SearchError> {
        self.write(|connection| {
            if !exists(connection, NEXT)? {
                make_like(connection, NEXT, LIVE)?;
            }
            // In the same transaction: whatever gets a higher position is indexed by who finds the table there.
            whole(connection)
        })
        .await
    }

    async fn walks(&self) -> Result<Vec<Walk>, SearchError> {
        self.database.read(|connection| whole(connection)).await.map_err(unavailable)
    }

    async fn fill(&self, walk: Walk) -> Result<Filled, SearchError> {
        self.step(walk, NEXT, None).await
    }

    async fn mend(&self, walk: Walk, since: Option<Millis>) -> Result<Filled, SearchError> {
        self.step(walk, LIVE, since).await
    }

    async fn compare(&self, expected: u64, sample: usize) -> Result<Comparison, SearchError> {
        let read = self.database.read(move |connection| {
            let found: i64 =
                connection.query_row(&format!("SELECT count(*) FROM {NEXT}_docsize"), [], |row| row.get(0))?;
            let mut different = missing(connection, recovery::complete_to(connection)?)?;
            let sampled = sampled(connection, sample, &mut different)?;
            Ok(Comparison { expected, found: found as u64, sampled, different })
        });
        read.await.map_err(unavailable)
    }

    async fn swap(&self) -> Result<(), SearchError> {
        let swapped = self.write(|connection| {
            if !exists(connection, NEXT)? {
                return Ok(false);
            }
            drop_table(connection, FORMER)?;
            rename(connection, LIVE, FORMER)?;
            rename(connection, NEXT, LIVE)?;
            let complete_to = recovery::complete_to(connection)?;
            recovery::note(connection, FORMER_COMPLETE_TO, complete_to)?;
            Ok(true)
        });
        let nothing = || SearchError::Invalid("no index is being built".into());
        swapped.await?.then_some(()).ok_or_else(nothing)
    }

    async fn roll_back(&self) -> Result<Mending, SearchError> {
        let rolled_back = self.write(|connection| {
            if !exists(connection, FORMER)? {
                return Ok(None);
            }
            let aside = "messages_fts_aside";
            rename(connection, LIVE, aside)?;
            rename(connection, FORMER, LIVE)?;
            rename(connection, aside, FORMER)?;
            let after = recovery::noted(connection, FORMER_COMPLETE_TO)?;
            let complete_to = recovery::complete_to(connection)?;
            recovery::note(connection, FORMER_COMPLETE_TO, complete_to)?;
            // A server finds what is missing by itself, should nobody mend it.
            recovery::doubt(connection, complete_to.min(after))?;
            let last = recovery::newest(connection)?;
            Ok(Some(Walk::Positions { first: after, after, last }))
        });
        let walk = rolled_back.await?.ok_or_else(|| SearchError::Invalid("there is no former index".into()))?;
        Ok(Mending { walks: vec![walk], since: None })
    }

    async fn abandon(&self) -> Result<(), SearchError> {
        self.write(|connection| drop_table(connection, NEXT)).await
    }

    async fn drop_former(&self) -> Result<(), SearchError> {
        self.write(|connection| drop_table(connection, FORMER)).await
    }
}

impl Fts5Search {
    async fn write<T: Send + 'static>(
        &self,
        write: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SearchError> {
        self.database.write_as(Admission::Internal, write).await.map_err(unavailable)
    }

    async fn step(&self, walk: Walk, table: &'static str, since: Option<Millis>) -> Result<Filled, SearchError> {
        let Walk::Positions { first, after, last } = walk else {
            return Err(SearchError::Invalid("this walk is one of another deployment".into()));
        };
        let since = since.map_or(i64::MIN, |since| since.0);
        let (end, entries) = self.write(move |connection| index_from(connection, table, (after, last), since)).await?;
        let rest = end.map(|after| Walk::Positions { first, after, last });
        Ok(Filled { rest, entries, rejected: Vec::new() })
    }
}

/// Indexes the next entries of a range that are not; where it ended, unless that is the range's end, and how many of
/// them are to be in the index.
fn index_from(
    connection: &Connection,
    table: &str,
    (after, last): (i64, i64),
    since: i64,
) -> rusqlite::Result<(Option<i64>, u64)> {
    let text = columns::kind_name(Kind::Text);
    let (end, seen, entries): (Option<i64>, i64, i64) = connection
        .prepare_cached(
            "SELECT max(position), count(*), count(*) FILTER (WHERE kind = ?3 AND deleted_at IS NULL AND at >= ?4)
             FROM (SELECT position, kind, deleted_at, at FROM messages
                   WHERE position > ?1 AND position <= ?2 ORDER BY position LIMIT ?5)",
        )?
        .query_row(params![after, last, text, since, STEP], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let Some(end) = end else { return Ok((None, 0)) };
    connection
        .prepare_cached(&format!(
            "INSERT INTO {table} (rowid, body, channel)
             SELECT m.position, m.body, m.channel FROM messages m
             WHERE m.position > ?1 AND m.position <= ?2 AND m.kind = ?3 AND m.deleted_at IS NULL AND m.at >= ?4
               AND NOT EXISTS (SELECT 1 FROM {table}_docsize d WHERE d.id = m.position)
             ORDER BY m.position"
        ))?
        .execute(params![after, end, text, since])?;
    Ok(((seen == STEP).then_some(end), entries as u64))
}

/// Entries that it has not, though the index in use was once seen to have them: the first of them.
fn missing(connection: &Connection, complete_to: i64) -> rusqlite::Result<Vec<(ChannelId, Seq)>> {
    let mut missing = connection.prepare(&format!(
        "SELECT c.channel_id, m.seq FROM messages m CROSS JOIN channels c ON c.channel = m.channel
         WHERE m.position <= ?1 AND m.kind = ?2 AND m.deleted_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM {NEXT}_docsize d WHERE d.id = m.position)
         ORDER BY m.position LIMIT {NAMED}"
    ))?;
    let rows = missing.query_map(params![complete_to, columns::kind_name(Kind::Text)], |row| {
        Ok((ChannelId(row.get(0)?), columns::seq(row, 1)?))
    })?;
    rows.collect()
}

/// Whether entries from all over it are found by their first word. How many were looked for.
fn sampled(connection: &Connection, sample: usize, different: &mut Vec<(ChannelId, Seq)>) -> rusqlite::Result<u64> {
    let last: Option<i64> =
        connection.query_row(&format!("SELECT max(id) FROM {NEXT}_docsize"), [], |row| row.get(0))?;
    let mut entry = connection.prepare(&format!(
        "SELECT m.position, c.channel_id, m.seq, m.body
         FROM {NEXT}_docsize d CROSS JOIN messages m ON m.position = d.id CROSS JOIN channels c ON c.channel = m.channel
         WHERE d.id >= ?1 AND m.deleted_at IS NULL ORDER BY d.id LIMIT 1"
    ))?;
    let mut search = connection.prepare(&format!("SELECT 1 FROM {NEXT} WHERE {NEXT} MATCH ?1 AND rowid = ?2"))?;
    let (mut sampled, mut before) = (0, None);
    for n in 0..sample as i128 {
        let from = (i128::from(last.unwrap_or(0)) * (n + 1) / sample as i128) as i64;
        let row = entry.query_row([from], |row| {
            let place = (ChannelId(row.get(1)?), columns::seq(row, 2)?);
            Ok((row.get::<_, i64>(0)?, place, row.get::<_, String>(3)?))
        });
        let Some((position, place, body)) = row.optional()? else { break };
        // There are fewer than were asked for.
        if before.replace(position) == Some(position) {
            continue;
        }
        // What follows a NUL is not indexed.
        let text = body.split('\0').next().unwrap_or_default();
        let Some(word) = words::split(text).into_iter().next() else { continue };
        sampled += 1;
        if !search.exists(params![format!("body : \"{}\"", word.folded), position])? {
            different.push(place);
        }
    }
    Ok(sampled)
}

fn whole(connection: &Connection) -> rusqlite::Result<Vec<Walk>> {
    let last = recovery::newest(connection)?;
    Ok(vec![Walk::Positions { first: 0, after: 0, last }])
}

/// Whether there is a table of this name.
pub(super) fn exists(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")?.exists([name])
}

/// By the same definition, whatever that is by now.
fn make_like(connection: &Connection, new: &str, like: &str) -> rusqlite::Result<()> {
    let definition: String = connection
        .prepare_cached("SELECT substr(sql, instr(sql, 'USING')) FROM sqlite_schema WHERE name = ?1")?
        .query_row([like], |row| row.get(0))?;
    connection.execute_batch(&format!("CREATE VIRTUAL TABLE {new} {definition}"))
}

fn rename(connection: &Connection, from: &str, to: &str) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}"))
}

fn drop_table(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("DROP TABLE IF EXISTS {name}"))
}

fn unavailable(error: DbError) -> SearchError {
    SearchError::Unavailable(error.to_string())
}
