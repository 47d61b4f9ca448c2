//! `aula verify`: whether all that is stored says the same.

mod channel;
mod finding;
mod report;
mod suspects;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::channel::{Eyes, Seen};
use self::finding::{Finding, What};
use self::report::Report;
use self::suspects::{IndexLook, Suspects};
use super::exit::Advise as _;
use super::progress::Progress;
use super::signals::Terminate;
use super::{Context, Exit, arguments, migrate};
use crate::config::{Config, Deployment};
use crate::message::{ChannelId, Username};
use crate::server::backends::{self, Stored};
use crate::server::lock;
use crate::server::search::audit::{Differences, Slice};
use crate::server::store::{Part, Scanned, StoreError};
use crate::server::worker::Backoff;

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
/// How long a server that is not there is waited for.
const GIVE_UP: Duration = Duration::from_secs(60);
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
                let parts = self.patiently(|| self.stored.scan.parts(PARTS)).await?;
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
            let found = self.patiently(|| self.stored.scan.channels(part, after, CHANNELS)).await?;
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
        let mut tries = Tries::new();
        loop {
            match self.eyes.look(id, index, thorough).await {
                Ok(seen) => return Ok((id, seen)),
                Err(error) => tries.again(error).await?,
            }
        }
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
                self.patiently(|| self.stored.audit.mend(id, mend.clone())).await?;
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

    /// The rows of users' lists that no membership stands behind.
    async fn lists(&self) -> anyhow::Result<()> {
        let mut after = None;
        while !self.stop.is_cancelled() {
            let step = self.patiently(|| self.stored.audit.strays_in_lists(after.clone())).await?;
            self.report.lock().list_rows += step.rows;
            let fraction = OF_CHANNELS + (1.0 - OF_CHANNELS) / 2.0 * step.fraction;
            self.progress.lock().show(fraction, self.eyes.entries.load(Ordering::Relaxed), "entries");
            if !step.strays.is_empty() {
                tokio::time::sleep(self.pause).await;
            }
            for stray in step.strays {
                let finding = Finding { channel: stray.channel, what: What::Listed { user: stray.user.clone() } };
                let Some(id) = stray.channel else {
                    // A list of an embedded store skips it: it is seen by nobody.
                    self.report.lock().add(finding, false);
                    continue;
                };
                if self.report.lock().is_missing_member(stray.channel, &stray.user)
                    || !self.is_listed_only(id, &stray.user).await?
                {
                    continue;
                }
                if self.repair {
                    let head = self.patiently(|| self.stored.audit.extent(id)).await?;
                    for mend in finding.what.mends(head.map_or(0, |extent| extent.last_seq)) {
                        self.patiently(|| self.stored.audit.mend(id, mend.clone())).await?;
                    }
                }
                let repaired = self.repair && !self.is_listed_only(id, &stray.user).await?;
                self.report.lock().add(finding, repaired);
            }
            match step.rest {
                Some(rest) => after = Some(rest),
                None => break,
            }
        }
        Ok(())
    }

    /// Whether the channel is in the user's list, and the user is no member.
    async fn is_listed_only(&self, id: ChannelId, user: &Username) -> anyhow::Result<bool> {
        let listed = self.patiently(|| self.stored.audit.listed(id, vec![user.clone()])).await?;
        let role = self.patiently(|| self.stored.store.role(id, user)).await?;
        Ok(listed.iter().any(Option::is_some) && role.is_none())
    }

    /// What the index has of channels that are not there.
    async fn through_the_index(&self) -> anyhow::Result<()> {
        let mut after = None;
        while !self.stop.is_cancelled() {
            let step = self.stored.index_audit.walk(after).await?;
            self.progress.lock().show(
                OF_CHANNELS + (1.0 - OF_CHANNELS) / 2.0,
                self.eyes.entries.load(Ordering::Relaxed),
                "entries",
            );
            let exist = step.channels.into_iter().map(|id| async move {
                let extent = self.patiently(|| self.stored.audit.extent(id)).await?;
                anyhow::Ok(extent.is_none().then_some(id))
            });
            let looks: Vec<_> = exist.collect();
            let unknown: Vec<Option<ChannelId>> =
                stream::iter(looks).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
            let all_of = |channel| Slice { channel, after: 0, through: u64::MAX, entries: Vec::new() };
            self.index.compare(unknown.into_iter().flatten().map(all_of).collect()).await?;
            self.index.suspect(Differences { missing: Vec::new(), strays: step.strays }).await?;
            match step.rest {
                Some(rest) => after = Some(rest),
                None => break,
            }
        }
        Ok(())
    }

    /// Tried again while a server is not there.
    async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(&self, ask: impl Fn() -> F) -> anyhow::Result<T> {
        let mut tries = Tries::new();
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => tries.again(error.into()).await?,
            }
        }
    }
}

fn is_among(finding: &Finding, others: &[Finding]) -> bool {
    others.iter().any(|other| other.what.is_same(&finding.what))
}

struct Tries {
    backoff: Backoff,
    began: Instant,
}

impl Tries {
    fn new() -> Self {
        Self { backoff: Backoff::new(), began: Instant::now() }
    }

    /// Errors: `error`, when that is enough.
    async fn again(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        if self.began.elapsed() >= GIVE_UP {
            return Err(error);
        }
        tracing::warn!(error = format!("{error:#}"), "a look is tried again");
        self.backoff.pause().await;
        Ok(())
    }
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
