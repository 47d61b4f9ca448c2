//! The embedded queue: rows of a table, leases beside them, and in memory the newest tail of each lane that this
//! process consumes, so that a task need not be read back from disk; or not even written to it, where what comes of it
//! will be.

mod consumer;
mod dead_letters;
mod lease;
mod tail;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{OptionalExtension, params};

use self::consumer::SqliteConsumer;
use self::lease::Leases;
use self::tail::{Tail, Tails, Way};
use super::{Confirm, Consumer, Family, Flows, Lane, LaneFlow, LaneStats, QueueError, Task, TaskQueue};
use crate::message::Millis;
use crate::server::sqlite::holder::{self, Holder};
use crate::server::sqlite::{Admission, Database, DbError};

#[derive(Debug, Clone)]
pub struct SqliteQueueOptions {
    /// Where the locks of living processes are.
    pub data_dir: PathBuf,
    /// Shards of [`Family::DbTasks`].
    pub shards: u16,
    /// Unacknowledged tasks of [`Family::DbTasks`]; one more is [`QueueError::Overloaded`].
    pub max_depth: usize,
    /// How long a lane stays with a process that is alive but does not renew its lease.
    pub lease: Duration,
    /// Tasks of [`Family::DbTasks`] that are consumed in this process go there without a row, unconfirmed.
    pub hand_over: bool,
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
    /// Rows not acknowledged, as far as this process knows; set right by each recount.
    depth: Arc<AtomicI64>,
    recounting: AtomicBool,
    /// A write is under way that tells whether the disk takes any.
    trying: AtomicBool,
    runtime: tokio::runtime::Handle,
}

/// The pause between two counts when the queue seems full.
const RECOUNT_AFTER: Duration = Duration::from_millis(250);

