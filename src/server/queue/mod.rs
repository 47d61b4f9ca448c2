//! Stage 3: durable queues between the gateway and the workers.
//!
//! A queue is a set of lanes: a family of tasks, and a shard of it. Each lane is consumed in order by one consumer at
//! a time. A task that was confirmed is delivered until it is acknowledged, whatever dies in between.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub mod contract;
mod dead_letters;
mod rabbitmq;
mod sqlite;
mod task;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;

use crate::message::Millis;

pub use dead_letters::{DeadLetter, DeadLetters, Walk};
pub use rabbitmq::{RabbitQueue, RabbitQueueOptions};
pub use sqlite::{SqliteQueue, SqliteQueueOptions};
pub use task::{
    BadPayload, ChangeTask, CreateTask, IndexRange, IndexTask, Origin, ReceiptsTask, SearchTask, SendTask, Task,
};

/// The kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// What changes a channel's log, by shard.
    DbTasks,
    /// Stored entries that search doesn't know yet.
    IndexTasks,
    /// Questions of people; an embedded deployment asks its index itself.
    SearchTasks,
}

impl Family {
    pub const ALL: [Self; 3] = [Self::DbTasks, Self::IndexTasks, Self::SearchTasks];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::DbTasks => "db_tasks",
            Self::IndexTasks => "index_tasks",
            Self::SearchTasks => "search_tasks",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Family {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|family| family.as_str() == name);
        known.ok_or_else(|| format!("no queue named \"{name}\"; the queues are db_tasks, index_tasks and search_tasks"))
    }
}

/// One ordered queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Lane {
    pub family: Family,
    pub shard: u16,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.family, self.shard)
    }
}

/// Names a delivery when it is acknowledged.
pub type Tag = u64;

/// A task handed to a consumer.
#[derive(Debug)]
pub struct Delivery {
    pub tag: Tag,
    pub payload: Bytes,
    /// It may have been delivered before, to this or another consumer; so also what was put back after it had died.
    pub redelivered: bool,
    /// Where the queue has kept it nowhere: what came of it is the first thing that is.
    pub unconfirmed: Option<Unconfirmed>,
}

/// Called once, when the outcome of an [`enqueue`](TaskQueue::enqueue) is known; must not block.
pub type Confirm = Box<dyn FnOnce(Result<(), QueueError>) + Send>;

/// A task that is in memory alone. Who works on it confirms it when its effects are durable, before anybody sees them;
/// dropped, it is refused.
pub struct Unconfirmed {
    confirm: Option<Confirm>,
    /// What the queue keeps account of it by, until its effects are durable or never will be.
    _account: Option<Box<dyn Send>>,
}

impl Unconfirmed {
    pub(in crate::server) fn new(confirm: Confirm, account: Option<Box<dyn Send>>) -> Self {
        Self { confirm: Some(confirm), _account: account }
    }

    pub fn confirm(mut self) {
        self.end(Ok(()));
    }

    /// It may be worked on all the same: who repeats it must be ready for both.
    pub fn refuse(&mut self, why: String) {
        self.end(Err(QueueError::Unavailable(why)));
    }

    fn end(&mut self, outcome: Result<(), QueueError>) {
        if let Some(confirm) = self.confirm.take() {
            confirm(outcome);
        }
    }
}

impl Drop for Unconfirmed {
    fn drop(&mut self) {
        self.end(Err(QueueError::Unavailable("its worker has stopped".into())));
    }
}

impl fmt::Debug for Unconfirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unconfirmed")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Too much waits: refuse the client with `retry_after`.
    #[error("too many tasks are waiting")]
    Overloaded,
    /// The task may or may not have been kept; who repeats it must be ready for both.
    #[error("the queue can't be written: {0}")]
    Unavailable(String),
    /// Another consumer has the lane now: stop, nothing more may be acknowledged.
    #[error("another consumer has taken {0}")]
    LaneLost(Lane),
    #[error("the queue is closed")]
    Closed,
}

/// How full a lane is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaneStats {
    pub queue: String,
    pub shard: u16,
    /// Tasks not acknowledged.
    pub depth: u64,
    /// Of these, those that no consumer has in hand; `None` where that can't be told.
    pub ready: Option<u64>,
    /// Those that one has; `None` where that can't be told.
    pub unacknowledged: Option<u64>,
    /// Age of the oldest of them, in milliseconds; `None` also where that can't be told.
    pub oldest_ms: Option<u64>,
    /// Those of a family that has one place for all are told at shard 0.
    pub dead_letters: u64,
    /// Those who consume it or stand by; of the embedded queue only the one who does is known.
    pub consumers: u64,
    /// The process that consumes it, if any does.
    pub consumer: Option<String>,
}

