mod audit;
mod rebuild;
mod recovery;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, params, params_from_iter};

use super::html::{self, Marks};
use super::{FACET_SIZE, Query, Search, SearchError, SearchIndex, query};
use crate::message::{ChannelId, Kind, Message, Millis, Seq, Username};
use crate::server::queue::IndexRange;
use crate::server::sqlite::{Admission, Database, DbError};
use crate::server::store::{sqlite_columns as columns, sqlite_key as key};
use crate::wire::frame::{ChannelCount, Facets, Hit, SearchPage, SenderCount};

/// SQLite instructions between two looks at the clock.
const CLOCK_EVERY: std::ffi::c_int = 10_000;

/// The embedded index.
#[derive(Clone)]
pub struct Fts5Search {
    database: Database,
    timeout: Duration,
    total_cap: u64,
}

impl Fts5Search {
    /// A search is given up after `timeout`; hits are counted up to `total_cap`.
    pub fn new(database: Database, timeout: Duration, total_cap: u64) -> Self {
        Self { database, timeout, total_cap }
    }
}

#[async_trait]
impl SearchIndex for Fts5Search {
    async fn index(&self, messages: Vec<Message>) -> Result<(), SearchError> {
        let one = |message: &Message| IndexRange { channel: message.channel, first: message.seq, last: message.seq };
        self.index_stored(messages.iter().map(one).collect()).await.map(drop)
    }

    async fn index_stored(&self, ranges: Vec<IndexRange>) -> Result<bool, SearchError> {
        let written = self.database.write_as(Admission::Relaxed, move |connection| {
            let ranges = as_json(&keyed(connection, &ranges)?);
            insert(connection, "messages_fts", &ranges)?;
            if rebuild::exists(connection, rebuild::NEXT)? {
                insert(connection, rebuild::NEXT, &ranges)?;
            }
            Ok(true)
        });
        written.await.map_err(|error| SearchError::Unavailable(error.to_string()))
    }

    async fn count(&self, entries: IndexRange) -> Result<u64, SearchError> {
        let counted = self.database.read(move |connection| {
            let Some(key) = key(connection, entries.channel)? else { return Ok(0) };
            count_indexed(connection, (key, entries.first.saturating_sub(1) as i64, entries.last as i64))
        });
        counted.await.map_err(|error| SearchError::Unavailable(error.to_string()))
    }

    /// Each is a transaction's, and these begin some milliseconds apart: with few entries in each, the index couldn't
    /// keep up with what is stored. They hold up the writer for about as long as that.
    fn page(&self) -> usize {
        500
    }
}

/// Indexes stored entries in a table, unless they are.
///
/// One statement for all, in ascending order: FTS5 writes out what it has in memory at the end of a statement, and before
/// a row that comes before the last one. A row twice would be counted twice: the index has no primary key, its size table
/// has.
fn insert(connection: &Connection, table: &str, ranges: &str) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT INTO {table} (rowid, body, channel)
         SELECT m.position, m.body, m.channel FROM json_each(?1) range CROSS JOIN messages m
         WHERE m.channel = range.value ->> 0 AND m.seq BETWEEN range.value ->> 1 AND range.value ->> 2
           AND m.kind = ?2 AND m.deleted_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM {table}_docsize d WHERE d.id = m.position)
         ORDER BY m.position"
    );
    connection.prepare_cached(&sql)?.execute(params![ranges, columns::kind_name(Kind::Text)]).map(drop)
}

/// Takes stored entries out of the index, and out of those that are kept beside it: of the channel with this local key,
/// above the first seq, up to the second. To be called before they are removed, in the same transaction: the index reads
/// there which words were theirs. How many were in the index in use.
pub(crate) fn forget_indexed(connection: &Connection, range: (i64, i64, i64)) -> rusqlite::Result<u64> {
    let indexed = count_indexed(connection, range)?;
    for table in [rebuild::LIVE, rebuild::NEXT, rebuild::FORMER] {
        if !rebuild::exists(connection, table)? {
            continue;
        }
        // https://sqlite.org/fts5.html#the_delete_command
        let delete = format!(
            "INSERT INTO {table} ({table}, rowid, body, channel)
             SELECT 'delete', m.position, m.body, m.channel FROM messages m
             WHERE m.channel = ?1 AND m.seq > ?2 AND m.seq <= ?3
               AND EXISTS (SELECT 1 FROM {table}_docsize d WHERE d.id = m.position)
             ORDER BY m.position"
        );
        connection.prepare_cached(&delete)?.execute(range)?;
    }
    Ok(indexed)
}

