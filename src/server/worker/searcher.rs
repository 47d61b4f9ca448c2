use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::{Stages, Stopped};
use crate::server::queue::{Consumer, Delivery, SearchTask, Tag, Task};
use crate::server::search::{SearchAnswer, SearchAnswers, SearchIndex};

/// Searches under way at the same time.
pub(super) const CONCURRENCY: usize = 32;

/// Answers questions until `stop`, and then those that it has begun with.
pub(super) async fn run(
    mut consumer: Box<dyn Consumer>,
    stages: &Stages,
    stop: &CancellationToken,
) -> Result<(), Stopped> {
    let mut under_way = FuturesUnordered::new();
    loop {
        let room = CONCURRENCY - under_way.len();
        tokio::select! {
            () = stop.cancelled() => break,
            Some(tag) = under_way.next() => consumer.acknowledge(&[tag]),
            deliveries = consumer.next_batch(room), if room > 0 => {
                for Delivery { tag, payload, .. } in deliveries? {
                    match Task::decode(&payload) {
                        Ok(Task::Search(task)) => {
                            under_way.push(answer(Arc::clone(&stages.index), stages.answers.clone(), task, tag));
                        }
                        // Nobody waits for it any more: not worth an operator's time.
                        other => {
                            tracing::error!(reason = ?other.err(), "what is no question came as one");
                            consumer.acknowledge(&[tag]);
                        }
                    }
                }
            }
        }
    }
    while let Some(tag) = under_way.next().await {
        consumer.acknowledge(&[tag]);
    }
    Ok(())
}

async fn answer(
    index: Arc<dyn SearchIndex>,
    answers: Option<Arc<dyn SearchAnswers>>,
    task: SearchTask,
    tag: Tag,
) -> Tag {
    let SearchTask { id, gateway, searcher, query } = task;
    let outcome = index.search(&searcher, query).await;
    if let Some(answers) = answers {
        answers.answer(&gateway, SearchAnswer { id, outcome }).await;
    }
    tag
}