impl Inner {
    fn new(database: Database, options: SqliteQueueOptions, leases: Leases) -> Arc<Self> {
        Arc::new(Self {
            database,
            options,
            tails: Arc::default(),
            leases,
            depth: Arc::default(),
            recounting: AtomicBool::new(false),
            trying: AtomicBool::new(false),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// Looks at the table beside the caller: what consumers of other processes acknowledge is only seen there.
    fn recount(self: &Arc<Self>) {
        if self.recounting.swap(true, Ordering::AcqRel) {
            return;
        }
        self.set_depth();
        // Not to be kept open by the pause.
        let inner = Arc::downgrade(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(RECOUNT_AFTER).await;
            if let Some(inner) = inner.upgrade() {
                inner.recounting.store(false, Ordering::Release);
            }
        });
    }

    /// What is refused while the disk takes nothing makes no write that would show that it does again.
    fn try_the_disk(self: &Arc<Self>) {
        if self.trying.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::downgrade(self);
        let tried = move |_reported_by_the_writer| {
            if let Some(inner) = inner.upgrade() {
                inner.trying.store(false, Ordering::Release);
            }
        };
        if self.database.submit(Admission::Internal, touch, tried).is_err() {
            self.trying.store(false, Ordering::Release);
        }
    }

    async fn count(&self) -> Result<Vec<LaneStats>, QueueError> {
        let of_family = |(family, shards)| (0..shards).map(move |shard| Lane { family, shard });
        let families = [(Family::DbTasks, self.options.shards), (Family::IndexTasks, INDEX_SHARDS)];
        let lanes: Vec<Lane> = families.into_iter().flat_map(of_family).collect();
        let mut stats = lane_stats(&self.database, &self.options.data_dir, lanes.clone()).await?;
        for (lane, stats) in lanes.into_iter().zip(&mut stats) {
            // Those of other processes are known to these alone.
            stats.depth += self.tails.of(lane).unkept() as u64;
        }
        Ok(stats)
    }

    /// Counts in the writer's turn: what this process enqueues and acknowledges is then either counted, or added to
    /// the count afterwards; never lost between a look and its result.
    fn set_depth(&self) {
        let depth = Arc::clone(&self.depth);
        let counted = self.database.submit(
            Admission::Internal,
            |connection| {
                connection
                    .prepare_cached("SELECT count(*) FROM tasks WHERE family = ?1")?
                    .query_row([Family::DbTasks.as_str()], |row| row.get::<_, i64>(0))
            },
            move |outcome| match outcome {
                Ok(counted) => depth.store(counted, Ordering::Relaxed),
                Err(error) => tracing::debug!(%error, "the waiting tasks can't be counted"),
            },
        );
        if let Err(error) = counted {
            tracing::debug!(%error, "the waiting tasks can't be counted");
        }
    }
}

const INDEX_SHARDS: u16 = 1;
/// The role of a process that only looks: nobody minds it.
const LOOKER: &str = "look";

impl SqliteQueue {
    /// Opens the queue of a data directory; tasks that wait there under another number of shards are routed anew.
    ///
    /// Errors: [`QueueError::Unavailable`] if that is needed while another process is at work here, as a consumer of
    /// them or as a producer of more.
    pub async fn open(
        database: Database,
        options: SqliteQueueOptions,
        holder: Arc<Holder>,
    ) -> Result<Self, QueueError> {
        pin_shards(&database, &options, holder.name()).await?;
        let leases = Leases::new(database.clone(), options.data_dir.clone(), options.lease, holder);
        let inner = Inner::new(database, options, leases);
        let queue = Self { inner };
        queue.inner.set_depth();
        let tails = Arc::clone(&queue.inner.tails);
        queue.inner.database.on_foreign_commit(move || tails.look_again());
        Ok(queue)
    }
}

impl SqliteQueue {
    /// The queue as it is, to look at: with the number of shards that is in force.
    pub async fn look(database: Database, data_dir: PathBuf) -> Result<Self, QueueError> {
        let stored = database.read(|connection| {
            connection
                .query_row("SELECT value FROM settings WHERE name = 'queue.shards'", [], |row| row.get::<_, String>(0))
                .optional()
        });
        let stored = stored.await.map_err(queue_error)?;
        let shards = stored.and_then(|shards| shards.parse().ok()).unwrap_or(0);
        let holder = Holder::register(&data_dir, LOOKER).map_err(|error| QueueError::Unavailable(error.to_string()))?;
        let options =
            SqliteQueueOptions { data_dir, shards, max_depth: 0, lease: Duration::from_secs(1), hand_over: false };
        let leases = Leases::new(database.clone(), options.data_dir.clone(), options.lease, Arc::new(holder));
        Ok(Self { inner: Inner::new(database, options, leases) })
    }
}

#[async_trait]
impl TaskQueue for SqliteQueue {
    fn shards(&self, family: Family) -> u16 {
        match family {
            Family::DbTasks => self.inner.options.shards,
            Family::IndexTasks => INDEX_SHARDS,
            // Searches go straight to the index in the same file.
            Family::SearchTasks => 0,
        }
    }

    fn enqueue(&self, lane: Lane, payload: Bytes, confirm: Confirm) -> Result<(), QueueError> {
        let inner = &self.inner;
        if lane.family == Family::DbTasks {
            let (depth, limit) = (inner.depth.load(Ordering::Relaxed), inner.options.max_depth as i64);
            if depth >= limit / 2 {
                inner.recount();
            }
            if depth + inner.tails.unkept() as i64 >= limit {
                return Err(QueueError::Overloaded);
            }
        }
        let admission = match lane.family {
            Family::DbTasks => Admission::Bounded,
            Family::IndexTasks | Family::SearchTasks => Admission::Relaxed,
        };
        let (tails, tail) = (Arc::clone(&inner.tails), inner.tails.of(lane));
        let confirm = if inner.options.hand_over && lane.family == Family::DbTasks {
            let disk_fails = inner.database.is_failing();
            match tail.admit(&payload, confirm, disk_fails) {
                Ok(Way::HandedOver) => return Ok(()),
                Ok(Way::ByTable(confirm)) => confirm,
                Err(refused) => {
                    if disk_fails {
                        inner.try_the_disk();
                    }
                    return Err(refused);
                }
            }
        } else {
            tail.departs();
            confirm
        };
        let on_the_way = OnTheWay(tail);
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
            if result.is_ok() && lane.family == Family::DbTasks {
                // Before the one who asked can ask again.
                depth.fetch_add(1, Ordering::Relaxed);
            }
            // Confirmed before it is consumed: whoever asked hears that it was taken before what came of it.
            confirm(result.clone().map(drop).map_err(queue_error));
            let OnTheWay(tail) = &on_the_way;
            let Ok(id) = result else { return };
            if lane.family == Family::DbTasks {
                crate::crash_point!("after_accept");
            }
            tails.push(tail, id, payload);
        };
        inner.database.submit(admission, written, done).map_err(queue_error)
    }

    async fn consume(&self, lane: Lane, prefetch: usize) -> Result<Box<dyn Consumer>, QueueError> {
        let tail = self.inner.tails.of(lane);
        let held = self.inner.leases.take(lane).await?;
        tail.start_over();
        Ok(Box::new(SqliteConsumer::new(
            self.inner.database.clone(),
            match lane.family {
                Family::DbTasks => Arc::clone(&self.inner.depth),
                // An index that lags behind is no reason to refuse messages: nobody asks how many its tasks are.
                Family::IndexTasks | Family::SearchTasks => Arc::default(),
            },
            tail,
            held,
            prefetch,
        )))
    }

    async fn stats(&self) -> Result<Vec<LaneStats>, QueueError> {
        self.inner.count().await
    }

    async fn flows(&self) -> Result<Flows, QueueError> {
        let of = |family| usize::from(self.shards(family));
        let lanes = Family::ALL.into_iter().map(of).sum();
        // Ids are given to the tasks of all lanes in turn, and never twice.
        let enqueued = self.inner.database.read(|connection| {
            let last = connection
                .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'tasks'", [], |row| row.get::<_, i64>(0));
            last.optional()
        });
        let enqueued = enqueued.await.map_err(queue_error)?.unwrap_or(0);
        Ok(Flows { lanes: vec![LaneFlow::default(); lanes], enqueued: u64::try_from(enqueued).ok() })
    }

    async fn probe(&self) -> Result<(), QueueError> {
        self.inner.database.write_as(Admission::Bounded, touch).await.map_err(queue_error)
    }
}

/// A row that is being written.
struct OnTheWay(Arc<Tail>);

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.0.arrived();
    }
}

