//! Stage 7, on the gateway's side: members' watermarks, gathered for a moment and sent on as one task a channel.
//!
//! A room of thousands that all read the same message costs one task. A receipt that is lost with the process is covered
//! by the next one of its client.

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
    pub async fn run(self: Arc<Self>, queue: Arc<dyn TaskQueue>) {
        loop {
            self.first.notified().await;
            tokio::time::sleep(self.interval).await;
            self.flush(queue.as_ref());
        }
    }

    /// Sends everything that waits now.
    pub fn flush(self: &Arc<Self>, queue: &dyn TaskQueue) {
        let gathered = std::mem::take(&mut *self.waiting.lock());
        let shards = queue.shards(Family::DbTasks);
        for (channel, marks) in gathered.channels {
            let mut marks: Vec<(Username, Seq, Seq)> =
                marks.into_iter().map(|(user, (delivered, read))| (user, delivered, read)).collect();
            while !marks.is_empty() {
                let rest = marks.split_off(marks.len().min(MAX_IN_TASK));
                let lane = Lane { family: Family::DbTasks, shard: channel.shard(shards) };
                self.enqueue(queue, lane, ReceiptsTask { channel, marks });
                marks = rest;
            }
        }
    }

    /// A client reports each watermark once, and waits for no reply: what can't be queued now is queued later.
    fn enqueue(self: &Arc<Self>, queue: &dyn TaskQueue, lane: Lane, task: ReceiptsTask) {
        let payload = match Task::Receipts(task.clone()).encode() {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(%error, channel = %task.channel, "receipts can't be encoded");
                return;
            }
        };
        let (receipts, later) = (Arc::clone(self), task.clone());
        let confirm = move |outcome: Result<(), QueueError>| {
            if let Err(error) = outcome {
                receipts.put_back(later, &error);
            }
        };
        if let Err(error) = queue.enqueue(lane, payload, Box::new(confirm)) {
            self.put_back(task, &error);
        }
    }

    fn put_back(&self, task: ReceiptsTask, error: &QueueError) {
        let ReceiptsTask { channel, marks } = task;
        tracing::debug!(%error, %channel, "receipts wait for the queue");
        metrics::counter!("aula_receipts_delayed_total").increment(marks.len() as u64);
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
