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

use crate::server::migrate::compare::{self, compare};
use crate::server::migrate::{Applied, File, Misfit, Planned, Row, Step, Target};
use embedded::MIGRATIONS;
pub use error::MigrateError;
use inspect::inspect;
pub use lock::{Holder, LockState, lock_state};

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
    Ok(compare(Target::Sqlite, MIGRATIONS, &inspect(path)?))
}

/// What [`up`] would do, ascending. Errors: those of [`status`], and [`MigrateError::Newer`],
/// [`MigrateError::Changed`], [`MigrateError::Missing`].
pub fn plan(path: &Path) -> Result<Vec<Planned>, MigrateError> {
    let steps = pending(path, MIGRATIONS, &inspect(path)?)?;
    Ok(steps
        .into_iter()
        .map(|step| Planned {
            target: Target::Sqlite,
            version: Some(step.version),
            name: step.name.to_owned(),
            checksum: step.checksum(),
            begin: None,
            statements: vec![
                "BEGIN".to_owned(),
                step.text.trim_end().trim_end_matches(';').to_owned(),
                "COMMIT".to_owned(),
            ],
            record: None,
            is_pending: true,
        })
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

/// The steps to apply, or why none may be.
fn pending(path: &Path, set: &'static [File], rows: &[Row]) -> Result<Vec<&'static File>, MigrateError> {
    compare::pending(set, rows).map_err(|misfit| match (misfit, path.to_owned()) {
        (Misfit::Newer { found, known }, path) => MigrateError::Newer { path, found, known },
        (Misfit::Changed { version, name }, path) => MigrateError::Changed { path, version, name },
        (Misfit::Missing { version, name }, path) => MigrateError::Missing { path, version, name },
    })
}
