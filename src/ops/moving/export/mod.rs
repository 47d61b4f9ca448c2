//! `aula export`: channels and accounts as text, to go elsewhere.

mod accounts;
mod channel;
mod checkpoint;
mod output;
mod way;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::channel::Written;
use self::checkpoint::Checkpoint;
use self::output::OutputFile;
use self::way::Way;
use super::files;
use super::manifest::{self, Exported};
use super::workplace;
use crate::config::Deployment;
use crate::message::{ChannelId, Millis, Seq};
use crate::ops::exit::Advise as _;
use crate::ops::output::counted;
use crate::ops::patience::patiently;
use crate::ops::progress::Progress;
use crate::ops::signals::Terminate;
use crate::ops::{Context, Exit};
use crate::server::backends::Stored;

/// Channels found at once.
const FOUND: usize = 256;
/// Channels opened side by side: many have few entries.
const OPENED: usize = 8;
/// Channels counted at once.
const COUNTED: usize = 1_000;

/// Write channels and accounts as text, to be imported elsewhere
///
/// The folder gets files of JSON lines and, last, a manifest with counts and hashes. Each channel is as it was at one
/// moment: its members, their roles and watermarks, and all its entries up to then. People may go on writing; what they
/// write later is not in it. With it goes each user's name and password hash: the folder is as secret as the database.
/// Log-in sessions are not exported.
///
/// It works on both deployments; `aula import` reads the folder into either.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aula export /backup/export                all channels and accounts
  aula export /backup/export --resume       go on after an interruption
  aula export one --channel 0192f0c1-7a1e-7cc3-98c4-dc0c0c07398f

Exit codes: 0 done; 1 failed; 2 wrong arguments or configuration; 3 interrupted: --resume goes on.")]
pub struct Args {
    /// The folder; it is made, and must be empty
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Only this channel, and the accounts of its members; may be given more than once
    #[arg(long, value_name = "ID")]
    channel: Vec<Uuid>,
    /// Go on with what was interrupted or killed
    #[arg(long)]
    resume: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = context.config()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let stored = workplace::open(&config).await?;
            let deployment = match config.deployment() {
                Deployment::Embedded => "embedded",
                Deployment::Distributed => "distributed",
            };
            let job =
                Job { args: &self, context, deployment, stored, stop: Terminate::token()?, began: Instant::now() };
            job.run().await
        })
    }
}

struct Job<'a> {
    args: &'a Args,
    context: &'a Context,
    deployment: &'static str,
    stored: Stored,
    stop: CancellationToken,
    began: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Exported,
    Interrupted,
}

#[derive(Serialize)]
struct Report {
    outcome: Outcome,
    folder: String,
    accounts: u64,
    channels: u64,
    entries: u64,
    files: usize,
    bytes: u64,
    /// Of this command alone.
    seconds: f64,
}

