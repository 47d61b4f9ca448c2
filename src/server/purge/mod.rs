//! Removing the beginning of a channel for good: from the log, the index, the caches of the gateways and the dead
//! letters (promise P12). The command and the retention run the same.
//!
//! Each step may be the last one: what it removed is gone, and the same purge, run again, does the rest.

pub mod retention;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::events::{BusError, Event, EventBus};
use super::queue::{DeadLetters, Family, IndexRange, IndexTask, Lane, QueueError, Task, TaskQueue, enqueue_confirmed};
use super::search::{SearchError, SearchIndex};
use super::store::{Cause, Extent, Page, Purge, PurgeRecord, Removed, Store, StoreError};
use crate::message::{ChannelId, Millis, Seq};

/// Entries that go in one step, at most, where a step may be as small: each is a transaction, which others wait for.
const STEP: usize = 500;
/// Between two words to the gateways, and two updates of the record.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Documents that are deleted by one request.
const DOCUMENTS: Seq = 10_000;

/// What a purge goes through.
#[derive(Clone)]
pub struct Purger {
    pub store: Arc<dyn Store>,
    pub purge: Arc<dyn Purge>,
    pub index: Arc<dyn SearchIndex>,
    pub queue: Arc<dyn TaskQueue>,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub bus: Arc<dyn EventBus>,
}

/// What is to go.
#[derive(Debug, Clone)]
pub struct Order {
    pub channel: ChannelId,
    /// Entries up to here.
    pub through: Seq,
    /// Sends to the channel that were set aside and had been accepted by then; `None`: they stay.
    pub letters_until: Option<Millis>,
    pub by: String,
    pub cause: Cause,
    /// Entries a second, at most.
    pub rate: u32,
}

/// How far a purge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    pub purged_seq: Seq,
    pub entries: u64,
}

