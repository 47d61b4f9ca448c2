//! `aula purge-channel`: the beginning of a channel, or all that was said in it, removed for good.

mod plan;
mod records;
mod report;

use std::num::NonZeroU32;

use uuid::Uuid;

use self::plan::Plan;
use self::report::Report;
use super::exit::Advise as _;
use super::progress::Progress;
use super::signals::Terminate;
use super::{Context, Exit, arguments, confirm, migrate, queue_stats};
use crate::config::{Config, Deployment};
use crate::message::{ChannelId, Millis, Seq};
use crate::server::backends::Stored;
use crate::server::purge::{Order, PurgeError, Purged, Purger};
use crate::server::store::Cause;

/// Remove a channel's messages for good: all that are stored, or those before a seq or a time
///
/// They go from the log, from the search index, from the caches of running gateways, whose clients are told, and sends
/// to the channel that were set aside go from the dead letters. The channel stays, with its members, and its next message
/// has the next seq. What was accepted and is not stored yet when the purge begins is newer than what it removes.
///
/// It says first what would go, and asks. It may be interrupted: what is gone by then is gone, and the same command does
/// the rest. Who had what removed is recorded; `--records` shows it.
///
/// Backups are not touched, and bytes that were deleted stay on the disk until the databases use their place again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aula purge-channel 0192f0c1-7a1e-7cc3-98c4-dc0c0c07398f --dry-run
  aula purge-channel 0192f0c1-7a1e-7cc3-98c4-dc0c0c07398f --before 90d
  aula purge-channel 0192f0c1-7a1e-7cc3-98c4-dc0c0c07398f --before-seq 1200 --yes
  aula purge-channel --records

Exit codes: 0 all of it is gone; 1 failed; 2 wrong arguments or configuration; 3 some of it is gone: run it again.")]
pub struct Args {
    /// The channel
    #[arg(value_name = "ID", required_unless_present = "records")]
    channel: Option<Uuid>,
    /// Only messages with a lower seq
    #[arg(long, value_name = "N", conflicts_with = "before", value_parser = clap::value_parser!(u64).range(1..))]
    before_seq: Option<Seq>,
    /// Only messages that were sent before: a time (2026-11-22T19:45:53Z) or how long ago (90d)
    #[arg(long, value_name = "TIME", value_parser = arguments::moment)]
    before: Option<Millis>,
    /// Messages a second, at most
    #[arg(long, value_name = "N", default_value = "10000")]
    rate: NonZeroU32,
    /// Say what would go, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// Show what was purged before, newest first, of the channel or of all
    #[arg(long, conflicts_with_all = ["before_seq", "before", "rate", "dry_run", "yes"])]
    records: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = context.config()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(async {
            let stored = open(&config).await?;
            match self.channel {
                Some(channel) if !self.records => {
                    let job = Job { args: &self, context, channel: ChannelId(channel), stored };
                    job.run(&config).await
                }
                of => records::show(context, &*stored.purge, of.map(ChannelId)).await,
            }
        })
    }
}

async fn open(config: &Config) -> anyhow::Result<Stored> {
    let hint = match config.deployment() {
        Deployment::Embedded => "is this the server's data directory? see --data-dir and `aula config print`",
        Deployment::Distributed => "are these the deployment's servers? see `aula config print`",
    };
    migrate::with_hint_or(Stored::open(config).await, hint)
}

struct Job<'a> {
    args: &'a Args,
    context: &'a Context,
    channel: ChannelId,
    stored: Stored,
}

impl Job<'_> {
    async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let look = queue_stats::look(config).await?;
        let purger = Purger {
            store: self.stored.store.clone(),
            purge: self.stored.purge.clone(),
            index: self.stored.index.clone(),
            queue: look.queue,
            dead_letters: look.dead_letters,
            bus: look.bus,
        };
        let Some(state) = self.stored.store.channel(self.channel).await? else {
            return Err(anyhow::anyhow!("there is no channel {} in {}", self.channel, self.stored.place))
                .exit(Exit::Usage);
        };
        let plan = Plan::make(&purger, self.channel, &state, self.args.before_seq, self.args.before).await?;
        if self.args.dry_run {
            self.context.output.value(&plan, || plan.text())?;
            return Ok(Exit::Done);
        }
        if !self.args.yes {
            self.context.output.note(plan.text());
            if plan.messages > 0 && !confirm::ask(&format!("Remove {}, for good?", plan.messages_in_words()))? {
                self.context.output.note("nothing was done");
                return Ok(Exit::Failed);
            }
        }
        // Also if nothing is to go: what an earlier run left is removed, and who was not told is.
        let order = Order {
            channel: self.channel,
            through: plan.through,
            letters_until: Some(plan.letters_until),
            by: operator(),
            cause: Cause::Command,
            rate: self.args.rate.get(),
        };
        let stop = Terminate::token()?;
        let mut progress = Progress::new(self.context.output.is_quiet());
        let (after, all) = (plan.after, (plan.through - plan.after).max(1));
        let outcome = purger
            .run(&order, &stop, |stand| {
                let done = stand.purged_seq.saturating_sub(after).min(all);
                progress.show(done as f64 / all as f64, stand.entries, "messages");
            })
            .await;
        drop(progress);
        let purged = match outcome {
            Err(PurgeError::IndexBeingBuilt) => {
                return Err(PurgeError::IndexBeingBuilt).hint(
                    "it would take in what goes: wait for `aula reindex`, or give that up by `aula reindex --abandon`",
                );
            }
            other => other.hint("some of it may be gone: the same command does the rest")?,
        };
        self.report(&purged)
    }

    fn report(&self, purged: &Purged) -> anyhow::Result<Exit> {
        let report = Report::of(purged);
        self.context.output.value(&report, || report.text())?;
        if purged.letters_beyond > 0 {
            self.context.output.note(format_args!(
                "{} dead letters were not looked at: run it again for these",
                purged.letters_beyond
            ));
        }
        if purged.may_be_in_new_index {
            self.context.output.note(
                "an index began to be built meanwhile: run it again when `aula reindex` has ended, or abandon that",
            );
        }
        let is_all = purged.is_whole && purged.letters_beyond == 0 && !purged.may_be_in_new_index;
        Ok(if is_all { Exit::Done } else { Exit::Partly })
    }
}

/// For the record: the operating system's user, and the host.
fn operator() -> String {
    let user = std::env::var("SUDO_USER").or_else(|_unset| std::env::var("USER"));
    let user = user.unwrap_or_else(|_unset| format!("uid {}", rustix::process::getuid().as_raw()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
}
