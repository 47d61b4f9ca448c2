//! `aula reindex`: the search index, built anew from the store.

mod checkpoint;
mod report;
mod walkers;

use std::sync::Arc;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::checkpoint::{Checkpoint, Desk};
use self::report::{Outcome, Report};
use self::walkers::{Pace, walk};
use super::exit::Advise as _;
use super::progress::Progress;
use super::signals::Terminate;
use super::{Context, Exit, arguments, migrate};
use crate::config::{Config, Deployment};
use crate::message::{ChannelId, Kind, Millis, Seq};
use crate::server::backends::{Stored, make_data_dir};
use crate::server::lock;
use crate::server::search::rebuild::{Indexes, Rebuild, Rejected, Walk};
use crate::server::store::Page;

/// Entries whose content is compared before the new index takes the place of the old one.
const SAMPLE: usize = 1_000;
/// Entries read of one channel at once.
const PAGE: usize = 500;
/// Channels asked for at once when they are counted.
const COUNTED: usize = 1_000;

/// Build the search index anew from the store, while people go on writing and searching
///
/// A new index is filled beside the one in use. What is sent meanwhile goes into both. When it is whole, its number of
/// entries and the content of a sample are compared with the store; then it takes the place of the old one in one step.
/// The old one is kept, for `--rollback`, until `--drop-former` or the next reindex. If one message can't be indexed,
/// the old index stays in use, and the message is named.
///
/// With --channel or --since nothing is replaced: what the index in use lacks of these messages is put into it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aula reindex --dry-run        say what there is, and how much would be done
  aula reindex                  build a new index, compare it, use it
  aula reindex --resume         go on after an interruption
  aula reindex --since 2h       put in what was sent lately, and is not found
  aula reindex --rollback       go back to the index before

Exit codes: 0 done; 1 failed, and the index in use is what it was; 2 wrong arguments or configuration; 3 interrupted:
`aula reindex --resume` goes on.")]
pub struct Args {
    /// Mend only this channel, in the index in use
    #[arg(long, value_name = "ID")]
    channel: Option<Uuid>,
    /// Mend only what was sent since then, in the index in use: a time (2026-11-22T19:45:53Z) or how long ago (2h)
    #[arg(long, value_name = "TIME", value_parser = arguments::moment)]
    since: Option<Millis>,
    /// Go on with what was interrupted
    #[arg(long, conflicts_with_all = ["channel", "since"])]
    resume: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Walk through so many parts of the store side by side; an embedded store is always one [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
    /// Use the index again that the last reindex replaced
    #[arg(long, group = "way_back", conflicts_with_all = ["channel", "since", "resume", "dry_run"])]
    rollback: bool,
    /// Drop the index that is being built
    #[arg(long, group = "way_back", conflicts_with_all = ["channel", "since", "resume", "dry_run"])]
    abandon: bool,
    /// Drop the index that the last reindex replaced
    #[arg(long, group = "way_back", conflicts_with_all = ["channel", "since", "resume", "dry_run"])]
    drop_former: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = context.config()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let hint = match config.deployment() {
                Deployment::Embedded => "is this the server's data directory? see --data-dir and `aula config print`",
                Deployment::Distributed => "are these the deployment's servers? see `aula config print`",
            };
            let stored = migrate::with_hint_or(Stored::open(&config).await, hint)?;
            let job = Job { args: &self, config: &config, context, stored };
            job.run().await
        })
    }
}

struct Job<'a> {
    args: &'a Args,
    config: &'a Config,
    context: &'a Context,
    stored: Stored,
}

