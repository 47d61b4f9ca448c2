//! Looking at the tables as they are, and mending them.

use async_trait::async_trait;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::columns::{role_name, seq, username};
use super::{SqliteStore, StoreError, key, read_channel, unavailable};
use crate::message::{ChannelId, Message, Seq, Username};
use crate::server::sqlite::Admission;
use crate::server::store::audit::{Audit, ListCursor, ListStep, Listed, Mend};
use crate::server::store::{ChannelState, Member, Page};

/// Rows of the lists in one step.
const STEP: i64 = 1_000;
/// Entries that are taken in by one call.
const CHUNK: usize = 1_000;

#[async_trait]
impl Audit for SqliteStore {
    async fn picture(&self, id: ChannelId) -> Result<Option<ChannelState>, StoreError> {
        self.read(move |connection| {
            let snapshot = connection.transaction()?;
            read_channel(&snapshot, id)
        })
        .await
    }

    async fn next_seq(&self, id: ChannelId, after: Seq, through: Seq) -> Result<Option<Seq>, StoreError> {
        let bound = |seq: Seq| i64::try_from(seq).unwrap_or(i64::MAX);
        self.read(move |connection| {
            let Some(key) = key(connection, id)? else { return Ok(None) };
            connection
                .prepare_cached(
                    "SELECT seq FROM messages WHERE channel = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq LIMIT 1",
                )?
                .query_row(params![key, bound(after), bound(through)], |row| seq(row, 0))
                .optional()
        })
        .await
    }

    async fn listed(&self, id: ChannelId, users: Vec<Username>) -> Result<Vec<Option<Seq>>, StoreError> {
        self.read(move |connection| {
            let mut listed = connection.prepare_cached(
                "SELECT b.joined_seq FROM channels c CROSS JOIN channels_by_username b USING (channel)
                 WHERE c.channel_id = ?1 AND b.username = ?2",
            )?;
            let mut since =
                |user: &Username| listed.query_row(params![id.0, user.as_str()], |row| seq(row, 0)).optional();
            users.iter().map(&mut since).collect()
        })
        .await
    }

    async fn strays_in_lists(&self, after: Option<ListCursor>) -> Result<ListStep, StoreError> {
        self.read(move |connection| step(connection, after.as_ref())).await
    }

    fn whereabouts(&self, _seq: Seq) -> String {
        "table messages".to_owned()
    }

    async fn mend(&self, id: ChannelId, mend: Mend) -> Result<(), StoreError> {
        let written = self.database.write_as(Admission::Internal, move |connection| match key(connection, id)? {
            Some(key) => write(connection, id, key, &mend),
            None => Ok(()),
        });
        written.await.map_err(unavailable)
    }
}

