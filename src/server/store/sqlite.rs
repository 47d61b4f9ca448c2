mod audit;
pub(crate) mod columns;
mod purge;
mod scan;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use self::columns::{channel_kind_name, kind, kind_name, kind_of_channel, role, role_name, seq, username};
use super::{
    ChannelBatch, ChannelState, Earlier, LISTED_MEMBERS, Member, Membership, NewChannel, Page, Refused, Store,
    StoreError,
};
use crate::message::{ChannelId, ChannelKind, Message, Millis, Role, Seq, Username};
use crate::server::sqlite::{Database, DbError};
use crate::wire::ErrorCode;
use crate::wire::frame::ChannelInfo;

/// The embedded store.
#[derive(Clone)]
pub struct SqliteStore {
    database: Database,
    dedup_ttl: Duration,
}

impl SqliteStore {
    /// Refusals are remembered for `dedup_ttl`, stored sends for ever.
    pub fn new(database: Database, dedup_ttl: Duration) -> Self {
        Self { database, dedup_ttl }
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.database.read(read).await.map_err(unavailable)
    }
}

fn unavailable(error: DbError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// The local key of a channel.
pub(crate) fn key(connection: &Connection, id: ChannelId) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT channel FROM channels WHERE channel_id = ?1")?
        .query_row([id.0], |row| row.get(0))
        .optional()
}

#[async_trait]
impl Store for SqliteStore {
    async fn channel(&self, id: ChannelId) -> Result<Option<ChannelState>, StoreError> {
        // One picture: a batch that comes between the head and the members must not tear them apart.
        self.read(move |connection| {
            let snapshot = connection.transaction()?;
            read_channel(&snapshot, id)
        })
        .await
    }

    async fn append(&self, batch: Arc<ChannelBatch>) -> Result<(), StoreError> {
        let channel = batch.channel;
        let kept_ms = i64::try_from(self.dedup_ttl.as_millis()).unwrap_or(i64::MAX);
        let write = move |connection: &Connection| append(connection, &batch, kept_ms);
        let stored = self.database.write(write).await.map_err(unavailable)?;
        if stored { Ok(()) } else { Err(StoreError::Conflict(channel)) }
    }

    async fn find_sends(
        &self,
        id: ChannelId,
        sends: Vec<(Username, Uuid)>,
    ) -> Result<Vec<Option<Earlier>>, StoreError> {
        self.read(move |connection| {
            let key = key(connection, id)?;
            let find = |(sender, client_id): &(Username, Uuid)| {
                let stored = key.map(|key| find_send(connection, key, sender, *client_id)).transpose()?.flatten();
                let seq = match stored {
                    Some(seq) => Some(seq),
                    None => purge::find_purged(connection, id, sender, *client_id)?,
                };
                match seq {
                    Some(seq) => Ok(Some(Earlier::Stored(seq))),
                    None => find_refusal(connection, id, sender, *client_id),
                }
            };
            sends.iter().map(find).collect()
        })
        .await
    }

    async fn messages(&self, id: ChannelId, page: Page, limit: usize) -> Result<Vec<Message>, StoreError> {
        self.read(move |connection| {
            let Some(key) = key(connection, id)? else { return Ok(Vec::new()) };
            read_messages(connection, id, key, page, limit)
        })
        .await
    }

