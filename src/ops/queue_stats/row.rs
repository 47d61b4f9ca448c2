//! What is told of a lane, from two looks at it.

use std::time::Instant;

use serde::Serialize;

use super::verdict::Verdict;
use crate::message::Millis;
use crate::server::queue::{Family, Flows, LaneFlow, LaneStats, QueueError, TaskQueue};

/// One look.
pub struct Sample {
    pub at: Instant,
    pub stats: Vec<LaneStats>,
    pub flows: Flows,
}

impl Sample {
    pub async fn take(queue: &dyn TaskQueue) -> Result<Self, QueueError> {
        let (stats, flows) = tokio::join!(queue.stats(), queue.flows());
        Ok(Self { at: Instant::now(), stats: stats?, flows: flows? })
    }
}

/// A lane. Numbers that can't be told are `null`.
#[derive(Debug, Serialize)]
pub struct Row {
    #[serde(flatten)]
    pub lane: LaneStats,
    pub in_per_s: Option<f64>,
    pub out_per_s: Option<f64>,
    /// Seconds until it is empty at the present rate; `None` also if it grows.
    pub drain_s: Option<f64>,
    pub redelivered: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub verdict: Verdict,
}

/// All lanes that are asked for.
pub struct Picture {
    pub rows: Vec<Row>,
    /// Tasks a second into and out of all lanes together, where they can't be told apart.
    pub together: Option<(f64, f64)>,
}

impl Picture {
    /// `before` is an earlier look; without one no rate is told that the queue doesn't tell by itself.
    pub fn of(now: Sample, before: Option<&Sample>, only: Option<Family>) -> Self {
        let seconds = before.map(|before| now.at.duration_since(before.at).as_secs_f64().max(0.001));
        let together = before.zip(seconds).and_then(|(before, seconds)| {
            let came = now.flows.enqueued?.checked_sub(before.flows.enqueued?)? as f64;
            let depth = |sample: &Sample| sample.stats.iter().map(|lane| lane.depth as f64).sum::<f64>();
            // One may have been put there that is not counted yet.
            let went = (came + depth(before) - depth(&now)).max(0.0);
            Some((came / seconds, went / seconds))
        });
        let flows = now.flows.lanes.into_iter().chain(std::iter::repeat(LaneFlow::default()));
        let rows = now.stats.into_iter().zip(flows).map(|(lane, flow)| {
            let earlier = before.and_then(|before| {
                before.stats.iter().find(|other| other.queue == lane.queue && other.shard == lane.shard)
            });
            let shrinks = earlier.zip(seconds).map(|(earlier, s)| (earlier.depth as f64 - lane.depth as f64) / s);
            row(lane, flow, shrinks)
        });
        let rows = rows.filter(|row| only.is_none_or(|family| family.as_str() == row.lane.queue));
        Self { rows: rows.collect(), together }
    }
}

/// `shrinks`: tasks a second by which it becomes less.
fn row(mut lane: LaneStats, flow: LaneFlow, shrinks: Option<f64>) -> Row {
    if lane.oldest_ms.is_none() && lane.depth > 0 {
        lane.oldest_ms = flow.head_at.map(|at| Millis::now().0.saturating_sub(at.0).max(0) as u64);
    }
    let told = flow.out_per_s.zip(flow.in_per_s).map(|(out, came)| out - came);
    let net = told.or(shrinks);
    let drain_s =
        if lane.depth == 0 { Some(0.0) } else { net.filter(|net| *net > 0.0).map(|net| lane.depth as f64 / net) };
    let verdict = Verdict::of(&lane, net);
    Row {
        in_per_s: flow.in_per_s,
        out_per_s: flow.out_per_s,
        drain_s,
        redelivered: flow.redelivered,
        memory_bytes: flow.memory_bytes,
        verdict,
        lane,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    pub fn lane(queue: &str, shard: u16, depth: u64, consumer: Option<&str>) -> LaneStats {
        LaneStats {
            queue: queue.into(),
            shard,
            depth,
            ready: None,
            unacknowledged: None,
            oldest_ms: (depth > 0).then_some(1_500),
            dead_letters: 0,
            consumers: u64::from(consumer.is_some()),
            consumer: consumer.map(str::to_owned),
        }
    }

    fn sample(at: Instant, depth: u64, enqueued: u64, flow: LaneFlow) -> Sample {
        let flows = Flows { lanes: vec![flow], enqueued: Some(enqueued) };
        Sample { at, stats: vec![lane("db_tasks", 0, depth, Some("worker-1"))], flows }
    }

    #[test]
    fn two_looks_tell_what_came_what_went_and_how_long_the_rest_takes() {
        let began = Instant::now();
        let first = sample(began, 500, 1_000, LaneFlow::default());
        let second = sample(began + Duration::from_secs(2), 300, 1_040, LaneFlow::default());
        let picture = Picture::of(second, Some(&first), None);
        assert_eq!(picture.together, Some((20.0, 120.0)));
        assert_eq!(picture.rows[0].drain_s, Some(3.0));
        assert_eq!((picture.rows[0].in_per_s, picture.rows[0].verdict), (None, Verdict::Ok));
    }

    #[test]
    fn what_the_queue_tells_by_itself_is_believed() {
        let flow = LaneFlow { in_per_s: Some(10.0), out_per_s: Some(5.0), ..LaneFlow::default() };
        let picture = Picture::of(sample(Instant::now(), 500, 0, flow), None, None);
        assert_eq!((picture.rows[0].drain_s, picture.rows[0].verdict), (None, Verdict::FallingBehind));
        let none = Picture::of(sample(Instant::now(), 500, 0, LaneFlow::default()), None, Some(Family::IndexTasks));
        assert!(none.rows.is_empty() && none.together.is_none());
    }

    #[test]
    fn the_names_of_old_fields_stay() {
        let picture = Picture::of(sample(Instant::now(), 2, 0, LaneFlow::default()), None, None);
        let json = serde_json::to_value(&picture.rows).unwrap();
        for name in ["queue", "shard", "depth", "oldest_ms", "dead_letters", "consumer", "verdict", "drain_s"] {
            assert!(json[0].get(name).is_some(), "{name}: {json}");
        }
        assert_eq!(json[0]["verdict"], "ok");
    }
}
