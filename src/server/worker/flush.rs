use std::sync::Arc;

use super::channel::Flush;
use super::{Backoff, Stages};
use crate::server::events::Event;
use crate::server::queue::{Family, IndexRange, IndexTask, Lane, Tag, Task, Unconfirmed, enqueue_confirmed};
use crate::server::store::{ChannelBatch, StoreError};

/// What became of a flush.
pub(super) enum Outcome {
    /// Its tasks may be acknowledged when its indexing has been asked for, too ([`index`]); the channel's next flush
    /// need not wait for that.
    Stored { batch: Arc<ChannelBatch>, tags: Vec<Tag> },
    /// To be tried again, after a pause.
    NotYet { flush: Flush, backoff: Backoff, why: String },
    /// Another owner has written the log.
    Conflict(StoreError),
}

/// Stores a flush, then says so.
pub(super) async fn run(stages: Stages, flush: Flush, backoff: Backoff) -> Outcome {
    crate::crash_point!("after_broadcast_before_store");
    match stages.store.append(Arc::clone(&flush.batch)).await {
        Ok(()) => {}
        Err(conflict @ StoreError::Conflict(_)) => return Outcome::Conflict(conflict),
        Err(error) => {
            metrics::counter!("aula_store_retries_total").increment(1);
            tracing::warn!(%error, channel = %flush.batch.channel, "a batch is not stored yet");
            return Outcome::NotYet { flush, backoff, why: error.to_string() };
        }
    }
    crate::crash_point!("after_store_before_ack");
    let Flush { batch, tags, unconfirmed, afterwards } = flush;
    confirm(unconfirmed);
    publish(&stages, afterwards).await;
    Outcome::Stored { batch, tags }
}

/// Says that these are kept: before anybody sees what came of them.
pub(super) fn confirm(unconfirmed: Vec<Unconfirmed>) {
    for task in unconfirmed {
        task.confirm();
        crate::crash_point!("after_accept");
    }
}

/// What of a stored batch is to be indexed.
pub(super) fn to_index(batch: &ChannelBatch) -> Vec<IndexRange> {
    match (batch.entries.first(), batch.entries.last()) {
        (Some(first), Some(last)) => {
            vec![IndexRange { channel: batch.channel, first: first.seq, last: last.seq }]
        }
        _ => Vec::new(),
    }
}

/// Publishes until the bus has taken the events.
pub(super) async fn publish(stages: &Stages, events: Vec<Event>) {
    if events.is_empty() {
        return;
    }
    let mut backoff = Backoff::new();
    // The clone is for the next attempt, and shares the messages.
    while let Err(error) = stages.bus.publish(events.clone()).await {
        tracing::warn!(%error, "events are not published yet");
        backoff.pause().await;
    }
}

/// Asks for the indexing of stored entries until the queue has taken it.
pub(super) async fn index(stages: &Stages, ranges: Vec<IndexRange>) {
    let payload = match Task::Index(IndexTask { ranges }).encode() {
        Ok(payload) => payload,
        Err(error) => {
            tracing::error!(%error, "an index task can't be encoded");
            return;
        }
    };
    let lane = Lane { family: Family::IndexTasks, shard: 0 };
    let mut backoff = Backoff::new();
    while let Err(error) = enqueue_confirmed(stages.queue.as_ref(), lane, payload.clone()).await {
        tracing::warn!(%error, "an index task is not queued yet");
        backoff.pause().await;
    }
}