    async fn role(&self, id: ChannelId, user: &Username) -> Result<Option<(ChannelKind, Role)>, StoreError> {
        let user = user.clone();
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT c.kind, u.role FROM channels c JOIN users_by_channel u USING (channel)
                     WHERE c.channel_id = ?1 AND u.username = ?2",
                )?
                .query_row(params![id.0, user.as_str()], |row| Ok((kind_of_channel(row, 0)?, role(row, 1)?)))
                .optional()
        })
        .await
    }

    async fn channels_of(&self, user: &Username, offset: usize, limit: usize) -> Result<Vec<Membership>, StoreError> {
        let user = user.clone();
        self.read(move |connection| {
            let connection = connection.transaction()?;
            let mut memberships = connection.prepare_cached(
                "SELECT c.channel, c.channel_id, c.kind, c.name, c.last_seq, c.last_at,
                        u.delivered_seq, u.read_seq, c.delivered_by_all, c.read_by_all, c.purged_seq
                 FROM channels_by_username b
                 JOIN channels c USING (channel)
                 JOIN users_by_channel u ON u.channel = b.channel AND u.username = b.username
                 WHERE b.username = ?1 ORDER BY c.last_at DESC, c.channel DESC LIMIT ?2 OFFSET ?3",
            )?;
            let mut rows = memberships.query(params![user.as_str(), count(limit), count(offset)])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let key = row.get(0)?;
                let (members, member_count) = listed_members(&connection, key)?;
                found.push(Membership {
                    channel: ChannelInfo {
                        id: ChannelId(row.get(1)?),
                        kind: kind_of_channel(row, 2)?,
                        name: row.get(3)?,
                        members,
                        member_count,
                        last_seq: seq(row, 4)?,
                        purged_seq: seq(row, 10)?,
                    },
                    last_at: Millis(row.get(5)?),
                    delivered_seq: seq(row, 6)?,
                    read_seq: seq(row, 7)?,
                    delivered_by_all: seq(row, 8)?,
                    read_by_all: seq(row, 9)?,
                });
            }
            Ok(found)
        })
        .await
    }

    async fn memberships(&self, user: &Username) -> Result<Vec<ChannelId>, StoreError> {
        let user = user.clone();
        self.read(move |connection| {
            let mut ids = connection.prepare_cached(
                "SELECT c.channel_id FROM channels_by_username b JOIN channels c USING (channel) WHERE b.username = ?1",
            )?;
            ids.query_map([user.as_str()], |row| Ok(ChannelId(row.get(0)?)))?.collect()
        })
        .await
    }

    async fn channel_counts(&self, users: Vec<Username>) -> Result<Vec<usize>, StoreError> {
        self.read(move |connection| {
            let mut count =
                connection.prepare_cached("SELECT count(*) FROM channels_by_username WHERE username = ?1")?;
            users
                .iter()
                .map(|user| count.query_row([user.as_str()], |row| row.get::<_, i64>(0)).map(|n| n as usize))
                .collect()
        })
        .await
    }
}

fn read_channel(connection: &Connection, id: ChannelId) -> rusqlite::Result<Option<ChannelState>> {
    let head = connection
        .prepare_cached(
            "SELECT channel, kind, name, last_seq, delivered_by_all, read_by_all FROM channels WHERE channel_id = ?1",
        )?
        .query_row([id.0], |row| {
            let state = ChannelState {
                kind: kind_of_channel(row, 1)?,
                name: row.get(2)?,
                last_seq: seq(row, 3)?,
                members: BTreeMap::new(),
                delivered_by_all: seq(row, 4)?,
                read_by_all: seq(row, 5)?,
            };
            Ok((row.get::<_, i64>(0)?, state))
        })
        .optional()?;
    let Some((key, mut state)) = head else { return Ok(None) };
    let mut members = connection.prepare_cached(
        "SELECT username, role, joined_seq, delivered_seq, read_seq FROM users_by_channel WHERE channel = ?1",
    )?;
    let mut rows = members.query([key])?;
    while let Some(row) = rows.next()? {
        let member =
            Member { role: role(row, 1)?, joined_seq: seq(row, 2)?, delivered: seq(row, 3)?, read: seq(row, 4)? };
        state.members.insert(username(row, 0)?, member);
    }
    Ok(Some(state))
}

/// `false`, with nothing changed, if the log is not what the batch was made for.
fn append(connection: &Connection, batch: &ChannelBatch, kept_ms: i64) -> rusqlite::Result<bool> {
    let Some(Head { key, last_seq, purged_seq }) = head(connection, batch)? else {
        let only_refusals = batch.entries.is_empty() && batch.members.is_empty() && batch.departed.is_empty();
        if only_refusals {
            write_refusals(connection, batch, kept_ms)?;
        }
        return Ok(only_refusals && !batch.refused.is_empty());
    };
    if !is_dense(&batch.entries) || has_repeats(&batch.entries) {
        return Ok(false);
    }
    // Checked before anything is written, because a refusal must leave no trace in the shared transaction.
    for entry in &batch.entries {
        // What was purged since was the same, or its owner would have been told then.
        if entry.seq > purged_seq && !fits(connection, key, last_seq, entry)? {
            return Ok(false);
        }
    }
    let fresh = batch.entries.iter().filter(|entry| entry.seq > last_seq);
    if fresh.clone().next().is_some_and(|first| first.seq != last_seq + 1) {
        return Ok(false);
    }
    let is_news = key.is_none() || fresh.clone().next().is_some();
    let key = match key {
        Some(key) => key,
        None => match &batch.create {
            Some(create) => insert_channel(connection, batch, create)?,
            None => return Ok(false),
        },
    };
    let mut insert = connection.prepare_cached(
        "INSERT INTO messages (channel, seq, id, sender, client_id, kind, body, at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for entry in fresh {
        insert.execute(params![
            key,
            entry.seq as i64,
            entry.id,
            entry.sender.as_str(),
            entry.client_id,
            kind_name(entry.kind),
            entry.body,
            entry.at.0
        ])?;
    }
    let head_seq = batch.entries.last().map_or(last_seq, |entry| entry.seq);
    // The newest of all, not the last: it must not depend on how the entries were cut into batches.
    let head_at = batch.entries.iter().map(|entry| entry.at.0).max().unwrap_or(i64::MIN);
    connection
        .prepare_cached(
            "UPDATE channels SET last_seq = max(last_seq, ?2), last_at = max(last_at, ?3),
                    delivered_by_all = max(delivered_by_all, ?4), read_by_all = max(read_by_all, ?5)
             WHERE channel = ?1",
        )?
        .execute(params![key, head_seq as i64, head_at, batch.delivered_by_all as i64, batch.read_by_all as i64])?;
    if is_news {
        write_members(connection, key, batch)?;
    } else {
        raise_watermarks(connection, key, batch)?;
    }
    write_refusals(connection, batch, kept_ms)?;
    Ok(true)
}

