//! Dead letters are rows beside the tasks: one transaction moves them back.

use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Row, params};

use super::super::dead_letters::{DeadLetter, DeadLetters, Walk, lane_of, repeated};
use super::super::{Family, Lane, QueueError};
use super::{SqliteQueue, queue_error};
use crate::message::Millis;
use crate::server::sqlite::Database;

/// Rows read at once.
const PAGE: usize = 200;

#[async_trait]
impl DeadLetters for SqliteQueue {
    async fn walk(&self, family: Family) -> Result<Box<dyn Walk>, QueueError> {
        let database = self.inner.database.clone();
        // Ids only rise: what dies from now on, retried or not, either was there before or is behind the last one.
        let last = database.read(move |connection| {
            connection.query_row("SELECT max(id) FROM dead_letters WHERE family = ?1", [family.as_str()], |row| {
                row.get::<_, Option<i64>>(0)
            })
        });
        let last = last.await.map_err(queue_error)?.unwrap_or(0);
        let shards = self.inner.options.shards;
        Ok(Box::new(SqliteWalk { database, family, shards, last, cursor: 0, page: VecDeque::new(), current: None }))
    }
}

struct SqliteWalk {
    database: Database,
    family: Family,
    shards: u16,
    /// The last row that was there when the walk began.
    last: i64,
    /// The last row read.
    cursor: i64,
    page: VecDeque<(i64, DeadLetter)>,
    current: Option<(i64, DeadLetter)>,
}

impl SqliteWalk {
    async fn read_page(&mut self) -> Result<(), QueueError> {
        let (family, cursor, last) = (self.family, self.cursor, self.last);
        let read = self.database.read(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT id, shard, payload, reason, deaths, enqueued_at, coalesce(first_died_at, died_at), died_at
                 FROM dead_letters WHERE family = ?1 AND id > ?2 AND id <= ?3 ORDER BY id LIMIT ?4",
            )?;
            let rows =
                rows.query_map(params![family.as_str(), cursor, last, PAGE as i64], |row| letter(family, row))?;
            rows.collect::<rusqlite::Result<VecDeque<_>>>()
        });
        self.page = read.await.map_err(queue_error)?;
        // Nothing more: the next call need not ask again.
        self.cursor = self.page.back().map_or(last, |(id, _)| *id);
        Ok(())
    }
}

fn letter(family: Family, row: &Row<'_>) -> rusqlite::Result<(i64, DeadLetter)> {
    let id: i64 = row.get(0)?;
    let millis = |index| row.get::<_, Option<i64>>(index).map(|at| at.map(Millis));
    let letter = DeadLetter {
        id: id.to_string(),
        lane: Lane { family, shard: row.get(1)? },
        payload: Bytes::from(row.get::<_, Vec<u8>>(2)?),
        reason: row.get(3)?,
        deaths: row.get(4)?,
        enqueued_at: millis(5)?,
        first_died_at: millis(6)?,
        died_at: millis(7)?,
    };
    Ok((id, letter))
}

#[async_trait]
impl Walk for SqliteWalk {
    async fn next(&mut self) -> Result<Option<DeadLetter>, QueueError> {
        self.current = None;
        if self.page.is_empty() && self.cursor < self.last {
            self.read_page().await?;
        }
        self.current = self.page.pop_front();
        Ok(self.current.as_ref().map(|(_, letter)| letter.clone()))
    }

    async fn put_back(&mut self) -> Result<(), QueueError> {
        let Some((id, letter)) = &self.current else { return Ok(()) };
        let (id, lane, payload) = (*id, lane_of(letter, self.shards), repeated(&letter.payload));
        let now = Millis::now().0;
        crate::crash_point!("before_dead_letter_put_back");
        let moved = self.database.write(move |connection| {
            // Nothing is inserted if somebody else has moved it meanwhile.
            connection
                .prepare_cached(
                    "INSERT INTO tasks (family, shard, payload, enqueued_at, deaths, first_died_at)
                     SELECT family, ?2, ?3, ?4, deaths, coalesce(first_died_at, died_at) FROM dead_letters
                     WHERE id = ?1",
                )?
                .execute(params![id, lane.shard, &payload[..], now])?;
            connection.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?.execute([id])
        });
        moved.await.map_err(queue_error)?;
        crate::crash_point!("after_dead_letter_put_back");
        self.current = None;
        Ok(())
    }

    async fn remove(&mut self) -> Result<(), QueueError> {
        let Some((id, _)) = &self.current else { return Ok(()) };
        let id = *id;
        let removed = self.database.write(move |connection| {
            connection.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?.execute([id])
        });
        removed.await.map_err(queue_error)?;
        self.current = None;
        Ok(())
    }

    fn beyond(&self) -> u64 {
        0
    }

    async fn end(self: Box<Self>) -> Result<(), QueueError> {
        Ok(())
    }
}