/// How a purge ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purged {
    pub record: PurgeRecord,
    pub is_whole: bool,
    /// Dead letters that could not be looked at in this run.
    pub letters_beyond: u64,
    /// An index began to be built meanwhile, and may have taken in what was going.
    pub may_be_in_new_index: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    #[error("there is no channel {0}")]
    NoChannel(ChannelId),
    /// It would take in what goes.
    #[error("the search index is just being built anew")]
    IndexBeingBuilt,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl Purger {
    /// The newest entry such that it and all before it were accepted before `moment`: 0 if there is none. Looked for by
    /// halves, so where gateways' clocks differ, the edge is as blurred as these.
    ///
    /// Errors: [`PurgeError::NoChannel`], [`PurgeError::Store`].
    pub async fn last_before(&self, channel: ChannelId, moment: Millis) -> Result<Seq, PurgeError> {
        let Extent { purged_seq, last_seq } = self.extent(channel).await?;
        // Older: up to `low`. Not older: from `high` on.
        let (mut low, mut high) = (purged_seq, last_seq + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.store.messages(channel, Page::After(middle - 1), 1).await?.first() {
                Some(entry) if entry.at < moment => low = entry.seq.min(high - 1).max(middle),
                // Purged meanwhile.
                None => low = middle,
                Some(_) => high = middle,
            }
        }
        Ok(low)
    }

    /// Errors: [`PurgeError::NoChannel`], [`PurgeError::Store`].
    pub async fn extent(&self, channel: ChannelId) -> Result<Extent, PurgeError> {
        self.purge.extent(channel).await?.ok_or(PurgeError::NoChannel(channel))
    }

    /// Removes what is ordered, until that is done or `stop`.
    ///
    /// Errors: any; what was removed until then is, and the same order does the rest.
    pub async fn run(
        &self,
        order: &Order,
        stop: &CancellationToken,
        mut show: impl FnMut(Stand) + Send,
    ) -> Result<Purged, PurgeError> {
        let Extent { purged_seq: after, last_seq } = self.extent(order.channel).await?;
        if self.index.is_being_rebuilt().await? {
            return Err(PurgeError::IndexBeingBuilt);
        }
        let mut record = PurgeRecord {
            id: Uuid::now_v7(),
            channel: order.channel,
            after,
            through: order.through.min(last_seq).max(after),
            by: order.by.clone(),
            cause: order.cause,
            began_at: Millis::now(),
            ended_at: None,
            entries: 0,
            indexed: 0,
            dead_letters: 0,
        };
        self.purge.keep(record.clone()).await?;
        let is_whole = self.remove(order, &mut record, stop, &mut show).await?;
        let mut letters_beyond = 0;
        if is_whole {
            crate::crash_point!("purge_before_index");
            self.sweep_index(&mut record).await?;
            if let Some(until) = order.letters_until {
                letters_beyond = self.remove_letters(&mut record, until).await?;
            }
            record.ended_at = Some(Millis::now());
        }
        self.purge.keep(record.clone()).await?;
        let may_be_in_new_index = self.index.is_being_rebuilt().await?;
        Ok(Purged { record, is_whole, letters_beyond, may_be_in_new_index })
    }

    /// Whether it came to the end.
    async fn remove(
        &self,
        order: &Order,
        record: &mut PurgeRecord,
        stop: &CancellationToken,
        show: &mut (impl FnMut(Stand) + Send),
    ) -> Result<bool, PurgeError> {
        let (began, mut told) = (Instant::now(), Instant::now());
        let step = STEP.min(order.rate as usize).max(1);
        let mut gone = record.after;
        loop {
            let Removed { purged_seq, entries, indexed, is_done } =
                self.purge.remove(order.channel, record.through, step).await?;
            crate::crash_point!("purge_step");
            record.entries += entries;
            record.indexed += indexed + self.forget(order.channel, gone, purged_seq).await?;
            gone = gone.max(purged_seq);
            show(Stand { purged_seq: gone, entries: record.entries });
            // Also when nothing was left to do: an earlier run may have died before it said so.
            if is_done || told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                self.tell(order.channel, gone).await?;
            }
            if is_done {
                return Ok(true);
            }
            self.purge.keep(record.clone()).await?;
            let due = Duration::from_secs_f64(record.entries as f64 / f64::from(order.rate.max(1)));
            tokio::select! {
                () = stop.cancelled() => {
                    self.tell(order.channel, gone).await?;
                    return Ok(false);
                }
                () = tokio::time::sleep(due.saturating_sub(began.elapsed())) => {}
            }
        }
    }

    async fn tell(&self, channel: ChannelId, seq: Seq) -> Result<(), PurgeError> {
        if seq > 0 {
            self.bus.publish(vec![Event::Purged { channel, seq }]).await?;
        }
        Ok(())
    }

    /// The documents of the entries above `after`, up to `through`.
    async fn forget(&self, channel: ChannelId, mut after: Seq, through: Seq) -> Result<u64, PurgeError> {
        let mut removed = 0;
        while after < through {
            let last = through.min(after.saturating_add(DOCUMENTS));
            removed += self.index.forget(IndexRange { channel, first: after + 1, last }).await?;
            after = last;
        }
        Ok(removed)
    }

    /// What an earlier run left there, and what an indexer is just writing: it finds a task behind those that it has.
    async fn sweep_index(&self, record: &mut PurgeRecord) -> Result<(), PurgeError> {
        let (channel, last) = (record.channel, record.through);
        if last == 0 {
            return Ok(());
        }
        let task = Task::Index(IndexTask { ranges: vec![IndexRange { channel, first: last, last }] });
        let payload = task.encode().map_err(|error| QueueError::Unavailable(error.to_string()))?;
        enqueue_confirmed(&*self.queue, Lane { family: Family::IndexTasks, shard: 0 }, payload).await?;
        record.indexed += self.index.forget(IndexRange { channel, first: 1, last }).await?;
        Ok(())
    }

    /// Sends that were set aside. How many letters were not looked at.
    async fn remove_letters(&self, record: &mut PurgeRecord, until: Millis) -> Result<u64, PurgeError> {
        let mut walk = self.dead_letters.walk(Family::DbTasks).await?;
        while let Some(letter) = walk.next().await? {
            if is_of(&letter.payload, record.channel, until) {
                walk.remove().await?;
                record.dead_letters += 1;
            }
        }
        let beyond = walk.beyond();
        walk.end().await?;
        Ok(beyond)
    }

    /// How many sends to the channel that were accepted by then are among the dead letters.
    pub async fn count_letters(&self, channel: ChannelId, until: Millis) -> Result<u64, PurgeError> {
        let mut walk = self.dead_letters.walk(Family::DbTasks).await?;
        let mut count = 0;
        while let Some(letter) = walk.next().await? {
            count += u64::from(is_of(&letter.payload, channel, until));
        }
        walk.end().await?;
        Ok(count)
    }
}

fn is_of(payload: &bytes::Bytes, channel: ChannelId, until: Millis) -> bool {
    matches!(Task::decode(payload), Ok(Task::Send(send)) if send.channel == channel && send.at <= until)
}
