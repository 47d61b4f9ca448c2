//! Whether the queues move, by the verdicts of `aula queue-stats`.

use std::time::Duration;

use super::finding::Finding;
use crate::config::{Config, Deployment};
use crate::message::Millis;
use crate::ops::queue_stats::{Picture, Sample, Verdict, advice};
use crate::ops::terminal;
use crate::server::backends;
use crate::server::lock;
use crate::server::queue::Family;

/// Between two looks, to see what grows.
const INTERVAL: Duration = Duration::from_secs(1);
const CHECK: &str = "queues";
/// Messages that were sent so long ago are found as a rule.
const LAG_MS: u64 = 30_000;

pub async fn check(config: &Config) -> Vec<Finding> {
    match look(config).await {
        Ok(picture) => judge(config, &picture),
        Err(error) => {
            let cure = match config.deployment() {
                Deployment::Embedded => "`aula migrate`",
                Deployment::Distributed => "bring the broker up: `aula queue-stats` shows the queues then",
            };
            vec![Finding::unknown(CHECK, format!("{error:#}"), cure)]
        }
    }
}

async fn look(config: &Config) -> anyhow::Result<Picture> {
    let look = backends::look_at_queue(config).await?;
    let first = Sample::take(&*look.queue).await?;
    tokio::time::sleep(INTERVAL).await;
    Ok(Picture::of(Sample::take(&*look.queue).await?, Some(&first), None))
}

fn judge(config: &Config, picture: &Picture) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_stuck = picture.rows.iter().any(|row| row.verdict == Verdict::Stuck);
    for line in advice(picture) {
        // It names the queue and what is wrong, and then the command.
        let (found, cure) = line.split_once(": `").map_or((line.as_str(), ""), |(found, cure)| (found, cure));
        let cure = format!("`{cure}");
        findings.push(match found.contains("nobody works on it") {
            true => Finding::problem(CHECK, found, cure),
            false => Finding::warning(CHECK, found, cure),
        });
    }
    let idle: Vec<String> = picture
        .rows
        .iter()
        .filter(|row| row.lane.consumer.is_none() && row.verdict != Verdict::Stuck)
        .map(|row| format!("{} {}", row.lane.queue, row.lane.shard))
        .collect();
    let is_served = config.deployment() == Deployment::Distributed || lock::is_held(&config.data_dir);
    if !idle.is_empty() && is_served && !is_stuck {
        let found = format!("nobody is there to work on {}", idle.join(", "));
        let cure = "start workers before somebody writes: `aula worker --queue db_tasks`, and for the others";
        findings.push(Finding::warning(CHECK, found, cure));
    }
    if findings.is_empty() {
        let depth: u64 = picture.rows.iter().map(|row| row.lane.depth).sum();
        findings.push(Finding::ok(CHECK, format!("{} lanes move, {depth} tasks are in them", picture.rows.len())));
    }
    if config.deployment() == Deployment::Distributed {
        findings.push(index_lag(picture));
    }
    findings
}

/// What waits to be indexed is not found.
fn index_lag(picture: &Picture) -> Finding {
    const CHECK: &str = "index lag";
    let lane = picture.rows.iter().find(|row| row.lane.queue == Family::IndexTasks.as_str());
    let Some(row) = lane else {
        return Finding::unknown(CHECK, "there is no queue of index tasks", "`aula migrate`");
    };
    if row.lane.depth == 0 {
        return Finding::ok(CHECK, "nothing waits to be indexed");
    }
    let age = row.lane.oldest_ms;
    let told = age.map_or(String::new(), |age| format!(", the oldest for {}", terminal::age(age)));
    let found = format!("{} tasks wait to be indexed{told}", row.lane.depth);
    let is_old = age.is_some_and(|age| age > LAG_MS) || row.verdict != Verdict::Ok;
    let cure = "`aula queue-stats --watch --queue index_tasks`; more workers: `aula worker --queue index_tasks`";
    if is_old { Finding::warning(CHECK, found, cure) } else { Finding::ok(CHECK, found) }
}

/// Of an embedded index: so many stored entries are not in it, the first of them from `oldest`.
pub fn embedded_lag(waiting: u64, oldest: Option<Millis>, now: Millis) -> Finding {
    const CHECK: &str = "search index";
    let Some(oldest) = oldest else { return Finding::ok(CHECK, "has all messages that are stored") };
    let age = now.0.saturating_sub(oldest.0).max(0) as u64;
    let found = format!("{waiting} messages are not in it, the oldest from {} ago", terminal::age(age));
    if age <= LAG_MS {
        return Finding::ok(CHECK, found);
    }
    let cure = "`aula serve` indexes them when it starts; beside a running one: `aula reindex --since 1d`";
    Finding::warning(CHECK, found, cure)
}
