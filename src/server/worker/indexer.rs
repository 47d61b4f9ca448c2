use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Backoff, Stages, Stopped};
use crate::server::queue::{Consumer, Delivery, IndexTask, Tag, Task};
use crate::server::store::Page;

/// Index tasks taken at once.
const BATCH: usize = 128;
/// Entries read and indexed at once.
const PAGE: usize = 128;
/// A pause after each batch lets the next one grow: an index is written more cheaply in larger pieces, and nobody
/// waits for it.
const GATHER: Duration = Duration::from_millis(50);

/// Makes stored entries findable until `stop`.
pub(super) async fn run(
    mut consumer: Box<dyn Consumer>,
    stages: &Stages,
    stop: &CancellationToken,
) -> Result<(), Stopped> {
    loop {
        let deliveries = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            deliveries = consumer.next_batch(BATCH) => deliveries?,
        };
        let mut done: Vec<Tag> = Vec::with_capacity(deliveries.len());
        for Delivery { tag, payload, .. } in deliveries {
            match Task::decode(&payload) {
                Ok(Task::Index(task)) => {
                    index(stages, &task).await;
                    done.push(tag);
                }
                Ok(_) => consumer.dead_letter(tag, "not an index task").await?,
                Err(error) => consumer.dead_letter(tag, &error.to_string()).await?,
            }
        }
        consumer.acknowledge(&done);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(GATHER) => {}
        }
    }
}

/// Tries until it succeeds.
async fn index(stages: &Stages, task: &IndexTask) {
    let mut backoff = Backoff::new();
    let mut after = task.first.saturating_sub(1);
    while after < task.last {
        let limit = PAGE.min((task.last - after) as usize);
        let outcome = match stages.store.messages(task.channel, Page::After(after), limit).await {
            Ok(messages) => match messages.last().map(|last| last.seq) {
                // Purged meanwhile: nothing is left to find.
                None => return,
                Some(last) => stages.search.index(messages).await.map(|()| last).map_err(|error| error.to_string()),
            },
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            Ok(last) => after = last,
            Err(error) => {
                tracing::warn!(%error, channel = %task.channel, "entries are not indexed yet");
                backoff.pause().await;
            }
        }
    }
}
