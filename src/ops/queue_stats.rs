use std::io;
use std::time::Duration;

use super::{Context, Exit, migrate};
use crate::config::Deployment;
use crate::server::backends::{self, Look};
use crate::server::queue::{Family, LaneStats, QueueError};

/// Show how full the queues are
///
/// Depth is what waits or is under way; age is that of the oldest such task. A depth that grows while a consumer is
/// named means that it can't keep up; `-` as the consumer means that nobody works on the shard.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<Family>,
    /// Show it again every second, until ctrl-c, also while the queues can't be read
    #[arg(long)]
    watch: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = context.config()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let hint = match config.deployment() {
                Deployment::Embedded => "is this the server's data directory? see --data-dir and `aula config print`",
                Deployment::Distributed => "is this the server's broker? see rabbitmq.url in `aula config print`",
            };
            let look = migrate::with_hint_or(backends::look_at_queue(&config).await, hint)?;
            loop {
                match look.queue.stats().await {
                    Ok(lanes) => self.show(context, lanes)?,
                    Err(error) if !self.watch => return Err(anyhow::anyhow!(unreadable(&look, error))),
                    // Who watches wants to see it come back.
                    Err(error) => context.output.note(unreadable(&look, error)),
                }
                if !self.watch {
                    return Ok(Exit::Done);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    }

    fn show(&self, context: &Context, mut lanes: Vec<LaneStats>) -> io::Result<()> {
        lanes.retain(|lane| self.queue.is_none_or(|family| family.as_str() == lane.queue));
        context.output.rows(&lanes, ["QUEUE", "SHARD", "DEPTH", "OLDEST", "DEAD", "CONSUMER"], row)
    }
}

/// What is wrong, and where, said once. Nothing was to be written.
fn unreadable(look: &Look, error: QueueError) -> String {
    let reason = match error {
        QueueError::Unavailable(reason) => reason,
        other => other.to_string(),
    };
    format!("{}: the queues can't be read now: {reason}", look.place)
}

fn row(lane: &LaneStats) -> [String; 6] {
    let oldest = lane.oldest_ms.map_or_else(|| "-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
    let consumer = lane.consumer.clone().unwrap_or_else(|| "-".to_owned());
    [
        lane.queue.clone(),
        lane.shard.to_string(),
        lane.depth.to_string(),
        oldest,
        lane.dead_letters.to_string(),
        consumer,
    ]
}
