use std::time::Duration;

use anyhow::Context as _;

use super::{Context, Exit, migrate};
use crate::server::backends::{self};
use crate::server::queue::{Family, LaneStats};

/// Show how full the queues are
///
/// Depth is what waits or is under way; age is that of the oldest such task. A depth that grows while a consumer is
/// named means that it can't keep up; `-` as the consumer means that nobody works on the shard.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<Family>,
    /// Show it again every second, until ctrl-c
    #[arg(long)]
    watch: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = context.config()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let queue = migrate::with_hint_or(
                backends::look_at_queue(&config).await,
                "is this the server's data directory? see --data-dir and `aula config print`",
            )?;
            loop {
                let lanes = queue.stats().await;
                let mut lanes = lanes.with_context(|| migrate::database(&config).display().to_string())?;
                lanes.retain(|lane| self.queue.is_none_or(|family| family.as_str() == lane.queue));
                context.output.rows(&lanes, ["QUEUE", "SHARD", "DEPTH", "OLDEST", "DEAD", "CONSUMER"], row)?;
                if !self.watch {
                    return Ok(Exit::Done);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    }
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