/// The cursor is the last row's local key and name.
fn step(connection: &Connection, after: Option<&ListCursor>) -> rusqlite::Result<ListStep> {
    let (after_user, after_channel) = after.map_or((String::new(), i64::MIN), |ListCursor(bytes)| {
        let (channel, user) = bytes.split_at(bytes.len().min(8));
        let channel = <[u8; 8]>::try_from(channel).map_or(i64::MIN, i64::from_be_bytes);
        (String::from_utf8_lossy(user).into_owned(), channel)
    });
    let mut rows = connection.prepare_cached(
        "SELECT b.username, b.channel, c.channel_id, u.username IS NULL
         FROM (SELECT username, channel FROM channels_by_username WHERE (username, channel) > (?1, ?2)
               ORDER BY username, channel LIMIT ?3) b
         LEFT JOIN channels c ON c.channel = b.channel
         LEFT JOIN users_by_channel u ON u.channel = b.channel AND u.username = b.username
         ORDER BY b.username, b.channel",
    )?;
    let mut rows = rows.query(params![after_user, after_channel, STEP])?;
    let (mut count, mut strays, mut last) = (0, Vec::new(), None);
    while let Some(row) = rows.next()? {
        count += 1;
        let channel: Option<uuid::Uuid> = row.get(2)?;
        if channel.is_none() || row.get::<_, bool>(3)? {
            strays.push(Listed { user: username(row, 0)?, channel: channel.map(ChannelId) });
        }
        last = Some((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
    }
    let last = last.filter(|_| count == STEP as u64);
    // Names are about evenly spread over their first characters: as good as can be told without counting.
    let fraction = last
        .as_ref()
        .and_then(|(user, _)| user.bytes().next())
        .map_or(1.0, |first| (f64::from(first.clamp(b'0', b'z')) - f64::from(b'0')) / f64::from(b'z' - b'0'));
    let cursor = |(user, channel): (String, i64)| {
        ListCursor(channel.to_be_bytes().into_iter().chain(user.into_bytes()).collect())
    };
    Ok(ListStep { rows: count, fraction, strays, rest: last.map(cursor) })
}

fn write(connection: &Connection, id: ChannelId, key: i64, mend: &Mend) -> rusqlite::Result<()> {
    let number = |seq: &Seq| Value::from(i64::try_from(*seq).unwrap_or(i64::MAX));
    let text = |user: &Username| Value::from(user.as_str().to_owned());
    let is_since = |as_of: &Seq| format!("(SELECT last_seq FROM channels WHERE channel = ?1) <= {as_of}");
    // A head above the one that was judged by: an owner has written meanwhile, and the next look will tell.
    let (sql, values) = match mend {
        Mend::Head => return take_in(connection, id, key),
        Mend::List { user, joined_seq, as_of } => (
            format!(
                "INSERT INTO channels_by_username (username, channel, joined_seq) SELECT ?2, ?1, ?3 WHERE {}
                 ON CONFLICT (username, channel) DO UPDATE SET joined_seq = excluded.joined_seq",
                is_since(as_of)
            ),
            vec![key.into(), text(user), number(joined_seq)],
        ),
        Mend::Unlist { user, as_of } => (
            format!("DELETE FROM channels_by_username WHERE channel = ?1 AND username = ?2 AND {}", is_since(as_of)),
            vec![key.into(), text(user)],
        ),
        Mend::Member { user, member: Member { role, joined_seq, delivered, read }, as_of } => (
            format!(
                "INSERT INTO users_by_channel (channel, username, role, joined_seq, delivered_seq, read_seq)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE {}
                 ON CONFLICT (channel, username) DO UPDATE SET role = excluded.role, joined_seq = excluded.joined_seq,
                    delivered_seq = min(max(delivered_seq, excluded.delivered_seq), {as_of}),
                    read_seq = min(max(read_seq, excluded.read_seq), {as_of})",
                is_since(as_of)
            ),
            vec![
                key.into(),
                text(user),
                role_name(*role).to_owned().into(),
                number(joined_seq),
                number(delivered),
                number(read),
            ],
        ),
        Mend::NoMember { user, joined_seq, as_of } => (
            format!(
                "DELETE FROM users_by_channel WHERE channel = ?1 AND username = ?2 AND joined_seq <= ?3 AND {}",
                is_since(as_of)
            ),
            vec![key.into(), text(user), number(joined_seq)],
        ),
        // Worked out here: the members may have come further since.
        Mend::ByAll { .. } => (
            "UPDATE channels SET (delivered_by_all, read_by_all) = (
                SELECT coalesce(min(delivered_seq), 0), coalesce(min(read_seq), 0)
                FROM users_by_channel u WHERE u.channel = ?1)
             WHERE channel = ?1"
                .to_owned(),
            vec![key.into()],
        ),
    };
    connection.prepare_cached(&sql)?.execute(rusqlite::params_from_iter(values)).map(drop)
}

/// The entries that follow the head without a hole are taken in, as their owner would have.
fn take_in(connection: &Connection, id: ChannelId, key: i64) -> rusqlite::Result<()> {
    let Some(mut state) = read_channel(connection, id)? else { return Ok(()) };
    let above = super::read_messages(connection, id, key, Page::After(state.last_seq), CHUNK)?;
    let mut last_at = i64::MIN;
    let mut concerned = std::collections::BTreeSet::new();
    for entry in following(state.last_seq, &above) {
        concerned.extend(state.apply(entry));
        last_at = last_at.max(entry.at.0);
    }
    connection
        .prepare_cached("UPDATE channels SET last_seq = ?2, last_at = max(last_at, ?3) WHERE channel = ?1")?
        .execute(params![key, state.last_seq as i64, last_at])?;
    for user in concerned {
        let as_of = state.last_seq;
        match state.members.get(&user) {
            Some(member) => {
                let joined_seq = member.joined_seq;
                write(connection, id, key, &Mend::Member { user: user.clone(), member: member.clone(), as_of })?;
                write(connection, id, key, &Mend::List { user, joined_seq, as_of })?;
            }
            None => {
                write(connection, id, key, &Mend::NoMember { user: user.clone(), joined_seq: as_of, as_of })?;
                write(connection, id, key, &Mend::Unlist { user, as_of })?;
            }
        }
    }
    Ok(())
}

fn following(head: Seq, entries: &[Message]) -> impl Iterator<Item = &Message> {
    (head + 1..).zip(entries).take_while(|(seq, entry)| *seq == entry.seq).map(|(_, entry)| entry)
}
