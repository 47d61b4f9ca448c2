//! `aula import`: what `aula export` has written, put into a deployment.

mod accounts;
mod channel;
mod checkpoint;
mod reader;
mod report;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use self::channel::{Channels, Going};
use self::checkpoint::{Checkpoint, Desk};
use self::reader::{Piece, Reader};
use self::report::{Counts, Outcome, Report};
use super::files;
use super::manifest::{self, Exported, Manifest as _, Part};
use super::workplace;
use crate::config::{Config, Deployment};
use crate::message::ChannelId;
use crate::ops::exit::Advise as _;
use crate::ops::progress::Progress;
use crate::ops::signals::Terminate;
use crate::ops::{Context, Exit};
use crate::server::backends::{Stored, make_data_dir};

/// Channels worked on side by side, at most…
const GROUP: usize = 64;
/// … while they have fewer entries than this: one large channel is enough.
const GROUP_ENTRIES: usize = 500;
/// Between two checkpoints.
const SAVE: std::time::Duration = std::time::Duration::from_secs(1);

/// Put what `aula export` has written into this deployment
///
/// The folder's hashes are compared with its manifest before anything is changed. Channels keep their ids, seqs, times,
/// members, roles and watermarks, and are found by search; users keep their passwords. What is there already is
/// compared and not written again: a second import changes nothing, and a later export of the same deployment adds what
/// came since. A channel or an account that is something else here is left alone and named.
///
/// An embedded deployment must not be served meanwhile. On servers the gateways and workers should not run either:
/// people who are connected would not see the new channels, and whoever writes to a channel that is half there makes it
/// another one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aula import /backup/export --dry-run      compare, and say what would be done
  aula import /backup/export
  aula import /backup/export --resume       go on after an interruption, behind what is known to be done

Exit codes: 0 all of it is there; 1 failed; 2 wrong arguments or configuration; 3 something was left alone, or it was
interrupted: --resume goes on.")]
pub struct Args {
    /// The folder that `aula export` has made
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Go on with what was interrupted or killed
    #[arg(long, conflicts_with = "dry_run")]
    resume: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = context.config()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let began = Instant::now();
            let stop = Terminate::token()?;
            let (manifest, hash) = manifest::read::<Exported>(&self.folder)?;
            let is_sound = check(&self.folder, &manifest, context, &stop)?;
            let stored = workplace::open(&config).await?;
            let job = Job { args: &self, context, stored, manifest, hash, stop, began };
            if !is_sound {
                return job.report(Outcome::Interrupted, Counts::default());
            }
            job.run(&config).await
        })
    }
}

