//! Versioned schema migrations of the embedded database.
//!
//! The steps are the files of `schema/sqlite/`; what has been applied is in the table `schema_migrations`. Each step
//! is one transaction together with its row, so that a kill leaves it applied or not, and all of it happens under a
//! file lock, so that any number of processes may start at once. Looking ([`status`], [`plan`], [`lock_state`], and
//! every refusal) creates and changes nothing.

mod apply;
mod embedded;
mod error;
mod inspect;
mod lock;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::message::Millis;
use embedded::{MIGRATIONS, Migration};
pub use error::MigrateError;
use inspect::{Row, inspect};
pub use lock::{Holder, LockState, lock_state};

/// A version of the schema, known to this binary or found in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub version: u32,
    pub name: String,
    /// SHA-256 in hexadecimal: of this binary's file, or what the database recorded if this binary has none.
    pub checksum: String,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    Applied {
        at: Millis,
    },
    Pending,
    /// Applied, from a file with other contents than this binary's.
    Changed,
    /// Applied, but this binary, which knows later versions, doesn't have it.
    Missing,
    /// Applied by a later binary.
    Newer,
}

/// A step that [`up`] would apply now, with the exact SQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    pub version: u32,
    pub name: &'static str,
    pub checksum: String,
    pub sql: &'static str,
}

/// A step that [`up`] has applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Applied {
    pub version: u32,
    pub name: &'static str,
    pub took_ms: i64,
}

/// What [`up`] is doing, for people who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Another process holds the lock.
    Waiting {
        holder: Option<Holder>,
    },
    Applying {
        version: u32,
        name: &'static str,
    },
    Applied {
        version: u32,
        name: &'static str,
        took_ms: i64,
    },
}

/// What a starting server does about pending steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Applies them: the embedded deployment, whose database is this process's own.
    ApplyPending,
    /// Refuses to start: [`MigrateError::Pending`].
    Verify,
}

/// How long a starting server waits for another process's migration.
const WAIT_AT_START: Duration = Duration::from_secs(60);

/// Every version this binary knows and every one the database has, ascending. A file that doesn't exist has none.
///
/// Errors: [`MigrateError::NotADatabase`], [`MigrateError::Foreign`], [`MigrateError::Database`],
/// [`MigrateError::Io`]; a schema that doesn't fit is no error here.
pub fn status(path: &Path) -> Result<Vec<Step>, MigrateError> {
    Ok(compare(MIGRATIONS, &inspect(path)?))
}

/// What [`up`] would do, ascending. Errors: those of [`status`], and [`MigrateError::Newer`],
/// [`MigrateError::Changed`], [`MigrateError::Missing`].
pub fn plan(path: &Path) -> Result<Vec<Planned>, MigrateError> {
    let steps = pending(path, MIGRATIONS, &inspect(path)?)?;
    Ok(steps
        .into_iter()
        .map(|step| Planned { version: step.version, name: step.name, checksum: step.checksum(), sql: step.sql })
        .collect())
}

/// Applies what is pending and returns it, ascending; creates the file (mode 0600) and its directory (0700).
///
/// Waits up to `wait` for another migrator. Blocks: not to be called on the runtime's threads.
///
/// Errors: those of [`plan`], [`MigrateError::Locked`] and [`MigrateError::Step`]; after the last the steps before
/// it stay applied.
pub fn up(path: &Path, wait: Duration, mut progress: impl FnMut(Progress)) -> Result<Vec<Applied>, MigrateError> {
    apply::up(path, MIGRATIONS, wait, &mut progress)
}

/// Makes sure that the schema is the one this binary was built for. Blocks like [`up`], with its errors, and
/// [`MigrateError::Pending`] with [`Mode::Verify`].
pub fn ensure(path: &Path, mode: Mode) -> Result<Vec<Applied>, MigrateError> {
    match mode {
        Mode::ApplyPending => up(path, WAIT_AT_START, |step| match step {
            Progress::Waiting { holder } => {
                tracing::info!(pid = holder.map(|h| h.pid), "another process is migrating; waiting for it");
            }
            Progress::Applying { .. } => {}
            Progress::Applied { version, name, took_ms } => {
                tracing::info!(version, name, took_ms, "schema migration applied");
            }
        }),
        Mode::Verify => match plan(path)?.len() {
            0 => Ok(Vec::new()),
            pending => Err(MigrateError::Pending { path: path.to_owned(), pending }),
        },
    }
}

fn compare(set: &[Migration], rows: &[Row]) -> Vec<Step> {
    let newest = set.last().map_or(0, |step| step.version);
    let known = set.iter().map(|step| {
        let checksum = step.checksum();
        let state = match rows.iter().find(|row| row.version == step.version) {
            None => State::Pending,
            Some(row) if row.checksum != checksum => State::Changed,
            Some(row) => State::Applied { at: row.applied_at },
        };
        Step { version: step.version, name: step.name.to_owned(), checksum, state }
    });
    let unknown = rows.iter().filter(|row| set.iter().all(|step| step.version != row.version)).map(|row| Step {
        version: row.version,
        name: row.name.clone(),
        checksum: row.checksum.clone(),
        state: if row.version > newest { State::Newer } else { State::Missing },
    });
    let mut steps: Vec<Step> = known.chain(unknown).collect();
    steps.sort_by_key(|step| step.version);
    steps
}

/// The steps to apply, or why none may be.
fn pending(path: &Path, set: &'static [Migration], rows: &[Row]) -> Result<Vec<&'static Migration>, MigrateError> {
    let steps = compare(set, rows);
    // First, because a newer binary explains everything else that differs.
    if let Some(newer) = steps.iter().rfind(|step| step.state == State::Newer) {
        let known = set.last().map_or(0, |step| step.version);
        return Err(MigrateError::Newer { path: path.to_owned(), found: newer.version, known });
    }
    for Step { version, name, state, .. } in steps {
        let path = path.to_owned();
        match state {
            State::Changed => return Err(MigrateError::Changed { path, version, name }),
            State::Missing => return Err(MigrateError::Missing { path, version, name }),
            State::Applied { .. } | State::Pending | State::Newer => {}
        }
    }
    Ok(set.iter().filter(|step| rows.iter().all(|row| row.version != step.version)).collect())
}
