//! The embedded queue: rows of a table, leases beside them, and in memory the newest tail of each lane that this
//! process consumes, so that a task need not be read back from disk.

mod consumer;
mod lease;
mod tail;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{OptionalExtension, params};

use self::consumer::SqliteConsumer;
use self::lease::Leases;
use self::tail::Tails;
use super::{Confirm, Consumer, Family, Lane, LaneStats, QueueError, Task, TaskQueue};
use crate::message::Millis;
use crate::server::sqlite::holder::{Holder, is_alive};
use crate::server::sqlite::{Admission, Database, DbError};

#[derive(Debug, Clone)]
pub struct SqliteQueueOptions {
    /// Where the locks of living processes are.
    pub data_dir: PathBuf,
    /// Shards of [`Family::DbTasks`].
    pub shards: u16,
    /// Unacknowledged tasks, in all; one more is [`QueueError::Overloaded`].
    pub max_depth: usize,
    /// How long a lane stays with a process that is alive but does not renew its lease.
    pub lease: Duration,
}

/// The embedded queue. Clones share it.
#[derive(Clone)]
pub struct SqliteQueue {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    options: SqliteQueueOptions,
    tails: Arc<Tails>,
    leases: Leases,
    /// Tasks not acknowledged, as far as this process knows; set right by each look at the table.
    depth: Arc<AtomicI64>,
    counting: AtomicBool,
}

/// Between two counts that are made because the queue seems to fill.
const COUNT_AGAIN: Duration = Duration::from_secs(1);

impl SqliteQueue {
    /// Opens the queue of a data directory; tasks that wait there under another number of shards are routed anew.
    ///
    /// Errors: [`QueueError::Unavailable`] if that is needed while another process consumes them.
    pub async fn open(
        database: Database,
        options: SqliteQueueOptions,
        holder: Arc<Holder>,
    ) -> Result<Self, QueueError> {
        pin_shards(&database, &options, holder.name()).await?;
        let leases = Leases::new(database.clone(), options.data_dir.clone(), options.lease, holder);
        let inner = Arc::new(Inner {
            database,
            options,
            tails: Arc::default(),
            leases,
            depth: Arc::default(),
            counting: AtomicBool::default(),
        });
        let queue = Self { inner };
        queue.stats().await?;
        let tails = Arc::clone(&queue.inner.tails);
        queue.inner.database.on_foreign_commit(move || tails.look_again());
        Ok(queue)
    }
}

impl SqliteQueue {
    /// Counts what waits: what workers in other processes acknowledge doesn't reach this one's count.
    fn count_again(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.inner.counting.swap(true, Ordering::Relaxed) {
            return;
        }
        let queue = self.clone();
        runtime.spawn(async move {
            if let Err(error) = queue.stats().await {
                tracing::warn!(%error, "what waits can't be counted");
            }
            tokio::time::sleep(COUNT_AGAIN).await;
            queue.inner.counting.store(false, Ordering::Relaxed);
        });
    }

    /// The queue as it is, to look at: with the number of shards that is in force.
    pub async fn look(database: Database, data_dir: PathBuf) -> Result<Self, QueueError> {
        let stored = database.read(|connection| {
            connection
                .query_row("SELECT value FROM settings WHERE name = 'queue.shards'", [], |row| row.get::<_, String>(0))
                .optional()
        });
        let stored = stored.await.map_err(queue_error)?;
        let shards = stored.and_then(|shards| shards.parse().ok()).unwrap_or(0);
        let holder = Holder::register(&data_dir, "look").map_err(|error| QueueError::Unavailable(error.to_string()))?;
        let options = SqliteQueueOptions { data_dir, shards, max_depth: 0, lease: Duration::from_secs(1) };
        let leases = Leases::new(database.clone(), options.data_dir.clone(), options.lease, Arc::new(holder));
        let inner = Arc::new(Inner {
            database,
            options,
            tails: Arc::default(),
            leases,
            depth: Arc::default(),
            counting: AtomicBool::default(),
        });
        Ok(Self { inner })
    }
}

#[async_trait]
impl TaskQueue for SqliteQueue {
    fn shards(&self, family: Family) -> u16 {
        match family {
            Family::DbTasks => self.inner.options.shards,
            Family::IndexTasks => 1,
        }
    }

