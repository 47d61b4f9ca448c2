//! The command to run next.

use std::collections::BTreeMap;

use super::row::{Picture, Row};
use super::verdict::Verdict;
use crate::ops::output::counted;

/// A line for each thing that is wrong with a queue.
pub fn advice(picture: &Picture) -> Vec<String> {
    let mut queues: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &picture.rows {
        queues.entry(&row.lane.queue).or_default().push(row);
    }
    let mut lines = Vec::new();
    for (queue, rows) in queues {
        let shards = |verdict| {
            let of_it = rows.iter().filter(|row| row.verdict == verdict).map(|row| row.lane.shard.to_string());
            let of_it: Vec<String> = of_it.collect();
            (!of_it.is_empty()).then(|| of_it.join(", "))
        };
        if let Some(shards) = shards(Verdict::Stuck) {
            lines.push(format!(
                "{queue} {shards}: nobody works on it: `aula worker --queue {queue}` (runbooks/queue-grows.md)"
            ));
        }
        if let Some(shards) = shards(Verdict::FallingBehind) {
            lines.push(format!(
                "{queue} {shards}: does it go on? `aula queue-stats --watch --queue {queue}` (runbooks/queue-grows.md)"
            ));
        }
        let dead: u64 = rows.iter().map(|row| row.lane.dead_letters).sum();
        if dead > 0 {
            let letters = counted(dead, "dead letter");
            lines.push(format!(
                "{queue}: {letters}: `aula dead-letters list --queue {queue}` (runbooks/dead-letters.md)"
            ));
        }
    }
    lines
}
