//! Search by way of the queue `search_tasks`: the gateway asks, some worker answers, by the gateway's name.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Query, Search, SearchError};
use crate::message::Username;
use crate::server::queue::{Family, Lane, SearchTask, Task, TaskQueue};
use crate::wire::frame::SearchPage;

/// Questions that wait for their answer, at most.
const MAX_WAITING: usize = 10_000;
/// Beyond the time that the search itself may take: two hops through the broker.
const TRAVEL: Duration = Duration::from_millis(500);

type Outcome = Result<SearchPage, SearchError>;

/// An answer on its way back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchAnswer {
    /// As in the question.
    pub id: u64,
    pub outcome: Outcome,
}

/// Takes answers to the gateway that asked.
#[async_trait]
pub trait SearchAnswers: Send + Sync + 'static {
    /// An answer that can't be delivered is dropped: by then nobody waits for it.
    async fn answer(&self, gateway: &str, answer: SearchAnswer);
}

/// The gateway's end.
pub struct QueuedSearch {
    queue: Arc<dyn TaskQueue>,
    gateway: String,
    waiting: Arc<Waiting>,
    timeout: Duration,
}

/// The questions without an answer.
#[derive(Default)]
pub struct Waiting {
    next_id: AtomicU64,
    asked: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
}

impl Waiting {
    pub fn answered(&self, SearchAnswer { id, outcome }: SearchAnswer) {
        let asked = self.asked.lock().remove(&id);
        // Whoever asked may have gone, or been told that it took too long.
        if asked.is_none_or(|asked| asked.send(outcome).is_err()) {
            metrics::counter!("aula_search_answers_late_total").increment(1);
        }
    }

    fn ask(self: &Arc<Self>) -> Option<(Question, oneshot::Receiver<Outcome>)> {
        let mut asked = self.asked.lock();
        if asked.len() >= MAX_WAITING {
            return None;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        asked.insert(id, sender);
        Some((Question { id, waiting: Arc::clone(self) }, answer))
    }
}

/// Forgotten when whoever asks goes away.
struct Question {
    id: u64,
    waiting: Arc<Waiting>,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.waiting.asked.lock().remove(&self.id);
    }
}

impl QueuedSearch {
    /// Asks by `queue` as `gateway`; whoever receives the answers hands them to [`waiting`](Self::waiting).
    pub fn new(queue: Arc<dyn TaskQueue>, gateway: String, timeout: Duration) -> Self {
        Self { queue, gateway, waiting: Arc::default(), timeout }
    }

    pub fn waiting(&self) -> Arc<Waiting> {
        Arc::clone(&self.waiting)
    }
}

#[async_trait]
impl Search for QueuedSearch {
    async fn search(&self, searcher: &Username, query: Query) -> Outcome {
        let unavailable = |reason: String| SearchError::Unavailable(reason);
        let (question, answer) =
            self.waiting.ask().ok_or_else(|| unavailable("too many searches wait for their answer".into()))?;
        let task = SearchTask { id: question.id, gateway: self.gateway.clone(), searcher: searcher.clone(), query };
        let payload = Task::Search(task).encode().map_err(|error| unavailable(error.to_string()))?;
        let waiting = Arc::clone(&self.waiting);
        let id = question.id;
        let confirm = move |outcome: Result<(), _>| {
            if let Err(error) = outcome {
                let outcome = Err(SearchError::Unavailable(format!("{error}")));
                waiting.answered(SearchAnswer { id, outcome });
            }
        };
        let lane = Lane { family: Family::SearchTasks, shard: 0 };
        self.queue.enqueue(lane, payload, Box::new(confirm)).map_err(|error| unavailable(error.to_string()))?;
        match tokio::time::timeout(self.timeout + TRAVEL, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_dropped)) => Err(unavailable("the question was dropped".into())),
            Err(_elapsed) => Err(unavailable("no worker has answered in time".into())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