/// How many of these are in the index in use.
fn count_indexed(connection: &Connection, range: (i64, i64, i64)) -> rusqlite::Result<u64> {
    let count: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM messages m WHERE m.channel = ?1 AND m.seq > ?2 AND m.seq <= ?3
               AND EXISTS (SELECT 1 FROM messages_fts_docsize d WHERE d.id = m.position)",
        )?
        .query_row(range, |row| row.get(0))?;
    Ok(count as u64)
}

/// The ranges with the channels' local keys, none overlapping another; without those of channels that aren't there.
fn keyed(connection: &Connection, ranges: &[IndexRange]) -> rusqlite::Result<Vec<(i64, Seq, Seq)>> {
    let mut keyed = Vec::with_capacity(ranges.len());
    for IndexRange { channel, first, last } in ranges {
        if let Some(key) = key(connection, *channel)? {
            keyed.push((key, *first, *last));
        }
    }
    keyed.sort_unstable();
    keyed.dedup_by(|next, range| {
        let overlap = next.0 == range.0 && next.1 <= range.2;
        if overlap {
            range.2 = range.2.max(next.2);
        }
        overlap
    });
    Ok(keyed)
}

/// Numbers alone: nothing in them needs escaping.
fn as_json(ranges: &[(i64, Seq, Seq)]) -> String {
    let ranges: Vec<String> = ranges.iter().map(|(key, first, last)| format!("[{key},{first},{last}]")).collect();
    format!("[{}]", ranges.join(","))
}

#[async_trait]
impl Search for Fts5Search {
    async fn search(&self, searcher: &Username, query: Query) -> Result<SearchPage, SearchError> {
        let expression = query::fts5(&query::terms(&query.text)?);
        let below = query.cursor.as_deref().map(decode_cursor).transpose()?.unwrap_or(i64::MAX);
        let (searcher, timeout, cap) = (searcher.clone(), self.timeout, self.total_cap);
        let found = self.database.read(move |connection| {
            let deadline = Instant::now() + timeout;
            connection.progress_handler(CLOCK_EVERY, Some(move || Instant::now() > deadline))?;
            let found = search(connection, &searcher, &query, &expression, below, cap);
            connection.progress_handler(0, None::<fn() -> bool>)?;
            match found {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                    Ok(Err(SearchError::TooSlow))
                }
                other => other,
            }
        });
        found.await.unwrap_or_else(|error: DbError| Err(SearchError::Unavailable(error.to_string())))
    }
}

