//! The part that writes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, params};

use super::super::{DbError, connect};
use super::lock::Lock;
use super::{Applied, MigrateError, Progress, inspect, pending};
use crate::message::Millis;
use crate::server::migrate::{self, Target};

/// The migrator's own table: not a step, because the steps are recorded in it.
const SCHEMA_MIGRATIONS: &str = "
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    INTEGER NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL,
    checksum   TEXT    NOT NULL,
    applied_at INTEGER NOT NULL,
    took_ms    INTEGER NOT NULL
) STRICT";

pub(super) fn up(
    path: &Path,
    set: &'static [migrate::File],
    wait: Duration,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Applied>, MigrateError> {
    // Before anything is created: a refusal leaves no trace, and a start with nothing to do takes no lock.
    if pending(path, set, &inspect::inspect(path)?)?.is_empty() {
        return Ok(Vec::new());
    }
    create_directory(path)?;
    let _lock = Lock::acquire(path, wait, |holder| progress(Progress::Waiting { holder }))?;
    create_file(path)?;
    let connection = open(path).map_err(MigrateError::database(path))?;
    // Another process may have done all of it while this one waited.
    let steps = pending(path, set, &inspect::read_rows(&connection, path)?)?;
    let mut applied = Vec::with_capacity(steps.len());
    for step in steps {
        progress(Progress::Applying { version: step.version, name: step.name });
        let took_ms = apply(&connection, step).map_err(|source| MigrateError::Step {
            version: step.version,
            name: step.name,
            source,
        })?;
        progress(Progress::Applied { version: step.version, name: step.name, took_ms });
        let (version, name) = (Some(step.version), step.name.to_owned());
        applied.push(Applied { target: Target::Sqlite, version, name, took_ms });
    }
    Ok(applied)
}

fn open(path: &Path) -> Result<Connection, DbError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// The step and its row, or neither. Returns the milliseconds it took up to the commit.
fn apply(connection: &Connection, step: &migrate::File) -> Result<i64, DbError> {
    let started = Instant::now();
    let outcome = (|| {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        connection.execute_batch(SCHEMA_MIGRATIONS)?;
        connection.execute_batch(step.text)?;
        let took_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        connection.execute(
            "INSERT INTO schema_migrations (version, name, checksum, applied_at, took_ms) VALUES (?, ?, ?, ?, ?)",
            params![step.version, step.name, step.checksum(), Millis::now().0, took_ms],
        )?;
        connection.execute_batch("COMMIT")?;
        Ok(took_ms)
    })();
    // SQLite may have rolled back by itself (disk full).
    if outcome.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    outcome
}

/// Only the server's user may look into it: it holds secrets beside the messages.
fn create_directory(database: &Path) -> Result<(), MigrateError> {
    let Some(directory) = database.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| MigrateError::io("create the data directory", directory, error))?;
    sync_parent(directory)
}

fn create_file(path: &Path) -> Result<(), MigrateError> {
    if fs::exists(path).map_err(|error| MigrateError::io("look for", path, error))? {
        return Ok(());
    }
    // SQLite gives its log and its index the same permissions.
    let created = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    created.map_err(|error| MigrateError::io("create", path, error))?;
    sync_parent(path)
}

/// Makes the new name as durable as what will be stored under it.
fn sync_parent(path: &Path) -> Result<(), MigrateError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(parent).and_then(|directory| directory.sync_all());
    synced.map_err(|error| MigrateError::io("sync", parent, error))
}
