//! `aula restore`: a data directory, made of a backup.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::backup::{self, Outcome, Report};
use super::files::{self, Growing, PARTIAL};
use super::manifest::{self, BackedUp, Listed, Manifest as _};
use super::unfinished::Note;
use super::workplace;
use crate::ops::exit::Advise as _;
use crate::ops::progress::Progress;
use crate::ops::signals::Terminate;
use crate::ops::{Context, Exit, migrate as migrations};
use crate::server::backends::make_data_dir;
use crate::server::sqlite::copy::examine;
use crate::server::sqlite::{FILE_NAME, migrate};

/// What a server leaves in a data directory that has nothing in it.
const EMPTY: [&str; 3] = ["serve.lock", "run", "lost+found"];
const CHUNK: usize = 256 * 1024;

/// Make a data directory of a backup
///
/// What `aula backup` has written goes into the configured data directory, which must be empty and not be served. The
/// hashes are compared first, then the files copied, synced, opened and looked through. The database gets its name last:
/// until then nothing can start on it, and the same command begins anew.
///
/// Only for the embedded deployment. On servers use the databases' own tools, as runbooks/backup.md says.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aula --data-dir /srv/aula-new restore /backup/monday
  aula --data-dir /srv/aula-new migrate status

Exit codes: 0 done, and the database is sound; 1 failed; 2 wrong arguments or configuration; 3 interrupted: the same
command begins anew.")]
pub struct Args {
    /// The folder that `aula backup` has made
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = context.config()?;
        workplace::only_embedded(&config, "restore")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let stop = runtime.block_on(async { Terminate::token() })?;
        let began = Instant::now();
        let (backup, _) = manifest::read::<BackedUp>(&self.folder)?;
        let work = Work { from: &self.folder, to: &config.data_dir, backup: &backup, context, stop: &stop };
        let outcome = work.run()?;
        backup::say(context, &Report::of(outcome, &config.data_dir, Some(backup), began))
    }
}

struct Work<'a> {
    from: &'a Path,
    to: &'a Path,
    backup: &'a BackedUp,
    context: &'a Context,
    stop: &'a CancellationToken,
}

