//! A copy of the file while others write to it: one moment of the database.

use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use super::{DbError, connect};

/// Pages copied between two looks at whether to go on: 4 MiB.
const STEP: i32 = 1_024;

/// What is in a database file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The newest schema step that was applied.
    pub schema: u32,
    pub users: u64,
    pub channels: u64,
    pub messages: u64,
    /// Waiting in the queues.
    pub tasks: u64,
    pub dead_letters: u64,
}

/// Copies `from` to the new file `to`: all that was committed before the call, and nothing half committed. Others go on
/// writing meanwhile; what they write stays in the log beside `from` until this returns. `look` is told how many of how
/// many pages are done, and may break it off: then the result is `None`, and `to` is not a database.
///
/// `to` is one file without a log beside it; it is not synced.
///
/// Blocks. Errors: as SQLite reports them, of either file.
pub fn copy(
    from: &Path,
    to: &Path,
    mut look: impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Option<Contents>, DbError> {
    let source = connect(from, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // A reader's snapshot. Without it, each commit of another process makes the copy begin anew, and under load it would
    // never end (https://www.sqlite.org/backup.html).
    source.execute_batch("BEGIN")?;
    let contents = contents(&source)?;
    let mut copy = connect(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    // Whoever is killed begins anew: nothing of it need be undone.
    copy.pragma_update(None, "journal_mode", "OFF")?;
    copy.pragma_update(None, "synchronous", "OFF")?;
    let backup = Backup::new(&source, &mut copy)?;
    loop {
        let step = backup.step(STEP)?;
        let (all, left) = (backup.progress().pagecount, backup.progress().remaining);
        let pages = |count: i32| u64::try_from(count).unwrap_or(0);
        if look(pages(all - left), pages(all)).is_break() {
            return Ok(None);
        }
        match step {
            StepResult::Done => break,
            StepResult::More => {}
            // Another process holds a lock for a moment.
            _ => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
    drop(backup);
    // The copy says of itself that a log belongs to it, as its source does.
    copy.pragma_update(None, "journal_mode", "DELETE")?;
    Ok(Some(contents))
}

/// What is in the file at `path`, which nobody writes to, after SQLite has looked through all of it.
///
/// Blocks. Errors: [`DbError::Corrupt`]; what else SQLite reports.
pub fn examine(path: &Path) -> Result<Contents, DbError> {
    let file = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let found: String = file.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(DbError::Corrupt(found));
    }
    Ok(contents(&file)?)
}

fn contents(connection: &Connection) -> rusqlite::Result<Contents> {
    let count = |table: &str| {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).map(|n| n as u64)
    };
    Ok(Contents {
        schema: connection.query_row("SELECT max(version) FROM schema_migrations", [], |row| row.get(0))?,
        users: count("users")?,
        channels: count("channels")?,
        messages: count("messages")?,
        tasks: count("tasks")?,
        dead_letters: count("dead_letters")?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::migrate::{self, Mode};
    use super::*;

    #[test]
    fn a_copy_ends_while_others_write_and_has_what_was_there_before() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("aula.db"), folder.path().join("copy"));
        migrate::ensure(&from, Mode::ApplyPending).unwrap();
        let writer = connect(&from, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        writer.pragma_update(None, "journal_mode", "WAL").unwrap();
        let add =
            |n: u64| writer.execute("INSERT INTO settings VALUES (?1, ?2)", (n as i64, "x".repeat(8_000))).unwrap();
        for n in 0..2_000 {
            add(n);
        }
        let mut written = 2_000;
        let contents = copy(&from, &to, |_, _| {
            add(written);
            written += 1;
            ControlFlow::Continue(())
        });
        let contents = contents.unwrap().unwrap();
        assert!(written > 2_002, "in several steps: {written}");
        assert_eq!(examine(&to).unwrap(), contents);
        let copied = connect(&to, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let count: i64 = copied.query_row("SELECT count(*) FROM settings", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 2_000, "one moment");
        assert!(migrate::plan(&to).unwrap().is_empty());
        let beside: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().map(|file| file.file_name()).collect();
        assert!(!beside.iter().any(|name| name.to_string_lossy().starts_with("copy-")), "{beside:?}");
    }

    #[test]
    fn it_can_be_broken_off() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("aula.db"), folder.path().join("copy"));
        migrate::ensure(&from, Mode::ApplyPending).unwrap();
        let was_asked = AtomicBool::new(false);
        let outcome = copy(&from, &to, |_, _| {
            was_asked.store(true, Ordering::Relaxed);
            ControlFlow::Break(())
        });
        assert_eq!((outcome.unwrap(), was_asked.into_inner()), (None, true));
    }

    #[test]
    fn what_is_damaged_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aula.db");
        migrate::ensure(&path, Mode::ApplyPending).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4_096].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
        assert!(examine(&path).is_err());
    }
}