impl Job<'_> {
    async fn run(&self) -> anyhow::Result<Exit> {
        let indexes = self.rebuild().indexes().await?;
        if self.args.dry_run {
            return self.foretell(indexes).await;
        }
        make_data_dir(&self.config.data_dir)
            .with_context(|| format!("can't make {}", self.config.data_dir.display()))?;
        let desk = Desk::take(&self.config.data_dir)?;
        if self.args.abandon {
            self.rebuild().abandon().await?;
            desk.remove()?;
            return self.say(Outcome::Abandoned, indexes.next.as_deref());
        }
        if self.args.drop_former {
            self.rebuild().drop_former().await?;
            return self.say(Outcome::DroppedFormer, indexes.former.as_deref());
        }
        let stop = Terminate::token()?;
        if self.args.rollback {
            return self.roll_back(&stop).await;
        }
        match (self.args.channel, self.args.since) {
            (None, None) => self.build(indexes, &desk, &stop).await,
            (Some(channel), since) => self.mend_channel(ChannelId(channel), since, &stop).await,
            (None, since) => {
                let walks = self.rebuild().walks().await?;
                self.mend(walks, since, Outcome::Mended, &stop).await
            }
        }
    }

    fn rebuild(&self) -> &Arc<dyn Rebuild> {
        &self.stored.rebuild
    }

    /// How much there is.
    async fn foretell(&self, indexes: Indexes) -> anyhow::Result<Exit> {
        let (mut channels, mut entries) = (0_u64, 0_u64);
        for part in self.stored.scan.parts(1).await? {
            let mut after = None;
            loop {
                let found = self.stored.scan.channels(part, after, COUNTED).await?;
                channels += found.len() as u64;
                entries += found.iter().map(|channel| channel.last_seq).sum::<u64>();
                match found.last() {
                    Some(last) if found.len() == COUNTED => after = Some(last.cursor),
                    _ => break,
                }
            }
        }
        self.context.output.value(&report::Foretold { indexes: &indexes, channels, entries }, || {
            report::foretold(&indexes, channels, entries, &self.stored.place)
        })?;
        Ok(Exit::Done)
    }

    async fn build(&self, indexes: Indexes, desk: &Desk, stop: &CancellationToken) -> anyhow::Result<Exit> {
        if let Some(next) = indexes.next.filter(|_| !self.args.resume) {
            return Err(anyhow::anyhow!("an index is being built already: {next}"))
                .hint("`aula reindex --resume` goes on with it, `aula reindex --abandon` drops it");
        }
        let walks = self.rebuild().begin().await?;
        let index = self.rebuild().indexes().await?.next.context("the new index is gone again")?;
        let checkpoint = match desk.read()?.filter(|checkpoint| self.args.resume && checkpoint.index == index) {
            Some(checkpoint) => checkpoint,
            None => {
                if self.args.resume {
                    self.context
                        .output
                        .note("nothing is known here of how far it has come: it is walked through again");
                }
                Checkpoint::new(index, walks)
            }
        };
        // Before the first step: otherwise nothing tells that index from one of others.
        desk.write(&checkpoint).context("the checkpoint can't be written")?;
        let rebuild = Arc::clone(self.rebuild());
        let step = move |walk: Walk| {
            let rebuild = Arc::clone(&rebuild);
            async move { rebuild.fill(walk).await }
        };
        let mut progress = self.progress();
        let mut report = Report::new(&checkpoint.index);
        let walked = walk(checkpoint, step, self.pace(), Some(desk), &mut progress, stop).await;
        drop(progress);
        let (checkpoint, is_whole) =
            walked.hint("the index in use is what it was; `aula reindex --resume` goes on, `--abandon` gives it up")?;
        report.walked(&checkpoint);
        if !is_whole {
            return self.report(report, Outcome::Interrupted);
        }
        if checkpoint.rejected_count > 0 {
            return self.report(report, Outcome::Rejected);
        }
        let comparison = self.rebuild().compare(checkpoint.entries, SAMPLE).await?;
        let agrees = comparison.agrees();
        report.compared = Some(comparison);
        if !agrees {
            return self.report(report, Outcome::Differs);
        }
        crate::crash_point!("reindex_before_swap");
        self.rebuild().swap().await?;
        desk.remove()?;
        let Indexes { live, former, .. } = self.rebuild().indexes().await?;
        (report.index, report.former) = (live, former);
        self.report(report, Outcome::Replaced)
    }

    async fn roll_back(&self, stop: &CancellationToken) -> anyhow::Result<Exit> {
        let mending = self.rebuild().roll_back().await?;
        self.context.output.note("the former index is in use; what it lacks is put into it");
        self.mend(mending.walks, mending.since, Outcome::RolledBack, stop).await
    }

    async fn mend(
        &self,
        walks: Vec<Walk>,
        since: Option<Millis>,
        outcome: Outcome,
        stop: &CancellationToken,
    ) -> anyhow::Result<Exit> {
        let rebuild = Arc::clone(self.rebuild());
        let step = move |walk: Walk| {
            let rebuild = Arc::clone(&rebuild);
            async move { rebuild.mend(walk, since).await }
        };
        let index = self.rebuild().indexes().await?.live;
        let mut report = Report::new(&index);
        let mut progress = self.progress();
        let walked = walk(Checkpoint::new(index, walks), step, self.pace(), None, &mut progress, stop).await;
        drop(progress);
        let (checkpoint, is_whole) = walked.hint("the same command again does the rest")?;
        report.walked(&checkpoint);
        let outcome = match (is_whole, checkpoint.rejected_count) {
            (false, _) => Outcome::InterruptedMending,
            (true, 0) => outcome,
            (true, _) => Outcome::MendedPartly,
        };
        self.report(report, outcome)
    }

    async fn mend_channel(
        &self,
        channel: ChannelId,
        since: Option<Millis>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Exit> {
        let state = self.stored.store.channel(channel).await?;
        let Some(state) = state else {
            return Err(anyhow::anyhow!("there is no channel {channel} in {}", self.stored.place)).exit(Exit::Usage);
        };
        let mut report = Report::new(&self.rebuild().indexes().await?.live);
        let mut progress = self.progress();
        let mut after: Seq = 0;
        loop {
            let page = self.stored.store.messages(channel, Page::After(after), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            let is_wanted = |at: Millis| since.is_none_or(|since| at >= since);
            let texts = page.into_iter().filter(|message| message.kind == Kind::Text && is_wanted(message.at));
            let texts: Vec<_> = texts.collect();
            report.entries += texts.len() as u64;
            self.stored.index.index(texts).await?;
            progress.show(after as f64 / state.last_seq.max(after) as f64, report.entries, "entries");
            if stop.is_cancelled() {
                drop(progress);
                return self.report(report, Outcome::InterruptedMending);
            }
        }
        drop(progress);
        self.report(report, Outcome::Mended)
    }

    fn pace(&self) -> Pace {
        let is_embedded = self.config.deployment() == Deployment::Embedded;
        Pace {
            walkers: usize::from(self.args.workers.unwrap_or(2)),
            leaves_room: is_embedded && lock::is_held(&self.config.data_dir),
        }
    }

    fn progress(&self) -> Progress {
        Progress::new(self.context.output.is_quiet())
    }

    fn say(&self, outcome: Outcome, index: Option<&str>) -> anyhow::Result<Exit> {
        self.report(Report::new(index.unwrap_or_default()), outcome)
    }

    fn report(&self, report: Report, outcome: Outcome) -> anyhow::Result<Exit> {
        let report = report.ended(outcome);
        self.context.output.value(&report, || report.text())?;
        Ok(outcome.exit())
    }
}
