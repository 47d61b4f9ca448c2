//! `aula verify`: whether all that is stored says the same.

mod channel;
mod finding;
mod others;
mod report;
mod suspects;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::channel::{Eyes, Seen};
use self::finding::Finding;
use self::report::Report;
use self::suspects::{IndexLook, Suspects};
use super::exit::Advise as _;
use super::patience::patiently;
use super::progress::Progress;
use super::signals::Terminate;
use super::{Context, Exit, arguments, migrate};
use crate::config::{Config, Deployment};
use crate::message::ChannelId;
use crate::server::backends::{self, Stored};
use crate::server::lock;
use crate::server::store::{Part, Scanned};

/// Parts that the store is walked through in.
const PARTS: usize = 16;
/// Channels asked for at once.
const CHANNELS: usize = 64;
/// Channels looked at side by side.
const SIDE_BY_SIDE: usize = 8;
/// Between the first look and the second: what is being written is whole by then.
const PAUSE: Duration = Duration::from_secs(2);
/// The same where no server is at work: at most a worker of its own.
const PAUSE_ALONE: Duration = Duration::from_millis(200);
/// Times that a channel is mended: mending members may show that their watermarks were wrong, too.
const ROUNDS: usize = 3;
/// What the index may lag by, workers that come and go included.
const LAG: Duration = Duration::from_secs(15);
/// An embedded server looks for lost index tasks by itself, twice in this time.
const LAG_EMBEDDED: Duration = Duration::from_secs(25);
/// How much of the progress is the walk through the channels.
const OF_CHANNELS: f64 = 0.9;

/// Look through all that is stored for what does not agree, and repair it
///
/// Each channel's log is read from its first entry to its head. Holes in it, a head or watermarks that it contradicts,
/// members that are other than it made them, users' lists of channels that don't agree with the members, and messages
/// that the search index lacks or has too many are found. It may run beside servers and their load: what seems to be
/// wrong is looked at again before it is told, as it may be under way.
///
/// With --repair what can be told from elsewhere is written again: members and heads from the log, lists from the
/// members, what all have read from what each has, the index from the log. Messages are neither made up nor deleted.
/// Workers remember channels that they are at work on: restart them when members or heads were repaired.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aula verify                    look at everything
  aula verify --channel ID       look at one channel
  aula verify --repair           and repair what can be repaired

Exit codes: 0 nothing is wrong, or all is repaired; 1 something is wrong; 2 wrong arguments or configuration; 3 some of it \
is repaired, or interrupted. What each finding means is in runbooks/verify.md.")]
pub struct Args {
    /// Only this channel
    #[arg(long, value_name = "ID")]
    channel: Option<Uuid>,
    /// Repair what can be repaired
    #[arg(long)]
    repair: bool,
    /// Wait so long, at most, for what may be under way before it is told as wrong [default: 15s; 25s beside an embedded
    /// server, 0s without one]
    #[arg(long, value_name = "TIME", value_parser = arguments::duration)]
    patience: Option<Duration>,
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
            let stored = Arc::new(migrate::with_hint_or(Stored::open(&config).await, hint)?);
            let stop = stop_on_signal()?;
            Job::new(&self, &config, context, stored, stop).await.run(self.channel.map(ChannelId)).await
        })
    }
}

struct Job<'a> {
    context: &'a Context,
    stored: Arc<Stored>,
    eyes: Eyes,
    index: IndexLook,
    repair: bool,
    pause: Duration,
    report: Arc<Mutex<Report>>,
    progress: Mutex<Progress>,
    stop: CancellationToken,
}

impl<'a> Job<'a> {
    async fn new(
        args: &Args,
        config: &Config,
        context: &'a Context,
        stored: Arc<Stored>,
        stop: CancellationToken,
    ) -> Self {
        let (lag, pause) = match config.deployment() {
            Deployment::Distributed => (LAG, PAUSE),
            Deployment::Embedded if lock::is_held(&config.data_dir) => (LAG_EMBEDDED, PAUSE),
            // Nothing is on its way where nobody is at work.
            Deployment::Embedded => (Duration::ZERO, PAUSE_ALONE),
        };
        let (lag, pause) = args.patience.map_or((lag, pause), |patience| (patience, pause.min(patience)));
        let queues = match backends::look_at_queue(config).await {
            Ok(look) => Some(look),
            Err(error) => {
                context.output.note(format!("the queues can't be read, so nothing is known of what waits: {error:#}"));
                None
            }
        };
        let report = Arc::new(Mutex::new(Report::new(&stored.place, args.repair)));
        let index = IndexLook {
            stored: Arc::clone(&stored),
            queues,
            patience: lag,
            repair: args.repair,
            report: Arc::clone(&report),
            stop: stop.clone(),
            suspects: tokio::sync::Mutex::new(Suspects::default()),
        };
        let eyes = Eyes {
            stored: Arc::clone(&stored),
            max_receipt_members: config.receipts.max_members,
            entries: AtomicU64::new(0),
        };
        let progress = Mutex::new(Progress::new(context.output.is_quiet()));
        Self { context, stored, eyes, index, repair: args.repair, pause, report, progress, stop }
    }