fn write_refusals(connection: &Connection, batch: &ChannelBatch, kept_ms: i64) -> rusqlite::Result<()> {
    let Some(newest) = batch.refused.iter().map(|refused| refused.at.0).max() else { return Ok(()) };
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO refusals (channel_id, client_id, sender, code, at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for Refused { sender, client_id, code, at } in &batch.refused {
        insert.execute(params![batch.channel.0, client_id, sender.as_str(), code.map(ErrorCode::as_str), at.0])?;
    }
    let expired = newest.saturating_sub(kept_ms);
    connection.prepare_cached("DELETE FROM refusals WHERE at < ?1")?.execute([expired])?;
    Ok(())
}

fn find_refusal(
    connection: &Connection,
    channel: ChannelId,
    sender: &Username,
    client_id: Uuid,
) -> rusqlite::Result<Option<Earlier>> {
    let code = connection
        .prepare_cached("SELECT code FROM refusals WHERE channel_id = ?1 AND client_id = ?2 AND sender = ?3")?
        .query_row(params![channel.0, client_id, sender.as_str()], |row| row.get::<_, Option<String>>(0))
        .optional()?;
    // A code of a later version is as good as any: what matters is that it was refused.
    Ok(code.map(|code| Earlier::Refused(code.map(|code| code.parse().unwrap_or(ErrorCode::Conflict)))))
}

fn is_dense(entries: &[Arc<Message>]) -> bool {
    entries.first().is_none_or(|first| first.seq > 0)
        && entries.windows(2).all(|pair| pair[0].seq.checked_add(1) == Some(pair[1].seq))
}

/// Whether two of the entries are one send.
fn has_repeats(entries: &[Arc<Message>]) -> bool {
    let mut seen = HashSet::with_capacity(entries.len());
    entries.len() > 1 && !entries.iter().all(|entry| seen.insert((entry.client_id, &entry.sender)))
}

struct Head {
    /// `None`: the batch makes the channel.
    key: Option<i64>,
    last_seq: Seq,
    purged_seq: Seq,
}

fn head(connection: &Connection, batch: &ChannelBatch) -> rusqlite::Result<Option<Head>> {
    let stored = connection
        .prepare_cached("SELECT channel, last_seq, purged_seq FROM channels WHERE channel_id = ?1")?
        .query_row([batch.channel.0], |row| {
            Ok(Head { key: Some(row.get(0)?), last_seq: seq(row, 1)?, purged_seq: seq(row, 2)? })
        })
        .optional()?;
    Ok(stored.or_else(|| batch.create.is_some().then_some(Head { key: None, last_seq: 0, purged_seq: 0 })))
}

/// Whether the entry is new (its client_id too) or is exactly the one stored.
fn fits(connection: &Connection, key: Option<i64>, last_seq: Seq, entry: &Message) -> rusqlite::Result<bool> {
    let Some(key) = key else { return Ok(true) };
    if entry.seq > last_seq {
        return Ok(find_send(connection, key, &entry.sender, entry.client_id)?.is_none());
    }
    let stored = connection
        .prepare_cached("SELECT id FROM messages WHERE channel = ?1 AND seq = ?2")?
        .query_row(params![key, entry.seq as i64], |row| row.get::<_, Uuid>(0))
        .optional()?;
    Ok(stored == Some(entry.id))
}

fn find_send(connection: &Connection, key: i64, sender: &Username, client_id: Uuid) -> rusqlite::Result<Option<Seq>> {
    connection
        .prepare_cached("SELECT seq FROM messages WHERE channel = ?1 AND client_id = ?2 AND sender = ?3")?
        .query_row(params![key, client_id, sender.as_str()], |row| seq(row, 0))
        .optional()
}

fn insert_channel(connection: &Connection, batch: &ChannelBatch, create: &NewChannel) -> rusqlite::Result<i64> {
    let at = batch.entries.first().map_or(0, |entry| entry.at.0);
    connection
        .prepare_cached(
            "INSERT INTO channels (channel_id, kind, name, created_at, last_seq, last_at) VALUES (?1, ?2, ?3, ?4, 0, ?4)",
        )?
        .execute(params![batch.channel.0, channel_kind_name(create.kind), create.name, at])?;
    Ok(connection.last_insert_rowid())
}

fn write_members(connection: &Connection, key: i64, batch: &ChannelBatch) -> rusqlite::Result<()> {
    let mut by_channel = connection.prepare_cached(
        "INSERT INTO users_by_channel (channel, username, role, joined_seq, delivered_seq, read_seq)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (channel, username) DO UPDATE SET
            role = excluded.role, joined_seq = excluded.joined_seq,
            delivered_seq = max(delivered_seq, excluded.delivered_seq), read_seq = max(read_seq, excluded.read_seq)",
    )?;
    let mut by_username = connection.prepare_cached(
        "INSERT INTO channels_by_username (username, channel, joined_seq) VALUES (?1, ?2, ?3)
         ON CONFLICT (username, channel) DO UPDATE SET joined_seq = excluded.joined_seq
         WHERE joined_seq <> excluded.joined_seq",
    )?;
    for (user, member) in &batch.members {
        let joined = member.joined_seq as i64;
        by_channel.execute(params![
            key,
            user.as_str(),
            role_name(member.role),
            joined,
            member.delivered as i64,
            member.read as i64
        ])?;
        by_username.execute(params![user.as_str(), key, joined])?;
    }
    for user in &batch.departed {
        connection
            .prepare_cached("DELETE FROM users_by_channel WHERE channel = ?1 AND username = ?2")?
            .execute(params![key, user.as_str()])?;
        connection
            .prepare_cached("DELETE FROM channels_by_username WHERE username = ?1 AND channel = ?2")?
            .execute(params![user.as_str(), key])?;
    }
    Ok(())
}

/// What a batch without news may do: its members may have left, or left and come back, since it was made.
fn raise_watermarks(connection: &Connection, key: i64, batch: &ChannelBatch) -> rusqlite::Result<()> {
    let mut raise = connection.prepare_cached(
        "UPDATE users_by_channel SET delivered_seq = max(delivered_seq, ?4), read_seq = max(read_seq, ?5)
         WHERE channel = ?1 AND username = ?2 AND joined_seq = ?3",
    )?;
    for (user, member) in &batch.members {
        let Member { joined_seq, delivered, read, .. } = *member;
        raise.execute(params![key, user.as_str(), joined_seq as i64, delivered as i64, read as i64])?;
    }
    Ok(())
}

fn read_messages(
    connection: &Connection,
    id: ChannelId,
    key: i64,
    page: Page,
    limit: usize,
) -> rusqlite::Result<Vec<Message>> {
    const COLUMNS: &str = "seq, id, sender, client_id, kind, body, at";
    // A seq is at most i64::MAX in the file; a larger bound means "no bound".
    let bound = |seq: Seq| i64::try_from(seq).unwrap_or(i64::MAX);
    let (sql, bound, descending) = match page {
        Page::After(seq) => {
            let sql = format!("SELECT {COLUMNS} FROM messages WHERE channel = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3");
            (sql, bound(seq), false)
        }
        Page::Before(seq) => {
            let sql =
                format!("SELECT {COLUMNS} FROM messages WHERE channel = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3");
            (sql, bound(seq), true)
        }
    };
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![key, bound, count(limit)], |row| {
        Ok(Message {
            channel: id,
            seq: seq(row, 0)?,
            id: row.get(1)?,
            sender: username(row, 2)?,
            client_id: row.get(3)?,
            kind: kind(row, 4)?,
            body: row.get(5)?,
            at: Millis(row.get(6)?),
        })
    })?;
    let mut messages = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    if descending {
        messages.reverse();
    }
    Ok(messages)
}

/// For LIMIT and OFFSET, to which a negative number means none.
fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn listed_members(connection: &Connection, key: i64) -> rusqlite::Result<(Vec<Username>, usize)> {
    let mut names = connection
        .prepare_cached("SELECT username FROM users_by_channel WHERE channel = ?1 ORDER BY username LIMIT ?2")?;
    // One more than is listed: most channels need no second query to be counted.
    let mut listed = names
        .query_map(params![key, LISTED_MEMBERS as i64 + 1], |row| username(row, 0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    if listed.len() <= LISTED_MEMBERS {
        let count = listed.len();
        return Ok((listed, count));
    }
    listed.truncate(LISTED_MEMBERS);
    let count: i64 = connection
        .prepare_cached("SELECT count(*) FROM users_by_channel WHERE channel = ?1")?
        .query_row([key], |row| row.get(0))?;
    Ok((listed, count as usize))
}
