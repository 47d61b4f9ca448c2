//! How full the lanes are, as far as can be told.
//!
//! AMQP tells how many tasks are ready, at once and exactly. What consumers have in hand this process knows of its own;
//! of others, and who they are, the management interface tells it, if it is configured: the numbers some seconds late.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::{Family, Flows, Lane, LaneFlow, LaneStats, QueueError};
use super::consumer::Taken;
use super::{Inner, SHARED, queue_name};
use crate::message::Millis;
use crate::server::rabbitmq::management::{Management, MeasuredQueue, QueueCounts};
use crate::server::rabbitmq::process;
use crate::server::rabbitmq::topology::present::Looker;

/// Of the others, by queue.
#[derive(Default)]
struct Others {
    counts: HashMap<String, QueueCounts>,
    consumers: HashMap<String, Vec<String>>,
}

impl Others {
    /// Without the interface the figures say less; they are not worth failing for.
    async fn told_by(management: Option<&Management>) -> Self {
        let Some(management) = management else { return Self::default() };
        let (counts, consumers) = tokio::join!(management.queues(), management.active_consumers());
        let counts = counts.unwrap_or_else(|error| {
            tracing::warn!(%error, "tasks in the hands of other processes are not counted");
            HashMap::new()
        });
        let consumers = consumers.unwrap_or_else(|error| {
            tracing::warn!(%error, "other processes are not named");
            HashMap::new()
        });
        Self { counts, consumers }
    }

    fn consumer(&self, queue: &str) -> String {
        let mut names: Vec<&str> = self.consumers.get(queue).into_iter().flatten().map(String::as_str).collect();
        names.sort_unstable();
        match names[..] {
            [] => "another process".to_owned(),
            [one] => one.to_owned(),
            [first, ..] => format!("{first}, and {} more", names.len() - 1),
        }
    }
}

pub(super) async fn collect(inner: &Inner) -> Result<Vec<LaneStats>, QueueError> {
    let others = Others::told_by(inner.options.management.as_ref()).await;
    let mut looker = Looker::new(&inner.options.consuming).await?;
    let mut lanes = Vec::new();
    for (family, shards) in
        [(Family::DbTasks, inner.shards), (Family::IndexTasks, SHARED), (Family::SearchTasks, SHARED)]
    {
        for shard in 0..shards {
            let lane = Lane { family, shard };
            lanes.push(lane_stats(inner, lane, &mut looker, &others).await?);
        }
        // One queue for all lanes of a family: told at the first.
        let dead = match family {
            // A question that can't be read is worth nobody's time.
            Family::SearchTasks => None,
            _ => looker.count(&format!("{family}.dead")).await?,
        };
        if let Some(first) = lanes.iter_mut().rev().take(usize::from(shards)).last() {
            first.dead_letters = dead.map_or(0, |count| count.ready);
        }
    }
    Ok(lanes)
}

async fn lane_stats(
    inner: &Inner,
    lane: Lane,
    looker: &mut Looker<'_>,
    others: &Others,
) -> Result<LaneStats, QueueError> {
    let mut stats = LaneStats {
        queue: lane.family.as_str().to_owned(),
        shard: lane.shard,
        depth: 0,
        ready: None,
        unacknowledged: None,
        oldest_ms: None,
        dead_letters: 0,
        consumers: 0,
        consumer: None,
    };
    if let Some(own) = own(inner, lane)
        && let Ok(depth) = own.depth().await
    {
        stats.depth = depth.ready + depth.in_hand;
        (stats.ready, stats.unacknowledged) = (Some(depth.ready), Some(depth.in_hand));
        stats.consumers = depth.consumers;
        stats.oldest_ms = depth.oldest.map(|at| Millis::now().0.saturating_sub(at.0).max(0) as u64);
        stats.consumer = Some(process());
        return Ok(stats);
    }
    let name = queue_name(lane);
    let Some(count) = looker.count(&name).await? else { return Ok(stats) };
    (stats.depth, stats.ready, stats.consumers) = (count.ready, Some(count.ready), count.consumers);
    stats.unacknowledged = others.counts.get(&name).map(|counts| counts.messages_unacknowledged);
    if count.consumers > 0 {
        stats.depth += stats.unacknowledged.unwrap_or(0);
        stats.consumer = Some(others.consumer(&name));
    }
    Ok(stats)
}

/// Without the management interface nothing is known.
pub(super) async fn flows(inner: &Inner) -> Flows {
    let measured = match inner.options.management.as_ref() {
        Some(management) => management.measured_queues().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "rates and memory can't be told");
            HashMap::new()
        }),
        None => HashMap::new(),
    };
    let families = [(Family::DbTasks, inner.shards), (Family::IndexTasks, SHARED), (Family::SearchTasks, SHARED)];
    let lanes = families.into_iter().flat_map(|(family, shards)| (0..shards).map(move |shard| Lane { family, shard }));
    let of_lane = |lane| measured.get(&queue_name(lane)).map(flow).unwrap_or_default();
    Flows { lanes: lanes.map(of_lane).collect(), enqueued: None }
}

fn flow(queue: &MeasuredQueue) -> LaneFlow {
    let totals = queue.message_stats.as_ref();
    LaneFlow {
        in_per_s: totals.and_then(|totals| totals.publish_details.as_ref()).map(|details| details.rate),
        out_per_s: totals.and_then(|totals| totals.ack_details.as_ref()).map(|details| details.rate),
        redelivered: totals.map(|totals| totals.redeliver),
        memory_bytes: queue.memory,
        head_at: queue.head_message_timestamp.map(|seconds| Millis(seconds.saturating_mul(1000))),
    }
}

fn own(inner: &Inner, lane: Lane) -> Option<Arc<Taken>> {
    let mut all = inner.taken.lock();
    all.retain(|_, taken| taken.strong_count() > 0);
    all.get(&lane)?.upgrade().filter(|taken| taken.is_alive())
}
