//! `aula queue-stats`: how full the queues are, what goes through them, and what to do about it.

mod advice;
mod check;
mod row;
mod table;
mod verdict;
mod watch;

use std::time::Duration;

pub(super) use self::advice::advice;
use self::check::Check;
pub(super) use self::row::{Picture, Sample};
pub(super) use self::verdict::Verdict;
use super::{Context, Exit, migrate, terminal};
use crate::config::{Config, Deployment};
use crate::server::backends::{self, Look};
use crate::server::queue::{Family, QueueError};

/// Between two looks, of which the difference is told.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show how full the queues are, how fast they move, and what is wrong
///
/// Depth is what waits or is under way; age is that of the oldest such task. Drain is how long it takes to work that off
/// if all goes on as in the last second. `-` means that it can't be told, in the column of the consumer that nobody works
/// on the shard.
///
/// RabbitMQ's figures come from its management interface, without the details by channel: depth and consumers are of this
/// moment, rates and memory up to 5 s old, the rates missing if its `rates_mode` is `none`, and all of them without
/// `rabbitmq.management_url`. Dead letters are told at shard 0, and not while somebody looks through them.
///
/// Of the embedded queue the table is read: rates are told for all lanes together, and who stands by is not known. `aula
/// serve` hands most tasks over to its own workers in memory, without a row: those are only seen in its /metrics.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  aula queue-stats                                       now
  aula queue-stats --watch --queue db_tasks              again every second, until ctrl-c
  aula --quiet queue-stats --check 'age<30s' --check 'dead<1'   for monitoring: exits 1 and says what broke it

--check compares age, depth, ready, unacked, dead or consumers of each lane by <, <=, >, >= or =. Ages have units (30s, \
5m). What can't be told breaks a check: it is not known to hold. The age of an empty lane is 0. RabbitMQ tells no age: \
check depth there.")]
pub struct Args {
    /// Only this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<Family>,
    /// Show it again every second, until ctrl-c, also while the queues can't be read
    #[arg(long, conflicts_with = "checks")]
    watch: bool,
    /// Exit 1 unless this holds for each lane; several may be given
    #[arg(long = "check", value_name = "EXPR")]
    checks: Vec<Check>,
}

/// The queues of the configuration, to look at.
pub(super) async fn look(config: &Config) -> anyhow::Result<Look> {
    let hint = match config.deployment() {
        Deployment::Embedded => "is this the server's data directory? see --data-dir and `aula config print`",
        Deployment::Distributed => "is this the server's broker? see rabbitmq.url in `aula config print`",
    };
    migrate::with_hint_or(backends::look_at_queue(config).await, hint)
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = context.config()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let look = look(&config).await?;
            if self.watch {
                return watch::run(context, &look, self.queue).await;
            }
            let first = sample(&look).await?;
            if !self.checks.is_empty() {
                return check::run(context, &Picture::of(first, None, self.queue), &self.checks);
            }
            tokio::time::sleep(INTERVAL).await;
            let picture = Picture::of(sample(&look).await?, Some(&first), self.queue);
            show(context, &picture)?;
            Ok(Exit::Done)
        })
    }
}

async fn sample(look: &Look) -> anyhow::Result<Sample> {
    Sample::take(&*look.queue).await.map_err(|error| anyhow::anyhow!(unreadable(look, error)))
}

fn show(context: &Context, picture: &Picture) -> anyhow::Result<()> {
    if context.output.is_json() {
        context.output.json(&picture.rows)?;
        return Ok(());
    }
    let lines = table::lines(picture, terminal::width(), super::output::stdout_has_colors());
    context.output.text(&(lines.join("\n") + "\n"))?;
    Ok(())
}

/// What is wrong, and where, said once. Nothing was to be written.
fn unreadable(look: &Look, error: QueueError) -> String {
    let reason = match error {
        QueueError::Unavailable(reason) => reason,
        other => other.to_string(),
    };
    format!("{}: the queues can't be read now: {reason}", look.place)
}
