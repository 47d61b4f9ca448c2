use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::{Backoff, Stages, Stopped};
use crate::message::{ChannelId, Message, Seq};
use crate::server::queue::{Consumer, Delivery, IndexRange, IndexTask, Tag, Task};
use crate::server::store::Page;

/// Index tasks taken at once.
const BATCH: usize = 256;
/// Tasks that an indexer has in hand.
pub(super) const PREFETCH: usize = 4 * BATCH;
/// Entries in a range, at most: many times what an owner stores in one go.
const MAX_RANGE: u64 = 1_000_000;
/// Reads for one page that are under way at once.
const READS: usize = 8;
/// A pause after a batch lets the next one grow: an index is written more cheaply in larger pieces, and nobody waits
/// for it. A lane that has more than a batch is behind, and gets no pause.
const GATHER: Duration = Duration::from_millis(200);

/// Makes stored entries findable until `stop`. The consumer gives `prefetch` tasks at once, at most.
pub(super) async fn run(
    mut consumer: Box<dyn Consumer>,
    prefetch: usize,
    stages: &Stages,
    stop: &CancellationToken,
) -> Result<(), Stopped> {
    loop {
        let deliveries = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            deliveries = consumer.next_batch(BATCH) => deliveries?,
        };
        let is_behind = deliveries.len() >= BATCH.min(prefetch);
        let mut done: Vec<Tag> = Vec::with_capacity(deliveries.len());
        let mut ranges: BTreeMap<ChannelId, Vec<IndexRange>> = BTreeMap::new();
        for Delivery { tag, payload, .. } in deliveries {
            let problem = match Task::decode(&payload) {
                Ok(Task::Index(IndexTask { ranges: asked })) if asked.iter().all(can_be) => {
                    for range in asked {
                        // Tasks of a channel follow each other: most continue the range before.
                        IndexRange::append(ranges.entry(range.channel).or_default(), range);
                    }
                    done.push(tag);
                    continue;
                }
                Ok(Task::Index(_)) => "a range that can't be".to_owned(),
                Ok(_) => "not an index task".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::error!(problem, tag, "an index task goes to the dead letters");
            metrics::counter!("aula_dead_letters_total").increment(1);
            consumer.dead_letter(tag, &problem).await?;
        }
        index(stages, ranges).await;
        consumer.acknowledge(&done);
        if !is_behind {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(GATHER) => {}
            }
        }
    }
}

fn can_be(IndexRange { first, last, .. }: &IndexRange) -> bool {
    *first > 0 && (*first..first.saturating_add(MAX_RANGE)).contains(last)
}

/// Indexes what is stored of the ranges, in pages that may span channels.
async fn index(stages: &Stages, ranges: BTreeMap<ChannelId, Vec<IndexRange>>) {
    let full = stages.index.page().max(1);
    let (mut page, mut entries) = (Vec::new(), 0);
    for IndexRange { channel, mut first, last } in ranges.into_values().flatten() {
        while first <= last {
            let end = last.min(first.saturating_add((full - entries) as Seq - 1));
            page.push(IndexRange { channel, first, last: end });
            entries += (end - first + 1) as usize;
            first = end + 1;
            if entries >= full {
                index_page(stages, std::mem::take(&mut page)).await;
                entries = 0;
            }
        }
    }
    if !page.is_empty() {
        index_page(stages, page).await;
    }
}

async fn index_page(stages: &Stages, ranges: Vec<IndexRange>) {
    let mut backoff = Backoff::new();
    loop {
        match stages.index.index_stored(ranges.clone()).await {
            Ok(true) => return,
            Ok(false) => break,
            Err(error) => tracing::warn!(%error, "entries are not indexed yet"),
        }
        backoff.pause().await;
    }
    let reads = ranges.clone().into_iter().map(|range| read_range(stages, range));
    let found: Vec<Vec<Message>> = stream::iter(reads).buffered(READS).collect().await;
    let missing: Vec<IndexRange> =
        ranges.iter().zip(&found).filter_map(|(range, found)| purged(*range, found)).collect();
    let messages: Vec<Message> = found.into_iter().flatten().collect();
    if !messages.is_empty() {
        write(stages, messages).await;
    }
    for entries in missing {
        forget(stages, entries).await;
    }
}

/// What is known to be purged by what was found of a range: entries are stored before anybody asks for their indexing,
/// and only the beginning of a log is ever removed. An earlier task may have read them before, and written them to the
/// index afterwards: a purge sends a task behind all of these, and is so sure that none is left.
fn purged(range: IndexRange, found: &[Message]) -> Option<IndexRange> {
    let last = found.first().map_or(range.last, |first| first.seq - 1);
    (last >= range.first).then_some(IndexRange { first: 1, last, ..range })
}

/// Tries until it succeeds.
async fn forget(stages: &Stages, entries: IndexRange) {
    let mut backoff = Backoff::new();
    while let Err(error) = stages.index.forget(entries).await {
        tracing::warn!(%error, channel = %entries.channel, "purged entries are not out of the index yet");
        backoff.pause().await;
    }
}

/// What is there of a range.
async fn read_range(stages: &Stages, range: IndexRange) -> Vec<Message> {
    let (mut found, mut after) = (Vec::new(), range.first.saturating_sub(1));
    while after < range.last {
        let read = read(stages, range.channel, after, (range.last - after) as usize).await;
        // Purged meanwhile: nothing is left to find.
        let Some(newest) = read.last() else { break };
        after = newest.seq;
        found.extend(read.into_iter().filter(|message| message.seq <= range.last));
    }
    found
}

/// Tries until it succeeds.
async fn read(stages: &Stages, channel: ChannelId, after: Seq, limit: usize) -> Vec<Message> {
    let mut backoff = Backoff::new();
    loop {
        match stages.store.messages(channel, Page::After(after), limit).await {
            Ok(messages) => return messages,
            Err(error) => tracing::warn!(%error, %channel, "entries can't be read for the index yet"),
        }
        backoff.pause().await;
    }
}

/// Tries until it succeeds.
async fn write(stages: &Stages, page: Vec<Message>) {
    let mut backoff = Backoff::new();
    while let Err(error) = stages.index.index(page.clone()).await {
        tracing::warn!(%error, entries = page.len(), "entries are not indexed yet");
        backoff.pause().await;
    }
}