/// What goes through a lane, as far as it can be told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaneFlow {
    /// Tasks a second that came in, lately.
    pub in_per_s: Option<f64>,
    /// Tasks a second that were acknowledged, lately.
    pub out_per_s: Option<f64>,
    /// Tasks that were delivered again, since the queue's figures were last reset.
    pub redelivered: Option<u64>,
    /// What the lane takes of the broker's memory.
    pub memory_bytes: Option<u64>,
    /// When the task that is next was published.
    pub head_at: Option<Millis>,
}

/// [`LaneFlow`] of each lane.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flows {
    /// In the order of [`TaskQueue::stats`].
    pub lanes: Vec<LaneFlow>,
    /// Tasks that ever came into all lanes together: the difference of two looks is what came in between.
    pub enqueued: Option<u64>,
}

/// The producer's side, and the way to a consumer.
#[async_trait]
pub trait TaskQueue: Send + Sync + 'static {
    /// Lanes of a family: shards `0..n`; 0 of one that this deployment has no use for.
    fn shards(&self, family: Family) -> u16;

    /// Puts a task at the end of a lane. The order of the calls is the order of the lane. `confirm` is called once:
    /// with `Ok` when no crash can lose the task any more, or what has come of it.
    ///
    /// Errors: [`QueueError::Overloaded`], [`QueueError::Unavailable`] or [`QueueError::Closed`] at once, and `confirm`
    /// is dropped uncalled; the same come by `confirm` when it turns out later.
    fn enqueue(&self, lane: Lane, payload: Bytes, confirm: Confirm) -> Result<(), QueueError>;

    /// Waits until the lane has no other consumer, then takes it; a backend may hand a lane over together with its
    /// first task, and wait for that. Tasks that an earlier consumer did not
    /// acknowledge come first, in their order, flagged `redelivered`. Cancel-safe: a call that is dropped leaves the
    /// lane to others.
    async fn consume(&self, lane: Lane, prefetch: usize) -> Result<Box<dyn Consumer>, QueueError>;

    async fn stats(&self) -> Result<Vec<LaneStats>, QueueError>;

    /// What costs more to ask than [`stats`](Self::stats): for people who look, not for probes. What can't be told is
    /// `None`; that is no error.
    async fn flows(&self) -> Result<Flows, QueueError>;

    /// Tries out whether a task could be kept now, without leaving one. For readiness probes.
    async fn probe(&self) -> Result<(), QueueError>;
}

/// The one consumer of a lane. Dropping it gives the lane back; what it did not acknowledge is delivered again.
#[async_trait]
pub trait Consumer: Send {
    /// At least one and at most `max` tasks, in order; waits for the first, and while `prefetch` are unacknowledged.
    /// Cancel-safe: a call that is dropped loses nothing.
    ///
    /// Errors: [`QueueError::LaneLost`]; [`QueueError::Unavailable`] may be tried again.
    async fn next_batch(&mut self, max: usize) -> Result<Vec<Delivery>, QueueError>;

    /// Tasks that only this process knows of: who ends must work on them, whatever the prefetch. No more of that kind
    /// come. Where others are still to be delivered before them there are none: they are refused.
    fn take_the_unkept(&mut self) -> Vec<Delivery> {
        Vec::new()
    }

    /// Forgets tasks whose effects are durable. Not waited for: an acknowledgement that is lost is a redelivery.
    fn acknowledge(&mut self, tags: &[Tag]);

    /// Sets a task aside that can't be worked on, with the reason, for an operator; resolves when that is durable.
    async fn dead_letter(&mut self, tag: Tag, reason: &str) -> Result<(), QueueError>;
}

/// [`TaskQueue::enqueue`] for those who wait for the confirm.
pub async fn enqueue_confirmed(queue: &dyn TaskQueue, lane: Lane, payload: Bytes) -> Result<(), QueueError> {
    enqueue_confirmed_by(|confirm| queue.enqueue(lane, payload, confirm)).await
}

/// Waits for the confirm of what `enqueue` begins.
async fn enqueue_confirmed_by(enqueue: impl FnOnce(Confirm) -> Result<(), QueueError>) -> Result<(), QueueError> {
    let (confirm, outcome) = tokio::sync::oneshot::channel();
    enqueue(Box::new(move |result| {
        // Who waited may have gone; the task is kept all the same.
        let _ = confirm.send(result);
    }))?;
    outcome.await.unwrap_or(Err(QueueError::Closed))
}