impl Work<'_> {
    fn run(&self) -> anyhow::Result<Outcome> {
        let note = Note::of(self.to, "restore");
        if self.to.is_dir() && crate::server::lock::is_held(self.to) {
            // It says who.
            drop(workplace::keep_others_out(self.to)?);
        }
        self.refuse_contents(&note)?;
        if !self.compare()? {
            return Ok(Outcome::Interrupted);
        }
        // Before anything is written: a schema of a later binary would have to be taken away again.
        let database = self.from.join(FILE_NAME);
        let pending = migrations::with_hint_if_any(migrate::plan(&database).map_err(Into::into))?;
        make_data_dir(self.to).with_context(|| format!("can't make {}", self.to.display()))?;
        let _alone = workplace::keep_others_out(self.to)?;
        let _held = workplace::hold(self.to)?;
        note.put().with_context(|| format!("can't write into {}", self.to.display()))?;
        let Some(database) = self.copy()? else { return Ok(Outcome::Interrupted) };
        self.context.output.note("the database is looked through");
        let path = self.to.join(FILE_NAME);
        let found = examine(&files::partial(&path)).context("the copy is not sound")?;
        if found != self.backup.contents {
            anyhow::bail!("the database has {found:?}, and its manifest says {:?}", self.backup.contents);
        }
        crate::crash_point!("restore_before_rename");
        database.finish()?;
        crate::crash_point!("restore_before_end");
        note.remove()?;
        if !pending.is_empty() {
            self.context.output.note("its schema is older than this binary's: the next start migrates it");
        }
        Ok(Outcome::Restored)
    }

    /// Errors: the data directory has something in it that this backup has not brought.
    fn refuse_contents(&self, note: &Note) -> anyhow::Result<()> {
        let is_ours = |name: &str| {
            let top = |listed: &Listed| listed.name.split('/').next().map(str::to_owned);
            note.is_there()
                && name != FILE_NAME
                && (name == "restore.unfinished"
                    || self.backup.files().any(|listed| top(listed).as_deref() == Some(name)))
        };
        let is_last_step = || {
            let mut files = self.backup.files();
            let listed = files.find(|listed| listed.name == FILE_NAME);
            note.is_there() && listed.is_some_and(|listed| files::difference(self.to, listed, |_| ()).is_none())
        };
        let found = workplace::contents(self.to, |name| {
            EMPTY.contains(&name) || name.ends_with(PARTIAL) || is_ours(name) || (name == FILE_NAME && is_last_step())
        })?;
        if found.is_empty() {
            return Ok(());
        }
        let shown = self.to.display();
        Err(anyhow::anyhow!("{shown} is not empty: {}", found.join(", "))).hint(format!(
            "nothing was changed: name a new directory with --data-dir, or move this one away first: `mv {shown} {shown}.old`"
        ))
    }

    /// All files with the manifest; `false` when it was interrupted.
    fn compare(&self) -> anyhow::Result<bool> {
        for listed in self.backup.files() {
            if let Some(why) = files::difference(self.from, listed, |_| ()) {
                return Err(anyhow::anyhow!("{why}"))
                    .hint("nothing was changed: copy the folder again from where it was made, or use another backup");
            }
            if self.stop.is_cancelled() {
                return Ok(false);
            }
        }
        if !self.backup.files().any(|listed| listed.name == FILE_NAME) {
            anyhow::bail!("the manifest names no {FILE_NAME}");
        }
        Ok(true)
    }

    /// All files; the database doesn't have its name yet. `None` when it was interrupted.
    fn copy(&self) -> anyhow::Result<Option<Unnamed>> {
        const MIB: u64 = 1 << 20;
        let all: u64 = self.backup.files().map(|listed| listed.bytes).sum();
        let mut progress = Progress::new(self.context.output.is_quiet());
        let (mut database, mut read) = (None, 0);
        for listed in self.backup.files() {
            let path = self.to.join(&listed.name);
            if let Some(folder) = path.parent() {
                make_data_dir(folder).with_context(|| format!("can't make {}", folder.display()))?;
            }
            let shown = || format!("can't copy {}", listed.name);
            let mut source = File::open(self.from.join(&listed.name)).with_context(shown)?;
            let mut growing = Growing::create(&path, 0o600).with_context(shown)?;
            let mut chunk = vec![0; CHUNK];
            loop {
                let count = source.read(&mut chunk).with_context(shown)?;
                if count == 0 {
                    break;
                }
                growing.write(&chunk[..count]).with_context(shown)?;
                read += count as u64;
                progress.show((read as f64 / all.max(1) as f64).min(1.0), read / MIB, "MiB");
                crate::crash_point!("restore_step");
                if self.stop.is_cancelled() {
                    return Ok(None);
                }
            }
            let unnamed = Unnamed { growing, listed: listed.clone() };
            if listed.name == FILE_NAME {
                database = Some(unnamed.synced().with_context(shown)?);
            } else {
                unnamed.finish()?;
            }
        }
        Ok(Some(database.context("the manifest names no database")?))
    }
}

/// A copy under its temporary name.
struct Unnamed {
    growing: Growing,
    listed: Listed,
}

impl Unnamed {
    fn synced(mut self) -> std::io::Result<Self> {
        self.growing.sync()?;
        Ok(self)
    }

    /// Durable and under its name. Errors: it is not what was listed.
    fn finish(self) -> anyhow::Result<()> {
        let Self { growing, listed } = self;
        let sha256 = growing.sha256();
        if sha256 != listed.sha256 {
            anyhow::bail!("{} has changed while it was copied", listed.name);
        }
        growing.finish().with_context(|| format!("can't finish {}", listed.name)).map(drop)
    }
}