impl Job<'_> {
    async fn run(self) -> anyhow::Result<Exit> {
        let folder = &self.args.folder;
        let _held = workplace::hold(folder)?;
        if self.args.resume && folder.join(manifest::FILE).exists() {
            let (manifest, _) = manifest::read::<Exported>(folder)?;
            self.context.output.note("it was finished before");
            return self.report(Outcome::Exported, manifest.files);
        }
        let mut checkpoint = self.begin(folder).await?;
        let all = self.count(&checkpoint.way).await?;
        let mut progress = Progress::new(self.context.output.is_quiet());
        let is_whole = self.channels(&mut checkpoint, all, &mut progress).await?;
        drop(progress);
        if !is_whole {
            return self.report(Outcome::Interrupted, checkpoint.files);
        }
        let chosen = match &checkpoint.way {
            Way::Chosen { channels, .. } => Some(channels.as_slice()),
            Way::Parts { .. } => None,
        };
        // After the channels, so that the accounts of their members are among them; whoever was killed does it again.
        checkpoint.files.retain(|file| file.listed.name != accounts::FILE);
        let accounts = accounts::write(&self.stored, folder, chosen).await?;
        let is_selection = chosen.is_some();
        checkpoint.files.push(accounts);
        crate::crash_point!("export_before_manifest");
        let exported = Exported {
            deployment: self.deployment.to_owned(),
            began_at: checkpoint.began_at,
            ended_at: Millis::now(),
            is_selection,
            accounts: checkpoint.accounts(),
            channels: checkpoint.channels(),
            entries: checkpoint.entries(),
            files: checkpoint.files,
        };
        manifest::write(folder, &exported).context("the manifest can't be written")?;
        Checkpoint::remove(folder)?;
        self.report(Outcome::Exported, exported.files)
    }

    /// Where it was interrupted, or the beginning.
    async fn begin(&self, folder: &Path) -> anyhow::Result<Checkpoint> {
        let shown = folder.display();
        let kept = Checkpoint::read(folder)?;
        if let Some(checkpoint) = kept {
            if !self.args.resume {
                return Err(anyhow::anyhow!("an export into {shown} was not finished"))
                    .hint("--resume goes on with it; to begin anew, empty the folder");
            }
            if checkpoint.place != self.stored.place {
                return Err(anyhow::anyhow!(
                    "{shown} has an export of {}, not of {}",
                    checkpoint.place,
                    self.stored.place
                ))
                .hint("see --config and --data-dir, or use another folder");
            }
            let chosen = match &checkpoint.way {
                Way::Chosen { channels, .. } => channels.as_slice(),
                Way::Parts { .. } => &[],
            };
            if !self.args.channel.is_empty() && self.chosen() != chosen {
                return Err(anyhow::anyhow!("the export in {shown} is of other channels"))
                    .hint("--resume needs no --channel: it goes on with what was asked for")
                    .exit(Exit::Usage);
            }
            return Ok(checkpoint);
        }
        let found = workplace::contents(folder, |name| name.ends_with(files::PARTIAL))?;
        if !found.is_empty() {
            return Err(anyhow::anyhow!("{shown} is not empty: {}", found.join(", ")))
                .hint("an export goes into a new or an empty folder");
        }
        let way = if self.args.channel.is_empty() {
            let left = patiently(async || self.stored.scan.parts(1).await).await?;
            Way::Parts { left, after: None }
        } else {
            for channel in self.chosen() {
                if self.stored.store.channel(channel).await?.is_none() {
                    return Err(anyhow::anyhow!("there is no channel {channel} in {}", self.stored.place))
                        .exit(Exit::Usage);
                }
            }
            Way::Chosen { channels: self.chosen(), done: 0 }
        };
        let place = self.stored.place.clone();
        let checkpoint = Checkpoint { place, began_at: Millis::now(), way, files: Vec::new(), walked: 0 };
        checkpoint.write(folder)?;
        Ok(checkpoint)
    }

    fn chosen(&self) -> Vec<ChannelId> {
        let mut chosen: Vec<ChannelId> = self.args.channel.iter().copied().map(ChannelId).collect();
        chosen.sort();
        chosen.dedup();
        chosen
    }

    /// About how many entries are left, for the progress.
    async fn count(&self, way: &Way) -> anyhow::Result<u64> {
        let (mut way, mut entries) = (way.clone(), 0);
        loop {
            let found = way.next(&self.stored, COUNTED).await?;
            if found.is_empty() {
                return Ok(entries);
            }
            entries += found.iter().map(|found| found.last_seq).sum::<Seq>();
            found.iter().for_each(|found| way.pass(found));
        }
    }

    /// Whether all are written: not when a wish to stop came first.
    async fn channels(&self, checkpoint: &mut Checkpoint, left: u64, progress: &mut Progress) -> anyhow::Result<bool> {
        let all = (checkpoint.walked + left).max(1);
        let mut file: Option<OutputFile> = None;
        'walk: loop {
            let found = checkpoint.way.next(&self.stored, FOUND).await?;
            if found.is_empty() {
                break;
            }
            for found in found.chunks(OPENED) {
                // All of them before any is written: one begun and left waiting would keep its place among the store's
                // readers, and the pages of the channel that is written would wait behind it for ever.
                let opened = try_join_all(found.iter().map(|found| channel::open(&self.stored, found.channel))).await?;
                for (found, opened) in found.iter().zip(opened) {
                    let mut into = match file.take() {
                        Some(file) => file,
                        None => self.next_file(checkpoint)?,
                    };
                    if let Some(opened) = opened {
                        let mut seen = checkpoint.entries() + into.entries();
                        let mut walked = checkpoint.walked;
                        let look = |more| {
                            (seen, walked) = (seen + more, walked + more);
                            progress.show((walked as f64 / all as f64).min(1.0), seen, "entries");
                        };
                        let written = channel::write(&self.stored, opened, &mut into, &self.stop, look).await?;
                        if written == Written::Interrupted {
                            file = Some(into);
                            break 'walk;
                        }
                    }
                    checkpoint.way.pass(found);
                    // A purged beginning counts: the sum of the heads is what `all` is.
                    checkpoint.walked += found.last_seq;
                    if into.is_full() {
                        self.keep(checkpoint, into)?;
                    } else {
                        file = Some(into);
                    }
                    if self.stop.is_cancelled() {
                        break 'walk;
                    }
                }
            }
        }
        if let Some(rest) = file {
            self.keep(checkpoint, rest)?;
        }
        Ok(!self.stop.is_cancelled())
    }

    fn next_file(&self, checkpoint: &Checkpoint) -> anyhow::Result<OutputFile> {
        let name = format!("channels-{:05}.ndjson", checkpoint.files.len() + 1);
        OutputFile::create(&self.args.folder, name).context("a file can't be made")
    }

    /// A file that is whole: from now on a killed export has it.
    fn keep(&self, checkpoint: &mut Checkpoint, file: OutputFile) -> anyhow::Result<()> {
        if file.is_empty() {
            return Ok(file.discard()?);
        }
        checkpoint.files.push(file.finish().context("a file can't be written")?);
        crate::crash_point!("export_before_checkpoint");
        checkpoint.write(&self.args.folder)?;
        crate::crash_point!("export_file");
        Ok(())
    }

    fn report(&self, outcome: Outcome, files: Vec<manifest::Part>) -> anyhow::Result<Exit> {
        let sum = |of: fn(&manifest::Part) -> u64| files.iter().map(of).sum::<u64>();
        let seconds = (self.began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let report = Report {
            outcome,
            folder: self.args.folder.display().to_string(),
            accounts: sum(|file| file.accounts),
            channels: sum(|file| file.channels),
            entries: sum(|file| file.entries),
            files: files.len(),
            bytes: sum(|file| file.listed.bytes),
            seconds,
        };
        self.context.output.value(&report, || {
            let Report { folder, entries, .. } = &report;
            let (channels, accounts) = (counted(report.channels, "channel"), counted(report.accounts, "account"));
            match outcome {
                Outcome::Exported => format!(
                    "{entries} entries of {channels} and {accounts} are in {folder}, in {seconds} s\n\
                     `aula import {folder} --dry-run` at the other end says what it would do"
                ),
                Outcome::Interrupted => format!(
                    "interrupted: {entries} entries of {channels} are in {folder}\n\
                     `aula export {folder} --resume` goes on"
                ),
            }
        })?;
        Ok(match outcome {
            Outcome::Exported => Exit::Done,
            Outcome::Interrupted => Exit::Partly,
        })
    }
}