/// Compares all files with the manifest; `false` if it was interrupted.
///
/// Errors: a file is missing or is another one.
fn check(folder: &Path, manifest: &Exported, context: &Context, stop: &CancellationToken) -> anyhow::Result<bool> {
    const MIB: u64 = 1 << 20;
    let all: u64 = manifest.files().map(|listed| listed.bytes).sum();
    let mut progress = Progress::new(context.output.is_quiet());
    let mut read = 0;
    for listed in manifest.files() {
        let look = |more| {
            read += more;
            progress.show((read as f64 / all.max(1) as f64).min(1.0), read / MIB, "MiB compared");
        };
        if let Some(why) = files::difference(folder, listed, look) {
            return Err(anyhow::anyhow!("{why}"))
                .hint("nothing was changed: copy the folder again from where it was exported, or export it anew");
        }
        if stop.is_cancelled() {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Job<'a> {
    args: &'a Args,
    context: &'a Context,
    stored: Stored,
    manifest: Exported,
    /// Of the manifest.
    hash: String,
    stop: CancellationToken,
    began: Instant,
}

impl Job<'_> {
    async fn run(&self, config: &Config) -> anyhow::Result<Exit> {
        let data_dir = &config.data_dir;
        let fresh = Checkpoint {
            manifest: self.hash.clone(),
            place: self.stored.place.clone(),
            files: 0,
            offset: 0,
            counts: Counts::default(),
        };
        if self.args.dry_run {
            let (checkpoint, is_whole) = self.walk(fresh, None).await?;
            let outcome = if is_whole { Outcome::Foretold } else { Outcome::Interrupted };
            return self.report(outcome, checkpoint.counts);
        }
        make_data_dir(data_dir).with_context(|| format!("can't make {}", data_dir.display()))?;
        // The embedded database is there; on servers the folder only keeps the checkpoint.
        let _alone = match config.deployment() {
            Deployment::Embedded => Some(workplace::keep_others_out(data_dir)?),
            Deployment::Distributed => None,
        };
        let _held = workplace::hold(data_dir)?;
        let desk = Desk::of(data_dir);
        let is_ours = |kept: &Checkpoint| kept.manifest == self.hash && kept.place == self.stored.place;
        let checkpoint = match desk.read()?.filter(|kept| self.args.resume && is_ours(kept)) {
            Some(kept) => kept,
            None => {
                if self.args.resume {
                    self.context.output.note("nothing is known here of how far it has come: all is compared again");
                }
                fresh
            }
        };
        let (checkpoint, is_whole) =
            self.walk(checkpoint, Some(&desk)).await.hint("`aula import --resume` goes on where it was")?;
        if !is_whole {
            return self.report(Outcome::Interrupted, checkpoint.counts);
        }
        desk.remove()?;
        let counts = checkpoint.counts;
        let is_all = counts.channels.left_alone + counts.accounts.left_alone == 0;
        self.report(if is_all { Outcome::Imported } else { Outcome::Partly }, counts)
    }

    /// Through all files, from where the checkpoint is; whether it came to the end.
    async fn walk(&self, mut checkpoint: Checkpoint, desk: Option<&Desk>) -> anyhow::Result<(Checkpoint, bool)> {
        let mut files: Vec<&Part> = self.manifest.files.iter().collect();
        // Whoever is a member has an account.
        files.sort_by_key(|part| part.accounts == 0);
        let mut progress = Progress::new(self.context.output.is_quiet());
        let mut saved = Instant::now();
        while let Some(part) = files.get(checkpoint.files) {
            let mut reader = Reader::open(&self.args.folder.join(&part.listed.name), checkpoint.offset)?;
            if part.accounts > 0 {
                while let Some(account) = reader.account()? {
                    let fate = accounts::import(&*self.stored.accounts, &account, desk.is_some()).await?;
                    checkpoint.counts.account(account.username.as_str(), fate);
                    if self.stop.is_cancelled() {
                        break;
                    }
                    checkpoint.offset = reader.offset();
                }
            } else {
                self.channels(&mut reader, &mut checkpoint, desk, &mut progress, &mut saved).await?;
            }
            if !self.stop.is_cancelled() {
                (checkpoint.files, checkpoint.offset) = (checkpoint.files + 1, 0);
            }
            if let Some(desk) = desk {
                desk.write(&checkpoint)?;
                crate::crash_point!("import_file");
            }
            if self.stop.is_cancelled() {
                return Ok((checkpoint, false));
            }
        }
        Ok((checkpoint, true))
    }

    async fn channels(
        &self,
        reader: &mut Reader,
        checkpoint: &mut Checkpoint,
        desk: Option<&Desk>,
        progress: &mut Progress,
        saved: &mut Instant,
    ) -> anyhow::Result<()> {
        let channels = Channels { stored: &self.stored, writes: desk.is_some() };
        let mut going: Option<Going> = None;
        // Of the channel that goes on: it counts with its last piece.
        let mut pending = 0;
        while let Some(group) = group(reader)? {
            let mut work = Vec::new();
            let mut ends: Vec<(ChannelId, bool, u64)> = Vec::new();
            for piece in group {
                ends.push((piece.header.id, piece.is_last, piece.entries.len() as u64));
                work.push(channels.piece(piece, going.take()));
            }
            let done = try_join_all(work).await?;
            for (after, (id, is_last, entries)) in done.into_iter().zip(ends) {
                pending += entries;
                if !is_last {
                    going = Some(after);
                    continue;
                }
                checkpoint.counts.entries += std::mem::take(&mut pending);
                checkpoint.counts.entries_added += after.entries_added;
                checkpoint.counts.channel(id, after.fate());
            }
            let seen = checkpoint.counts.entries + pending;
            progress.show((seen as f64 / self.manifest.entries.max(1) as f64).min(1.0), seen, "entries");
            if going.is_none() {
                checkpoint.offset = reader.offset();
                if let Some(desk) = desk.filter(|_| saved.elapsed() >= SAVE) {
                    desk.write(checkpoint)?;
                    *saved = Instant::now();
                }
            }
            crate::crash_point!("import_group");
            if self.stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    fn report(&self, outcome: Outcome, counts: Counts) -> anyhow::Result<Exit> {
        let seconds = (self.began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let report = Report { outcome, place: self.stored.place.clone(), counts, seconds };
        self.context.output.value(&report, || report.text(&self.args.folder.display().to_string()))?;
        Ok(report.exit())
    }
}

/// Pieces of different channels, to be worked on side by side; all but the last are whole channels. `None` at the end.
fn group(reader: &mut Reader) -> anyhow::Result<Option<Vec<Piece>>> {
    let (mut pieces, mut entries) = (Vec::new(), 0);
    while pieces.len() < GROUP && entries < GROUP_ENTRIES {
        let Some(piece) = reader.piece()? else { break };
        let is_whole = piece.is_first && piece.is_last;
        entries += piece.entries.len();
        pieces.push(piece);
        if !is_whole {
            break;
        }
    }
    Ok((!pieces.is_empty()).then_some(pieces))
}
