//! What a database file says about its schema, read without leaving a trace: a refusal must change nothing, and even
//! a reading connection of SQLite would create files beside the database.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::super::{DbError, connect};
use super::MigrateError;
use crate::message::Millis;
use crate::server::migrate::{Kind, Row};

/// Attempts to read while others open, fold and close the file.
const ATTEMPTS: u32 = 5;

/// The rows of the file at `path`, ascending; none if there is no file, or an empty one.
pub(super) fn inspect(path: &Path) -> Result<Vec<Row>, MigrateError> {
    for attempt in 1.. {
        match inspect_once(path) {
            // A closing process removes the log between two of our looks, a starting one is half way through its
            // first page. Neither lasts.
            Err(MigrateError::Database { .. }) if attempt < ATTEMPTS => thread::sleep(Duration::from_millis(20)),
            outcome => return outcome,
        }
    }
    Ok(Vec::new())
}

fn inspect_once(path: &Path) -> Result<Vec<Row>, MigrateError> {
    if is_absent_or_empty(path)? {
        return Ok(Vec::new());
    }
    let connection = open_quietly(path).map_err(MigrateError::database(path))?;
    read_rows(&connection, path)
}

/// The rows as `connection` sees them. Errors: [`MigrateError::Foreign`], [`MigrateError::Database`].
pub(super) fn read_rows(connection: &Connection, path: &Path) -> Result<Vec<Row>, MigrateError> {
    rows(connection)
        .map_err(|error| MigrateError::database(path)(error.into()))?
        .ok_or_else(|| MigrateError::Foreign { path: path.to_owned() })
}

/// `None`: there are tables, but not ours.
fn rows(connection: &Connection) -> rusqlite::Result<Option<Vec<Row>>> {
    // One transaction, so that the two questions are about one state.
    connection.execute_batch("BEGIN")?;
    let (tables, ours): (i64, i64) = connection.query_row(
        "SELECT count(*), count(*) FILTER (WHERE name = 'schema_migrations') FROM sqlite_schema WHERE type = 'table'",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let mut rows = Vec::new();
    if ours > 0 {
        let mut select =
            connection.prepare("SELECT version, name, checksum, applied_at FROM schema_migrations ORDER BY version")?;
        let mut found = select.query([])?;
        while let Some(row) = found.next()? {
            rows.push(Row {
                version: row.get(0)?,
                name: row.get(1)?,
                checksum: row.get(2)?,
                // No older binary is known to work with any step.
                kind: Kind::Contract,
                applied_at: Millis(row.get(3)?),
            });
        }
    }
    connection.execute_batch("COMMIT")?;
    Ok((ours > 0 || tables == 0).then_some(rows))
}

fn is_absent_or_empty(path: &Path) -> Result<bool, MigrateError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(MigrateError::io("open", path, error)),
    };
    let mut header = Vec::new();
    file.by_ref().take(100).read_to_end(&mut header).map_err(|error| MigrateError::io("read", path, error))?;
    if header.is_empty() {
        // Everything may still be in the log beside it.
        return Ok(!has_contents(path, "-wal"));
    }
    // https://www.sqlite.org/fileformat2.html#magic_header_string
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(MigrateError::NotADatabase { path: path.to_owned() });
    }
    let length = file.metadata().map_err(|error| MigrateError::io("read", path, error))?.len();
    match expected_length(&header) {
        // With a log beside it the end of the file may still be in there.
        Some(expected) if length < expected && !has_contents(path, "-wal") => {
            let what = format!("it has {length} bytes of {expected}");
            Err(MigrateError::database(path)(DbError::Corrupt(what)))
        }
        _ => Ok(false),
    }
}

/// The file's length by its header (<https://www.sqlite.org/fileformat2.html#in_header_database_size>). SQLite itself
/// notices that the end is missing only when it needs a page of it, perhaps much later.
fn expected_length(header: &[u8]) -> Option<u64> {
    let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let page_size = match u16::from_be_bytes(header.get(16..18)?.try_into().ok()?) {
        1 => 65_536,
        size => u64::from(size),
    };
    // Only then the number of pages is one that the last writer vouches for.
    let is_valid = number(24)? == number(92)?;
    is_valid.then_some(page_size * u64::from(number(28)?))
}

/// A connection to read with, by the way that changes nothing in the state that the files are in.
fn open_quietly(path: &Path) -> Result<Connection, DbError> {
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    if has_contents(path, "-journal") {
        // A crash while the file was being made: SQLite undoes it with the next opening, whoever's that is.
        return connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE);
    }
    if !has_contents(path, "-wal") {
        // The file alone is the database.
        return connect(&uri(path, "immutable=1"), read_only);
    }
    // Left by a crash, unless others have it open, or it isn't ours to write.
    open_alone(path).or_else(|_| connect(&uri(path, "mode=ro&readonly_shm=1"), read_only))
}

/// With the file for oneself, the log's index stays in this process's memory and its file is neither needed nor
/// touched (<https://www.sqlite.org/wal.html#use_of_wal_without_shared_memory>). Fails at once if anybody has the file
/// open.
fn open_alone(path: &Path) -> Result<Connection, DbError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    // The first look takes the lock.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_row| Ok(()))?;
    Ok(connection)
}

fn has_contents(path: &Path, suffix: &str) -> bool {
    fs::metadata(path_with(path, suffix)).is_ok_and(|file| file.len() > 0)
}

fn path_with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// <https://www.sqlite.org/uri.html>; every byte that could mean something else is escaped.
fn uri(path: &Path, parameters: &str) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_unknown| path.to_owned());
    let escaped: String = absolute
        .as_os_str()
        .as_bytes()
        .iter()
        .map(|&byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => char::from(byte).to_string(),
            _ => format!("%{byte:02x}"),
        })
        .collect();
    format!("file://{escaped}?{parameters}").into()
}