fn search(
    connection: &Connection,
    searcher: &Username,
    query: &Query,
    expression: &str,
    below: i64,
    cap: u64,
) -> rusqlite::Result<Result<SearchPage, SearchError>> {
    let keys = channels(connection, searcher, query.channel)?;
    if keys.is_empty() {
        return Ok(match query.channel {
            Some(_) => Err(SearchError::NotAMember),
            None => Ok(SearchPage { facets: query.facets.then(Facets::default), ..SearchPage::default() }),
        });
    }
    let keys: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
    let matching = format!("body : ({expression}) AND channel : ({})", keys.join(" OR "));

    let mut filters = String::new();
    let mut values = vec![Value::from(matching)];
    let mut filter = |condition: &str, value: Value| {
        values.push(value);
        filters.push_str(&format!(" AND {condition} ?{}", values.len()));
    };
    if let Some(from) = &query.from {
        filter("m.sender =", from.as_str().to_owned().into());
    }
    if let Some(before) = query.before {
        filter("m.at <", before.0.into());
    }
    if let Some(after) = query.after {
        filter("m.at >", after.0.into());
    }
    let joined = "FROM messages_fts f JOIN messages m ON m.position = f.rowid
                  WHERE messages_fts MATCH ?1 AND m.deleted_at IS NULL";

    let total: i64 = connection
        .prepare_cached(&format!("SELECT count(*) FROM (SELECT 1 {joined}{filters} LIMIT {cap})"))?
        .query_row(params_from_iter(&values), |row| row.get(0))?;
    let facets = match query.facets {
        true => Some(facets(connection, &format!("{joined}{filters}"), &values, cap)?),
        false => None,
    };

    let limit = query.limit;
    if limit == 0 {
        return Ok(Ok(SearchPage { hits: Vec::new(), total: total as u64, cursor: None, facets }));
    }
    let marks = Marks::new();
    values.extend([below.into(), marks.open.clone().into(), marks.close.clone().into()]);
    let (below, open, close) = (values.len() - 2, values.len() - 1, values.len());
    let sql = format!(
        "SELECT m.position, c.channel_id, m.seq, m.id, m.sender, m.at, m.body,
                highlight(messages_fts, 0, ?{open}, ?{close})
         {} {filters} AND f.rowid < ?{below} ORDER BY f.rowid DESC LIMIT {}",
        joined.replace("WHERE", "JOIN channels c ON c.channel = m.channel WHERE"),
        i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(&values), |row| {
        let body: String = row.get(6)?;
        let highlight = if body.contains('\0') {
            // FTS5 ends a text at its first NUL: better no marks than half a message.
            html::escaped(&body)
        } else {
            marks.to_html(&row.get::<_, String>(7)?)
        };
        let hit = Hit {
            channel: ChannelId(row.get(1)?),
            seq: columns::seq(row, 2)?,
            id: row.get(3)?,
            sender: columns::username(row, 4)?,
            at: Millis(row.get(5)?),
            body,
            highlight,
        };
        Ok((row.get::<_, i64>(0)?, hit))
    })?;
    let mut found = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = found.len() > limit;
    found.truncate(limit);
    let cursor = found.last().filter(|_| more).map(|(position, _)| encode_cursor(*position));
    let hits = found.into_iter().map(|(_, hit)| hit).collect();
    Ok(Ok(SearchPage { hits, total: total as u64, cursor, facets }))
}

/// Counts of the newest `cap` matches.
fn facets(connection: &Connection, matching: &str, values: &[Value], cap: u64) -> rusqlite::Result<Facets> {
    let counted = |key: &str, by: &str| {
        format!(
            "SELECT {by}, count(*) FROM (SELECT {key} AS key {matching} ORDER BY f.rowid DESC LIMIT {cap})
             {} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {FACET_SIZE}",
            if by == "key" { "" } else { "JOIN channels c ON c.channel = key" }
        )
    };
    let mut by_channel = connection.prepare_cached(&counted("m.channel", "c.channel_id"))?;
    let channels = by_channel.query_map(params_from_iter(values), |row| {
        Ok(ChannelCount { channel: ChannelId(row.get(0)?), count: row.get::<_, i64>(1)? as u64 })
    })?;
    let mut by_sender = connection.prepare_cached(&counted("m.sender", "key"))?;
    let senders = by_sender.query_map(params_from_iter(values), |row| {
        Ok(SenderCount { username: columns::username(row, 0)?, count: row.get::<_, i64>(1)? as u64 })
    })?;
    Ok(Facets { channels: channels.collect::<Result<_, _>>()?, senders: senders.collect::<Result<_, _>>()? })
}

/// The local keys of the searcher's channels, or of the one asked for if it is among them.
fn channels(connection: &Connection, searcher: &Username, only: Option<ChannelId>) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare_cached(
        "SELECT b.channel FROM channels_by_username b JOIN channels c USING (channel)
         WHERE b.username = ?1 AND (?2 IS NULL OR c.channel_id = ?2)",
    )?;
    let rows = statement.query_map(params![searcher.as_str(), only.map(|id| id.0)], |row| row.get(0))?;
    rows.collect()
}

fn encode_cursor(position: i64) -> String {
    URL_SAFE_NO_PAD.encode(position.to_be_bytes())
}

fn decode_cursor(cursor: &str) -> Result<i64, SearchError> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    bytes.map(i64::from_be_bytes).ok_or_else(|| SearchError::Invalid("this cursor is none of ours".into()))
}
