//! `aula backup`: an embedded deployment's file and secrets, copied while they are in use.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::files::{self, Growing, PARTIAL};
use super::manifest::{self, BackedUp, Listed};
use super::unfinished::Note;
use super::workplace;
use crate::config::Config;
use crate::message::Millis;
use crate::ops::exit::Advise as _;
use crate::ops::output::counted;
use crate::ops::progress::Progress;
use crate::ops::signals::Terminate;
use crate::ops::{Context, Exit, migrate as migrations};
use crate::server::auth::secret::keys_file;
use crate::server::sqlite::copy::{Contents, copy, examine};
use crate::server::sqlite::{DbError, FILE_NAME, migrate};

/// The folder of secrets, in the data directory and in a backup.
const SECRETS: &str = "secrets";
/// Secrets are small files that people keep.
const MAX_SECRET: u64 = 1 << 20;

/// Copy the database and its secrets, while the server runs
///
/// The copy is one moment of the database: all that was persisted before the command began is in it. People go on
/// writing meanwhile; until it is done, the log beside the database (aula.db-wal) grows by what they write. The copy is
/// then opened and looked through, and a manifest with counts and hashes is written last: a folder without one is not
/// finished. It contains secrets.
///
/// Only for the embedded deployment. On servers use the databases' own tools, as runbooks/backup.md says.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aula backup /backup/monday
  aula --data-dir /srv/aula --quiet --output json backup /backup/$(date +%F)

Exit codes: 0 done, and the copy is sound; 1 failed; 2 wrong arguments or configuration; 3 interrupted: the same command
begins anew.")]
pub struct Args {
    /// The folder; it is made, and must be empty
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = context.config()?;
        workplace::only_embedded(&config, "backup")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let stop = runtime.block_on(async { Terminate::token() })?;
        let began = Instant::now();
        let folder = &self.folder;
        let database = config.data_dir.join(FILE_NAME);
        if !database.is_file() {
            return Err(anyhow::anyhow!("there is no {}", database.display()))
                .hint("is this the server's data directory? see --data-dir and `aula config print`");
        }
        // A schema that this binary doesn't know can't be counted; one that is to be migrated can.
        migrations::with_hint_if_any(migrate::plan(&database).map(drop).map_err(Into::into))?;
        let _held = workplace::hold(folder)?;
        let note = Note::of(folder, "backup");
        clear(folder, &note)?;
        note.put().with_context(|| format!("can't write into {}", folder.display()))?;
        let taken_at = Millis::now();
        let Some(contents) = copy_database(&database, folder, context, &stop)? else {
            clear(folder, &note)?;
            note.remove()?;
            return say(context, &Report::interrupted(folder, began));
        };
        let mut files = copy_secrets(&config, folder, context)?;
        let path = folder.join(FILE_NAME);
        context.output.note("the copy is looked through");
        let found = examine(&files::partial(&path)).context("the copy is not sound")?;
        if found != contents {
            anyhow::bail!("the copy has {found:?}, and the database had {contents:?}");
        }
        files.insert(0, finish(&path)?);
        crate::crash_point!("backup_before_manifest");
        let backed_up = BackedUp { taken_at, contents, files };
        manifest::write(folder, &backed_up).context("the manifest can't be written")?;
        note.remove()?;
        say(context, &Report::of(Outcome::BackedUp, folder, Some(backed_up), began))
    }
}

/// Takes away what a backup that was cut off has left. Errors: something else is there.
fn clear(folder: &Path, note: &Note) -> anyhow::Result<()> {
    let shown = folder.display();
    let is_done = folder.join(manifest::FILE).exists();
    let is_ours = |name: &str| {
        let named = name.strip_suffix(PARTIAL).unwrap_or(name);
        !is_done && [FILE_NAME, SECRETS, "backup.unfinished", manifest::FILE].contains(&named)
    };
    let foreign = workplace::contents(folder, |name| name.ends_with(PARTIAL) || (note.is_there() && is_ours(name)))?;
    if !foreign.is_empty() {
        return Err(anyhow::anyhow!("{shown} is not empty: {}", foreign.join(", ")))
            .hint("a backup goes into a new or an empty folder, such as one named by the day");
    }
    for name in [FILE_NAME, manifest::FILE] {
        files::remove(&folder.join(name))?;
        files::remove(&files::partial(&folder.join(name)))?;
    }
    match fs::remove_dir_all(folder.join(SECRETS)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("can't begin anew"),
        _ => Ok(()),
    }
}

