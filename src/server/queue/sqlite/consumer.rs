use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::params;

use super::super::{Consumer, Delivery, QueueError, Tag};
use super::lease::HeldLane;
use super::queue_error;
use super::tail::{Next, Tail, has_row};
use crate::message::Millis;
use crate::server::sqlite::{Admission, Database};

pub(super) struct SqliteConsumer {
    database: Database,
    depth: Arc<AtomicI64>,
    tail: Arc<Tail>,
    held: HeldLane,
    prefetch: usize,
    /// The last row delivered.
    cursor: u64,
    unacknowledged: usize,
    /// Acknowledged, but the deletion failed: tried again with the next one.
    undeleted: Arc<Mutex<Vec<Tag>>>,
}

impl SqliteConsumer {
    pub(super) fn new(
        database: Database,
        depth: Arc<AtomicI64>,
        tail: Arc<Tail>,
        held: HeldLane,
        prefetch: usize,
    ) -> Self {
        Self { database, depth, tail, held, prefetch, cursor: 0, unacknowledged: 0, undeleted: Arc::default() }
    }

    async fn read_table(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        let (lane, cursor) = (self.held.lane, self.cursor);
        let read = self.database.read(move |connection| {
            let mut tasks = connection.prepare_cached(
                "SELECT id, payload, deaths > 0 FROM tasks WHERE family = ?1 AND shard = ?2 AND id > ?3
                 ORDER BY id LIMIT ?4",
            )?;
            let rows =
                tasks.query_map(params![lane.family.as_str(), lane.shard, cursor as i64, max as i64], |row| {
                    let (tag, payload) = (row.get::<_, i64>(0)? as Tag, Bytes::from(row.get::<_, Vec<u8>>(1)?));
                    // What was put back has been delivered before it died.
                    Ok(Delivery { tag, payload, redelivered: row.get(2)?, unconfirmed: None })
                })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        read.await.map_err(queue_error)
    }

    fn hand_out(&mut self, mut tasks: Vec<Delivery>) -> Vec<Delivery> {
        self.unacknowledged += tasks.len();
        for task in tasks.iter_mut().filter(|task| has_row(task.tag)) {
            self.cursor = task.tag;
            task.redelivered |= task.tag <= self.held.inherited_up_to;
        }
        tasks
    }
}

#[async_trait]
impl Consumer for SqliteConsumer {
    async fn next_batch(&mut self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        loop {
            if self.held.is_lost() {
                return Err(QueueError::LaneLost(self.held.lane));
            }
            let max = max.min(self.prefetch.saturating_sub(self.unacknowledged));
            if max == 0 {
                // Only an acknowledgement makes room, and that needs `&mut self`: the caller drops this call for it.
                self.held.lost().await;
                continue;
            }
            match self.tail.next(self.cursor, max) {
                Next::Tasks(tasks) => return Ok(self.hand_out(tasks)),
                Next::Wait => tokio::select! {
                    () = self.tail.changed() => {}
                    () = self.held.lost() => {}
                },
                Next::ReadTable => {
                    // Until the read is done, the table stays unread: this call may be dropped while it waits.
                    let unread = Unread(Some(&self.tail));
                    let tasks = self.read_table(max).await?;
                    if tasks.len() < max {
                        unread.done();
                    } else {
                        drop(unread);
                    }
                    if !tasks.is_empty() {
                        return Ok(self.hand_out(tasks));
                    }
                }
            }
        }
    }

    fn take_the_unkept(&mut self) -> Vec<Delivery> {
        let tasks = self.tail.end_hand_over(self.cursor);
        self.hand_out(tasks)
    }

    fn acknowledge(&mut self, tags: &[Tag]) {
        self.unacknowledged = self.unacknowledged.saturating_sub(tags.len());
        if self.held.is_lost() {
            return;
        }
        let mut tags: Vec<Tag> = tags.iter().copied().filter(|tag| has_row(*tag)).collect();
        tags.append(&mut self.undeleted.lock());
        if tags.is_empty() {
            return;
        }
        let (undeleted, depth) = (Arc::clone(&self.undeleted), Arc::clone(&self.depth));
        let count = tags.len() as i64;
        let again = tags.clone();
        let submitted = self.database.submit(
            Admission::Relaxed,
            move |connection| {
                let mut delete = connection.prepare_cached("DELETE FROM tasks WHERE id = ?1")?;
                for tag in &tags {
                    delete.execute([*tag as i64])?;
                }
                Ok(())
            },
            move |outcome| match outcome {
                Ok(()) => {
                    depth.fetch_sub(count, Ordering::Relaxed);
                }
                Err(_reported_by_the_writer) => undeleted.lock().extend(again),
            },
        );
        if let Err(error) = submitted {
            tracing::debug!(%error, "acknowledgements are lost; the tasks will be delivered again");
        }
    }

    async fn dead_letter(&mut self, tag: Tag, reason: &str) -> Result<(), QueueError> {
        if self.held.is_lost() {
            return Err(QueueError::LaneLost(self.held.lane));
        }
        if !has_row(tag) {
            self.unacknowledged = self.unacknowledged.saturating_sub(1);
            return Ok(());
        }
        let reason = reason.to_owned();
        let died_at = Millis::now();
        let moved = self.database.write(move |connection| {
            connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO dead_letters
                       (id, family, shard, payload, enqueued_at, reason, died_at, deaths, first_died_at)
                     SELECT id, family, shard, payload, enqueued_at, ?2, ?3, deaths + 1, coalesce(first_died_at, ?3)
                     FROM tasks WHERE id = ?1",
                )?
                .execute(params![tag as i64, reason, died_at.0])?;
            connection.prepare_cached("DELETE FROM tasks WHERE id = ?1")?.execute([tag as i64])
        });
        moved.await.map_err(queue_error)?;
        self.unacknowledged = self.unacknowledged.saturating_sub(1);
        self.depth.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for SqliteConsumer {
    fn drop(&mut self) {
        self.tail.stop();
    }
}

/// Puts the table back on the tail's list unless told that it was read to the end.
struct Unread<'t>(Option<&'t Tail>);

impl Unread<'_> {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Unread<'_> {
    fn drop(&mut self) {
        if let Some(tail) = self.0 {
            tail.table_unread();
        }
    }
}
