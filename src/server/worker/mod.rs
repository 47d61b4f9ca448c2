//! Stage 4: the workers. Each lane of `db_tasks` has one owner, who alone gives out the seqs of its channels.

mod channel;
mod flush;
mod indexer;
mod owner;
mod repeats;
mod searcher;
mod settling;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
mod window;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::events::EventBus;
use super::queue::{Family, Lane, QueueError, TaskQueue};
use super::search::{SearchAnswers, SearchIndex};
use super::store::Store;

/// What a worker works with.
#[derive(Clone)]
pub struct Stages {
    pub queue: Arc<dyn TaskQueue>,
    pub store: Arc<dyn Store>,
    pub index: Arc<dyn SearchIndex>,
    pub bus: Arc<dyn EventBus>,
    /// Where searches go through a queue.
    pub answers: Option<Arc<dyn SearchAnswers>>,
}

/// The bounds of a worker.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Unacknowledged tasks of a lane, at most.
    pub prefetch: usize,
    /// Members of a channel, at most.
    pub max_members: usize,
    /// Members up to which "delivered to all" and "read by all" are worked out.
    pub max_receipt_members: usize,
    /// Recent `client_id`s that an owner remembers.
    pub dedup_window: usize,
    /// Channels whose state an owner keeps, at most; more are read again when needed.
    pub cached_channels: usize,
}

/// The pause before a lane that failed is taken again.
const RESTART_AFTER: Duration = Duration::from_millis(200);

/// Works on one lane until `stop`; takes it again after every failure. Returns when all that it had begun is done.
pub async fn run(lane: Lane, stages: Stages, options: WorkerOptions, stop: CancellationToken) {
    loop {
        let prefetch = match lane.family {
            Family::DbTasks => options.prefetch,
            // The rest is for other indexers.
            Family::IndexTasks => options.prefetch.min(indexer::PREFETCH),
            // What one worker only kept waiting, another might answer; and in a worker's hands no question expires.
            Family::SearchTasks => options.prefetch.min(searcher::CONCURRENCY),
        };
        let taken = tokio::select! {
            () = stop.cancelled() => return,
            taken = stages.queue.consume(lane, prefetch) => taken,
        };
        let outcome = match taken {
            Ok(consumer) => {
                tracing::info!(%lane, "consuming");
                match lane.family {
                    Family::DbTasks => owner::run(consumer, &stages, &options, &stop).await,
                    Family::IndexTasks => indexer::run(consumer, prefetch, &stages, &stop).await,
                    Family::SearchTasks => searcher::run(consumer, &stages, &stop).await,
                }
            }
            Err(error) => Err(Stopped::Queue(error)),
        };
        match outcome {
            Ok(()) => return,
            Err(reason) => {
                metrics::counter!("aula_worker_restarts_total").increment(1);
                tracing::error!(%lane, %reason, "the lane is taken again");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RESTART_AFTER) => {}
        }
    }
}

/// Why an owner gave up its lane. Nothing is lost: what it did not acknowledge is delivered again.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("{0}")]
    Conflict(super::store::StoreError),
}

/// Waits between attempts of what must succeed: doubling, at most two seconds, with jitter so that lanes that failed
/// together don't come back together.
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(Duration::from_millis(20))
    }

    pub(crate) async fn pause(&mut self) {
        let jitter = 0.5 + f64::from(uuid::Uuid::new_v4().as_u128() as u16) / f64::from(u16::MAX);
        tokio::time::sleep(self.0.mul_f64(jitter)).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(2));
    }
}