/// `None` when it was interrupted.
fn copy_database(
    database: &Path,
    folder: &Path,
    context: &Context,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Contents>> {
    let to = files::partial(&folder.join(FILE_NAME));
    // Made here, so that nobody else can read it from the beginning.
    Growing::create(&folder.join(FILE_NAME), 0o600).with_context(|| format!("can't make {}", to.display()))?;
    let mut progress = Progress::new(context.output.is_quiet());
    let look = |done: u64, all: u64| {
        progress.show(done as f64 / all.max(1) as f64, done, "pages");
        crate::crash_point!("backup_step");
        if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match copy(database, &to, look) {
        Err(DbError::Full) => Err(anyhow::anyhow!("there is no room for the copy in {}", folder.display()))
            .hint("free some, or use a folder on another disk; nothing was changed in the database"),
        copied => copied.with_context(|| format!("can't copy {}", database.display())),
    }
}

/// Synced and under its name.
fn finish(path: &Path) -> anyhow::Result<Listed> {
    let partial = files::partial(path);
    fs::File::open(&partial)?.sync_all().context("the copy can't be synced")?;
    let (bytes, sha256) = files::measure(&partial, |_| ()).context("the copy can't be read")?;
    fs::rename(&partial, path)?;
    files::sync_folder(path.parent().unwrap_or(Path::new(".")))?;
    Ok(Listed { name: FILE_NAME.to_owned(), bytes, sha256 })
}

/// The files in the data directory's folder of secrets.
fn copy_secrets(config: &Config, folder: &Path, context: &Context) -> anyhow::Result<Vec<Listed>> {
    let keys = keys_file(config);
    let from = config.data_dir.join(SECRETS);
    if !keys.starts_with(&from) {
        context.output.note(format!("{} is outside the data directory, and not in the backup", keys.display()));
    }
    let entries = match fs::read_dir(&from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("can't read {}", from.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() && metadata.len() <= MAX_SECRET {
            names.push(entry.file_name().into_string().ok().context("a secret's name is not text")?);
        }
    }
    names.sort();
    drop(workplace::hold(&folder.join(SECRETS))?);
    let mut copied = Vec::new();
    for name in names {
        let name = format!("{SECRETS}/{name}");
        let content = fs::read(config.data_dir.join(&name)).with_context(|| format!("can't read {name}"))?;
        files::write_whole(&folder.join(&name), &content, 0o600)?;
        copied.push(Listed { bytes: content.len() as u64, sha256: files::digest(&content), name });
    }
    Ok(copied)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    BackedUp,
    Restored,
    Interrupted,
}

/// What a backup or a restore says at its end.
#[derive(Serialize)]
pub struct Report {
    pub outcome: Outcome,
    pub folder: String,
    #[serde(flatten)]
    pub backup: Option<BackedUp>,
    /// Of this command alone.
    pub seconds: f64,
}

impl Report {
    pub fn of(outcome: Outcome, folder: &Path, backup: Option<BackedUp>, began: Instant) -> Self {
        let seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        Self { outcome, folder: folder.display().to_string(), backup, seconds }
    }

    fn interrupted(folder: &Path, began: Instant) -> Self {
        Self::of(Outcome::Interrupted, folder, None, began)
    }

    fn text(&self) -> String {
        let Self { outcome, folder, backup, seconds } = self;
        let counts = backup.as_ref().map(|backup| {
            let Contents { users, channels, messages, tasks, .. } = &backup.contents;
            let counts = [(*messages, "message"), (*channels, "channel"), (*users, "user"), (*tasks, "waiting task")];
            let [messages, channels, users, tasks] = counts.map(|(count, thing)| counted(count, thing));
            format!("{messages} in {channels}, {users}, {tasks}")
        });
        let counts = counts.unwrap_or_default();
        match outcome {
            Outcome::BackedUp => format!(
                "{counts} are in {folder}, in {seconds} s; the copy is sound\n\
                 `aula --data-dir NEW restore {folder}` makes a data directory of it"
            ),
            Outcome::Restored => {
                format!("{counts} are in {folder}, in {seconds} s; the database is sound\n`aula serve` starts on it")
            }
            Outcome::Interrupted => "interrupted: the same command begins anew".to_owned(),
        }
    }
}

/// Prints the report.
pub fn say(context: &Context, report: &Report) -> anyhow::Result<Exit> {
    context.output.value(report, || report.text())?;
    Ok(match report.outcome {
        Outcome::BackedUp | Outcome::Restored => Exit::Done,
        Outcome::Interrupted => Exit::Partly,
    })
}
