//! Stage 7, on the gateway's side: members' watermarks, gathered for a moment and sent on as one task a channel.
//!
//! A room of thousands that all read the same message costs one task. A receipt is no promise: one that is lost with
//! the process is reported again by its client, and the next one covers it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::queue::{Family, Lane, QueueError, ReceiptsTask, Task, TaskQueue};
use crate::message::{ChannelId, Seq, Username};

/// Watermarks that wait, at most, over all channels.
const MAX_WAITING: usize = 100_000;
/// Members' watermarks in one task, at most.
const MAX_IN_TASK: usize = 2_000;

/// How far a member has come, in one of two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Delivered(Seq),
    Read(Seq),
}

type Marks = HashMap<Username, (Seq, Seq)>;

/// Gathers receipts for an interval.
pub struct Receipts {
    waiting: Mutex<Waiting>,
    first: Notify,
    interval: Duration,
}

#[derive(Default)]
struct Waiting {
    channels: HashMap<ChannelId, Marks>,
    count: usize,
}

/// There is no room for one more.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Receipts {
    pub fn new(interval: Duration) -> Self {
        Self { waiting: Mutex::default(), first: Notify::new(), interval }
    }

    /// Adds a watermark; the higher one stays.
    pub fn add(&self, channel: ChannelId, user: &Username, mark: Mark) -> Result<(), Full> {
        let mut waiting = self.waiting.lock();
        if waiting.count >= MAX_WAITING {
            return Err(Full);
        }
        let was_empty = waiting.count == 0;
        waiting.add(channel, user.clone(), mark_pair(mark));
        drop(waiting);
        if was_empty {
            self.first.notify_one();
        }
        Ok(())
    }

    /// Sends what was gathered, an interval after the first. Sleeps while there is nothing. Runs until dropped.
    pub async fn run(&self, queue: Arc<dyn TaskQueue>) {
        loop {
            self.first.notified().await;
            tokio::time::sleep(self.interval).await;
            self.flush(queue.as_ref());
        }
    }

    /// Sends everything that waits now.
    pub fn flush(&self, queue: &dyn TaskQueue) {
        let gathered = std::mem::take(&mut *self.waiting.lock());
        let shards = queue.shards(Family::DbTasks);
        for (channel, marks) in gathered.channels {
            let mut marks: Vec<(Username, Seq, Seq)> =
                marks.into_iter().map(|(user, (delivered, read))| (user, delivered, read)).collect();
            while !marks.is_empty() {
                let rest = marks.split_off(marks.len().min(MAX_IN_TASK));
                let task = Task::Receipts(ReceiptsTask { channel, marks });
                let lane = Lane { family: Family::DbTasks, shard: channel.shard(shards) };
                if let Err(error) = enqueue(queue, lane, &task) {
                    tracing::debug!(%error, %channel, "receipts wait for the queue");
                    self.put_back(task);
                }
                marks = rest;
            }
        }
    }

    fn put_back(&self, task: Task) {
        let Task::Receipts(ReceiptsTask { channel, marks }) = task else { return };
        let mut waiting = self.waiting.lock();
        for (user, delivered, read) in marks {
            waiting.add(channel, user, (delivered, read));
        }
        drop(waiting);
        self.first.notify_one();
    }
}

impl Waiting {
    fn add(&mut self, channel: ChannelId, user: Username, (delivered, read): (Seq, Seq)) {
        let mut is_new = false;
        let marks = self.channels.entry(channel).or_default();
        let mark = marks.entry(user).or_insert_with(|| {
            is_new = true;
            (0, 0)
        });
        *mark = (mark.0.max(delivered), mark.1.max(read));
        self.count += usize::from(is_new);
    }
}

fn mark_pair(mark: Mark) -> (Seq, Seq) {
    match mark {
        Mark::Delivered(seq) => (seq, 0),
        Mark::Read(seq) => (0, seq),
    }
}

fn enqueue(queue: &dyn TaskQueue, lane: Lane, task: &Task) -> Result<(), QueueError> {
    let payload = task.encode().map_err(|error| QueueError::Unavailable(error.to_string()))?;
    queue.enqueue(
        lane,
        payload,
        Box::new(|outcome| {
            if let Err(error) = outcome {
                tracing::debug!(%error, "receipts were not queued; their clients will report again");
            }
        }),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_higher_watermark_stays_and_each_member_counts_once() {
        let receipts = Receipts::new(Duration::from_millis(1));
        let (channel, ada) = (ChannelId(uuid::Uuid::nil()), Username::new("ada").unwrap());
        for mark in [Mark::Delivered(5), Mark::Delivered(3), Mark::Read(2)] {
            receipts.add(channel, &ada, mark).unwrap();
        }
        let waiting = receipts.waiting.lock();
        assert_eq!(waiting.count, 1);
        assert_eq!(waiting.channels[&channel][&ada], (5, 2));
    }
}
