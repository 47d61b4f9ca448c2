use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

use super::{Lane, QueueError, queue_error};
use crate::server::sqlite::holder::{Holder, is_alive};
use crate::server::sqlite::{Admission, Database, DbError};

/// How often a lane that somebody else has is asked for.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The lanes of this process, each with the token that says that it was lost.
type Held = Arc<Mutex<HashMap<Lane, CancellationToken>>>;

/// The lanes that this process may consume, by rows of the `leases` table.
///
/// A lease can be taken over when its holder's process is dead, or has not renewed it in time. It is *lost* only once
/// another has it: while nobody can write (a full disk), nobody can take it either.
pub(super) struct Leases {
    database: Database,
    data_dir: PathBuf,
    length: Duration,
    holder: Arc<Holder>,
    held: Held,
    renewing: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Leases {
    pub(super) fn new(database: Database, data_dir: PathBuf, length: Duration, holder: Arc<Holder>) -> Self {
        Self { database, data_dir, length, holder, held: Held::default(), renewing: Mutex::default() }
    }

    /// Waits until the lane is free.
    pub(super) async fn take(&self, lane: Lane) -> Result<HeldLane, QueueError> {
        loop {
            if let Some(held) = self.try_take(lane).await? {
                self.renew_from_now_on();
                return Ok(held);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn try_take(&self, lane: Lane) -> Result<Option<HeldLane>, QueueError> {
        let me = self.holder.name().to_owned();
        let data_dir = self.data_dir.clone();
        let length = self.length;
        // Looked at before it is written: standing by must not cost a commit each time.
        let in_the_way = move |connection: &Connection| {
            let row = connection
                .prepare_cached("SELECT holder, expires_at FROM leases WHERE family = ?1 AND shard = ?2")?
                .query_row(params![lane.family.as_str(), lane.shard], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
                })
                .optional()?;
            Ok(row.is_some_and(|(holder, expires)| {
                let valid = expires > since_boot() && is_alive(&data_dir, &holder);
                // One consumer a lane in this process, too: an earlier one gives its row back when it is dropped.
                holder == me || valid
            }))
        };
        let look = in_the_way.clone();
        if self.database.read(move |connection| look(connection)).await.map_err(queue_error)? {
            return Ok(None);
        }
        let me = self.holder.name().to_owned();
        let write = move |connection: &Connection| {
            if in_the_way(connection)? {
                return Ok(None);
            }
            connection
                .prepare_cached(
                    "INSERT INTO leases (family, shard, holder, expires_at) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (family, shard) DO UPDATE SET
                        holder = excluded.holder, expires_at = excluded.expires_at",
                )?
                .execute(params![lane.family.as_str(), lane.shard, me, since_boot() + length.as_millis() as i64])?;
            let last_id: Option<i64> = connection
                .prepare_cached("SELECT max(id) FROM tasks WHERE family = ?1 AND shard = ?2")?
                .query_row(params![lane.family.as_str(), lane.shard], |row| row.get(0))?;
            Ok(Some(last_id.unwrap_or(0) as u64))
        };
        let (database, held, holder) = (self.database.clone(), Arc::clone(&self.held), Arc::clone(&self.holder));
        let (reply, outcome) = tokio::sync::oneshot::channel();
        let done = move |taken: Result<Option<u64>, DbError>| {
            let taken = taken.map(|taken| taken.map(|up_to| HeldLane::new(lane, up_to, database, held, holder)));
            // If nobody waits for the lane any more, it is given back here and now by being dropped.
            drop(reply.send(taken));
        };
        self.database.submit(Admission::Internal, write, done).map_err(queue_error)?;
        outcome.await.unwrap_or(Err(DbError::Closed)).map_err(queue_error)
    }

    /// Starts the one task that renews all leases of this process, if it isn't there yet.
    fn renew_from_now_on(&self) {
        let mut renewing = self.renewing.lock();
        if renewing.is_some() {
            return;
        }
        let (database, held) = (self.database.clone(), Arc::clone(&self.held));
        let (holder, length) = (self.holder.name().to_owned(), self.length);
        *renewing = Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(length / 3).await;
                if let Err(error) = renew(&database, &held, &holder, length).await {
                    tracing::warn!(%error, "leases could not be renewed");
                }
            }
        }));
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        if let Some(task) = self.renewing.lock().take() {
            task.abort();
        }
    }
}

async fn renew(database: &Database, held: &Held, holder: &str, length: Duration) -> Result<(), QueueError> {
    let lanes: Vec<(Lane, CancellationToken)> = held.lock().iter().map(|(lane, lost)| (*lane, lost.clone())).collect();
    if lanes.is_empty() {
        return Ok(());
    }
    let holder = holder.to_owned();
    let asked: Vec<Lane> = lanes.iter().map(|(lane, _)| *lane).collect();
    let renewed = database.write(move |connection| {
        let mut renew = connection
            .prepare_cached("UPDATE leases SET expires_at = ?4 WHERE family = ?1 AND shard = ?2 AND holder = ?3")?;
        let expires = since_boot() + length.as_millis() as i64;
        asked
            .iter()
            .map(|lane| Ok(renew.execute(params![lane.family.as_str(), lane.shard, holder, expires])? == 1))
            .collect::<rusqlite::Result<Vec<bool>>>()
    });
    let renewed = renewed.await.map_err(queue_error)?;
    for ((lane, lost), renewed) in lanes.iter().zip(renewed) {
        let mut held = held.lock();
        // One that was given back meanwhile has no row either, and nobody left to tell: its token is cancelled.
        if !renewed && !lost.is_cancelled() {
            tracing::error!(%lane, "another process has taken the lease: this one was too slow to renew it");
            held.remove(lane);
            lost.cancel();
        }
    }
    Ok(())
}

/// A lane that this process may consume; given back when dropped.
pub(super) struct HeldLane {
    pub(super) lane: Lane,
    /// The newest task that was there when the lease was taken: an earlier holder may have worked on those.
    pub(super) inherited_up_to: u64,
    lost: CancellationToken,
    database: Database,
    held: Held,
    holder: Arc<Holder>,
}

impl HeldLane {
    fn new(lane: Lane, inherited_up_to: u64, database: Database, held: Held, holder: Arc<Holder>) -> Self {
        let lost = CancellationToken::new();
        let mut lanes = held.lock();
        if let Some(earlier) = lanes.insert(lane, lost.clone()) {
            // Another process had the lane in between, or the earlier row would have been in the way.
            earlier.cancel();
        }
        drop(lanes);
        Self { lane, inherited_up_to, lost, database, held, holder }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Resolves once another has the lane.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for HeldLane {
    fn drop(&mut self) {
        {
            let mut held = self.held.lock();
            if self.is_lost() {
                // The row is another's, or belongs to a later turn of this process.
                return;
            }
            self.lost.cancel();
            held.remove(&self.lane);
        }
        let (lane, holder) = (self.lane, Arc::clone(&self.holder));
        let given_back = self.database.submit(
            Admission::Internal,
            move |connection| {
                connection
                    .prepare_cached("DELETE FROM leases WHERE family = ?1 AND shard = ?2 AND holder = ?3")?
                    .execute(params![lane.family.as_str(), lane.shard, holder.name()])
            },
            |_outcome| {},
        );
        if let Err(error) = given_back {
            tracing::debug!(%error, %lane, "a lease was not given back; it ends with this process");
        }
    }
}

/// Milliseconds by a clock that nobody can set, the same for all processes of the machine.
fn since_boot() -> i64 {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let now = clock_gettime(clock);
    now.tv_sec as i64 * 1000 + now.tv_nsec as i64 / 1_000_000
}