/// Another value each time: SQLite doesn't write a row that stays the same, and only a page that must be written meets a
/// full or read-only disk.
fn touch(connection: &rusqlite::Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO settings (name, value) VALUES ('queue.probe', '0')
             ON CONFLICT (name) DO UPDATE SET value = CASE value WHEN '0' THEN '1' ELSE '0' END",
        )?
        .execute([])
        .map(drop)
}

fn queue_error(error: DbError) -> QueueError {
    match error {
        DbError::Overloaded => QueueError::Overloaded,
        DbError::Closed => QueueError::Closed,
        other => QueueError::Unavailable(other.to_string()),
    }
}

/// In the order of the lanes.
async fn lane_stats(database: &Database, data_dir: &Path, lanes: Vec<Lane>) -> Result<Vec<LaneStats>, QueueError> {
    let data_dir = data_dir.to_owned();
    let now = Millis::now().0;
    let read = database.read(move |connection| {
        let stats = |Lane { family, shard }| {
            let lane = params![family.as_str(), shard];
            let (depth, oldest): (i64, Option<i64>) = connection
                .prepare_cached("SELECT count(*), min(enqueued_at) FROM tasks WHERE family = ?1 AND shard = ?2")?
                .query_row(lane, |row| Ok((row.get(0)?, row.get(1)?)))?;
            let dead: i64 = connection
                .prepare_cached("SELECT count(*) FROM dead_letters WHERE family = ?1 AND shard = ?2")?
                .query_row(lane, |row| row.get(0))?;
            let consumer = connection
                .prepare_cached("SELECT holder FROM leases WHERE family = ?1 AND shard = ?2")?
                .query_row(lane, |row| row.get::<_, String>(0))
                .optional()?
                .filter(|holder| holder::is_alive(&data_dir, holder));
            Ok(LaneStats {
                queue: family.as_str().to_owned(),
                shard,
                depth: depth as u64,
                ready: None,
                unacknowledged: None,
                oldest_ms: oldest.map(|at| now.saturating_sub(at).max(0) as u64),
                dead_letters: dead as u64,
                consumers: u64::from(consumer.is_some()),
                consumer,
            })
        };
        lanes.into_iter().map(stats).collect()
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
            let living =
                holder::living(&data_dir).into_iter().find(|holder| *holder != me && !holder.starts_with(LOOKER));
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
        let shard = Task::decode(payload).ok().and_then(|task| task.partition_key()).map_or(0, |key| key.shard(shards));
        connection
            .prepare_cached("UPDATE tasks SET shard = ?2 WHERE id = ?1")?
            .execute(params![row.get::<_, i64>(0)?, shard])?;
    }
    Ok(())
}
