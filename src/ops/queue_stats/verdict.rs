use serde::Serialize;

use crate::server::queue::LaneStats;

/// Nobody waits so long for a worker that keeps up.
const OLD_MS: u64 = 10_000;
/// Fewer tasks come and go with every breath.
const MANY: u64 = 100;

/// How a lane is; the worst that is true of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Verdict {
    #[serde(rename = "ok")]
    Ok,
    #[serde(rename = "dead letters")]
    DeadLetters,
    #[serde(rename = "falling behind")]
    FallingBehind,
    #[serde(rename = "stuck: no consumer")]
    Stuck,
}

impl Verdict {
    /// `shrinks`: tasks a second that go out more than come in, if that is known.
    pub fn of(lane: &LaneStats, shrinks: Option<f64>) -> Self {
        let grows = lane.depth >= MANY && shrinks.is_some_and(|net| net < 0.0);
        let is_old = lane.depth > 0 && lane.oldest_ms.is_some_and(|age| age >= OLD_MS);
        if lane.depth > 0 && lane.consumer.is_none() {
            Self::Stuck
        } else if grows || is_old {
            Self::FallingBehind
        } else if lane.dead_letters > 0 {
            Self::DeadLetters
        } else {
            Self::Ok
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::DeadLetters => "dead letters",
            Self::FallingBehind => "falling behind",
            Self::Stuck => "stuck: no consumer",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::lane;
    use super::*;

    #[test]
    fn the_worst_is_said() {
        let busy = lane("db_tasks", 0, 500, Some("worker-1"));
        assert_eq!(Verdict::of(&busy, Some(3.0)), Verdict::Ok);
        assert_eq!(Verdict::of(&busy, None), Verdict::Ok, "nothing is known against it");
        assert_eq!(Verdict::of(&busy, Some(-1.0)), Verdict::FallingBehind);
        assert_eq!(Verdict::of(&lane("db_tasks", 0, 3, Some("worker-1")), Some(-3.0)), Verdict::Ok, "a few");
        let old = LaneStats { oldest_ms: Some(OLD_MS), ..lane("db_tasks", 0, 1, Some("worker-1")) };
        assert_eq!(Verdict::of(&old, Some(3.0)), Verdict::FallingBehind);
        assert_eq!(Verdict::of(&lane("db_tasks", 0, 1, None), None), Verdict::Stuck);
        assert_eq!(Verdict::of(&lane("db_tasks", 0, 0, None), None), Verdict::Ok, "nothing waits");
        let dead = LaneStats { dead_letters: 1, ..lane("db_tasks", 0, 0, None) };
        assert_eq!(Verdict::of(&dead, None), Verdict::DeadLetters);
        assert_eq!(Verdict::of(&LaneStats { depth: 1, ..dead }, None), Verdict::Stuck);
    }
}