    async fn run(self, only: Option<ChannelId>) -> anyhow::Result<Exit> {
        match only {
            Some(channel) => {
                if self.stored.audit.extent(channel).await?.is_none() {
                    let error = anyhow::anyhow!("there is no channel {channel} in {}", self.stored.place);
                    return Err(error).exit(Exit::Usage);
                }
                self.channels(&[channel], true).await?;
            }
            None => {
                let parts = patiently(async || self.stored.scan.parts(PARTS).await).await?;
                let count = parts.len().max(1) as f64;
                for (number, part) in parts.into_iter().enumerate() {
                    self.part(part, number as f64 / count, 1.0 / count).await?;
                }
                self.lists().await?;
                self.through_the_index().await?;
            }
        }
        if !self.stop.is_cancelled() {
            self.index.end().await?;
        }
        let Self { context, report, progress, stop, eyes, .. } = &self;
        progress.lock().clear();
        let mut report = report.lock();
        report.entries = eyes.entries.load(Ordering::Relaxed);
        let exit = report.end(stop.is_cancelled());
        context.output.value(&*report, || report.text())?;
        if report.has_repaired() {
            context.output.note("restart the workers if members or heads were repaired: they remember channels");
        }
        Ok(exit)
    }

    /// `begin` and `share`: where it is in the whole, 0 to 1.
    async fn part(&self, part: Part, begin: f64, share: f64) -> anyhow::Result<()> {
        let (mut after, mut from) = (None, 0.0);
        while !self.stop.is_cancelled() {
            let found = patiently(async || self.stored.scan.channels(part, after, CHANNELS).await).await?;
            let place = |scanned: &Scanned| {
                let length = (part.through as f64 - part.after as f64).max(1.0);
                ((scanned.cursor.place as f64 - part.after as f64) / length).clamp(0.0, 1.0)
            };
            let ids: Vec<ChannelId> = found.iter().map(|scanned| scanned.channel).collect();
            let all: u64 = found.iter().map(|scanned| scanned.last_seq).sum();
            let began = self.eyes.entries.load(Ordering::Relaxed);
            let is_last = found.len() < CHANNELS;
            let to = if is_last { 1.0 } else { found.last().map_or(1.0, place).max(from) };
            let shown = async {
                loop {
                    let now = self.eyes.entries.load(Ordering::Relaxed);
                    let within = if all == 0 { 1.0 } else { (now - began) as f64 / all as f64 };
                    let fraction = begin + share * (from + (to - from) * within.min(1.0));
                    self.progress.lock().show(OF_CHANNELS * fraction, now, "entries");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            };
            tokio::select! {
                done = self.channels(&ids, false) => done?,
                () = shown => {}
            }
            match found.last() {
                Some(last) if !is_last => (after, from) = (Some(last.cursor), to),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Looks at these, again at those that something seems to be wrong with, and mends them.
    async fn channels(&self, ids: &[ChannelId], thorough: bool) -> anyhow::Result<()> {
        let looks = ids.iter().map(|id| self.look(*id, Some(&self.index), thorough));
        let mut looks = stream::iter(looks).buffer_unordered(SIDE_BY_SIDE);
        let (mut slices, mut doubtful) = (Vec::new(), Vec::new());
        while let Some((id, seen)) = looks.try_next().await? {
            self.report.lock().channels += 1;
            slices.extend(seen.slices);
            if !seen.findings.is_empty() {
                doubtful.push((id, seen.findings));
            }
            if self.stop.is_cancelled() {
                return Ok(());
            }
        }
        self.index.compare(slices).await?;
        if doubtful.is_empty() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(self.pause) => {}
            () = self.stop.cancelled() => return Ok(()),
        }
        let again = doubtful.into_iter().map(|(id, found)| self.again(id, found, thorough));
        stream::iter(again).buffer_unordered(SIDE_BY_SIDE).try_collect::<()>().await
    }

    async fn look(
        &self,
        id: ChannelId,
        index: Option<&IndexLook>,
        thorough: bool,
    ) -> anyhow::Result<(ChannelId, Seen)> {
        let seen = patiently(async || self.eyes.look(id, index, thorough).await).await?;
        Ok((id, seen))
    }

    /// What is found a second time is so.
    async fn again(&self, id: ChannelId, first: Vec<Finding>, thorough: bool) -> anyhow::Result<()> {
        let (_, seen) = self.look(id, None, thorough).await?;
        let (mut head, mut left) = (seen.head, seen.findings);
        left.retain(|finding| is_among(finding, &first));
        let mut repaired = Vec::new();
        for _ in 0..ROUNDS {
            if !self.repair || left.iter().all(|finding| finding.what.mends(head).is_empty()) {
                break;
            }
            for mend in left.iter().flat_map(|finding| finding.what.mends(head)) {
                patiently(async || self.stored.audit.mend(id, mend.clone()).await).await?;
            }
            let (_, seen) = self.look(id, None, thorough).await?;
            let (stayed, gone): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|finding| is_among(finding, &seen.findings));
            repaired.extend(gone);
            left = stayed;
            // What that brought to light is looked at twice as well.
            let new: Vec<Finding> = seen.findings.into_iter().filter(|finding| !is_among(finding, &left)).collect();
            if new.is_empty() {
                break;
            }
            tokio::time::sleep(self.pause).await;
            let (_, seen) = self.look(id, None, thorough).await?;
            head = seen.head;
            left = seen.findings.into_iter().filter(|found| is_among(found, &left) || is_among(found, &new)).collect();
        }
        let mut report = self.report.lock();
        repaired.into_iter().for_each(|finding| report.add(finding, true));
        left.into_iter().for_each(|finding| report.add(finding, false));
        Ok(())
    }
}

fn is_among(finding: &Finding, others: &[Finding]) -> bool {
    others.iter().any(|other| other.what.is_same(&finding.what))
}

fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let (signals, stop) = (Terminate::listen()?, CancellationToken::new());
    let stopped = stop.clone();
    tokio::spawn(async move {
        signals.received().await;
        stopped.cancel();
    });
    Ok(stop)
}