    fn enqueue(&self, lane: Lane, payload: Bytes, confirm: Confirm) -> Result<(), QueueError> {
        let inner = &self.inner;
        let (depth, most) = (inner.depth.load(Ordering::Relaxed), inner.options.max_depth as i64);
        if depth > most / 2 {
            self.count_again();
        }
        if depth >= most && lane.family == Family::DbTasks {
            return Err(QueueError::Overloaded);
        }
        let admission = match lane.family {
            Family::DbTasks => Admission::Bounded,
            Family::IndexTasks => Admission::Internal,
        };
        let tails = Arc::clone(&inner.tails);
        let depth = Arc::clone(&inner.depth);
        let row = payload.clone();
        let enqueued_at = Millis::now();
        let written = move |connection: &rusqlite::Connection| {
            connection
                .prepare_cached("INSERT INTO tasks (family, shard, payload, enqueued_at) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![lane.family.as_str(), lane.shard, &row[..], enqueued_at.0])?;
            Ok(connection.last_insert_rowid() as u64)
        };
        let done = move |result: Result<u64, DbError>| {
            if let Ok(id) = &result {
                depth.fetch_add(1, Ordering::Relaxed);
                if lane.family == Family::DbTasks {
                    crate::crash_point!("after_accept");
                }
                tails.push(lane, *id, payload);
            }
            confirm(result.map(drop).map_err(queue_error));
        };
        inner.database.submit(admission, written, done).map_err(queue_error)
    }

    async fn consume(&self, lane: Lane, prefetch: usize) -> Result<Box<dyn Consumer>, QueueError> {
        let tail = self.inner.tails.of(lane);
        let held = self.inner.leases.take(lane).await?;
        tail.start_over();
        Ok(Box::new(SqliteConsumer::new(
            self.inner.database.clone(),
            Arc::clone(&self.inner.depth),
            tail,
            held,
            prefetch,
        )))
    }

    async fn stats(&self) -> Result<Vec<LaneStats>, QueueError> {
        let shards = Family::ALL.map(|family| (family, self.shards(family)));
        let mut stats = lane_stats(&self.inner.database, shards.to_vec()).await?;
        for lane in &mut stats {
            // A process that was killed leaves its rows behind.
            lane.consumer = lane.consumer.take().filter(|holder| is_alive(&self.inner.options.data_dir, holder));
        }
        let depth: u64 = stats.iter().map(|lane| lane.depth).sum();
        self.inner.depth.store(depth as i64, Ordering::Relaxed);
        Ok(stats)
    }
}

fn queue_error(error: DbError) -> QueueError {
    match error {
        DbError::Overloaded => QueueError::Overloaded,
        DbError::Closed => QueueError::Closed,
        other => QueueError::Unavailable(other.to_string()),
    }
}

async fn lane_stats(database: &Database, families: Vec<(Family, u16)>) -> Result<Vec<LaneStats>, QueueError> {
    let now = Millis::now().0;
    let read = database.read(move |connection| {
        let mut lanes = Vec::new();
        for (family, shards) in families {
            for shard in 0..shards {
                let lane = params![family.as_str(), shard];
                let (depth, oldest): (i64, Option<i64>) = connection
                    .prepare_cached("SELECT count(*), min(enqueued_at) FROM tasks WHERE family = ?1 AND shard = ?2")?
                    .query_row(lane, |row| Ok((row.get(0)?, row.get(1)?)))?;
                let dead: i64 = connection
                    .prepare_cached("SELECT count(*) FROM dead_letters WHERE family = ?1 AND shard = ?2")?
                    .query_row(lane, |row| row.get(0))?;
                let consumer = connection
                    .prepare_cached("SELECT holder FROM leases WHERE family = ?1 AND shard = ?2")?
                    .query_row(lane, |row| row.get(0))
                    .optional()?;
                lanes.push(LaneStats {
                    queue: family.as_str().to_owned(),
                    shard,
                    depth: depth as u64,
                    oldest_ms: oldest.map(|at| now.saturating_sub(at).max(0) as u64),
                    dead_letters: dead as u64,
                    consumer,
                });
            }
        }
        Ok(lanes)
    });
    read.await.map_err(queue_error)
}

/// Makes the configured number of shards the one in force: the tasks that wait were routed by the stored number.
async fn pin_shards(database: &Database, options: &SqliteQueueOptions, me: &str) -> Result<(), QueueError> {
    let shards = options.shards;
    let data_dir = options.data_dir.clone();
    let me = me.to_owned();
    let refused = database.write(move |connection| {
        let stored: Option<String> = connection
            .query_row("SELECT value FROM settings WHERE name = 'queue.shards'", [], |row| row.get(0))
            .optional()?;
        if stored.as_deref() == Some(shards.to_string().as_str()) {
            return Ok(None);
        }
        if stored.is_some() {
            let mut holders = connection.prepare("SELECT DISTINCT holder FROM leases")?;
            let holders = holders.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
            let living = holders.into_iter().find(|holder| *holder != me && is_alive(&data_dir, holder));
            if let Some(holder) = living {
                return Ok(Some(format!(
                    "queue.shards is {shards} here and {} in the data directory, where {holder} is at work: \
                     use the same number, or stop that process to change it",
                    stored.unwrap_or_default()
                )));
            }
            route_anew(connection, shards)?;
        }
        connection.execute(
            "INSERT INTO settings (name, value) VALUES ('queue.shards', ?1)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [shards.to_string()],
        )?;
        Ok(None)
    });
    match refused.await.map_err(queue_error)? {
        Some(reason) => Err(QueueError::Unavailable(reason)),
        None => Ok(()),
    }
}

/// Ids stay, so each channel's tasks keep their order.
fn route_anew(connection: &rusqlite::Connection, shards: u16) -> rusqlite::Result<()> {
    let family = Family::DbTasks.as_str();
    let mut waiting = connection.prepare("SELECT id, payload FROM tasks WHERE family = ?1")?;
    let mut rows = waiting.query([family])?;
    while let Some(row) = rows.next()? {
        let payload = row.get_ref(1)?.as_blob()?;
        // What can't be read goes to any consumer, which sets it aside as a dead letter.
        let shard = Task::decode(payload).map_or(0, |task| task.partition_key().shard(shards));
        connection
            .prepare_cached("UPDATE tasks SET shard = ?2 WHERE id = ?1")?
            .execute(params![row.get::<_, i64>(0)?, shard])?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::server::queue::enqueue_confirmed;
    use crate::server::sqlite::{FILE_NAME, Options, migrate};

    async fn process(folder: &std::path::Path) -> SqliteQueue {
        let path = folder.join(FILE_NAME);
        migrate::up(&path, Duration::from_secs(5), |_| {}).unwrap();
        let database = Database::open(&path, &Options::default()).unwrap();
        let (data_dir, lease) = (folder.to_owned(), Duration::from_secs(5));
        let options = SqliteQueueOptions { data_dir, shards: 1, max_depth: 10, lease };
        SqliteQueue::open(database, options, Arc::new(Holder::register(folder, "test").unwrap())).await.unwrap()
    }

    const LANE: Lane = Lane { family: Family::DbTasks, shard: 0 };

    #[tokio::test(flavor = "multi_thread")]
    async fn what_another_process_acknowledges_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let (gateway, worker) = (process(folder.path()).await, process(folder.path()).await);
        for _ in 0..10 {
            enqueue_confirmed(&gateway, LANE, Bytes::from_static(b"x")).await.unwrap();
        }
        let mut consumer = worker.consume(LANE, 100).await.unwrap();
        let tags: Vec<_> = consumer.next_batch(100).await.unwrap().iter().map(|delivery| delivery.tag).collect();
        assert_eq!(tags.len(), 10);
        consumer.acknowledge(&tags);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while let Err(error) = enqueue_confirmed(&gateway, LANE, Bytes::from_static(b"x")).await {
            assert_eq!(error, QueueError::Overloaded);
            assert!(std::time::Instant::now() < deadline, "refused for ever");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    #[tokio::test]
    async fn a_dead_process_is_no_consumer() {
        let folder = tempfile::tempdir().unwrap();
        let queue = process(folder.path()).await;
        let leave = |connection: &rusqlite::Connection| {
            connection.execute("INSERT INTO leases VALUES ('db_tasks', 0, 'serve-1-killed', 9999999999999)", [])
        };
        queue.inner.database.write(leave).await.unwrap();
        assert_eq!(queue.stats().await.unwrap()[0].consumer, None);
    }
}
