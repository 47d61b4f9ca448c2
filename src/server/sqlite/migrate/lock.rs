//! One migrator at a time: an advisory lock on a file beside the database.
//!
//! The kernel drops it with its holder, however that dies, so there is nothing to clean up; the file's text only
//! tells people who holds it. The file itself stays: removing it would let two processes lock two files of one name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::MigrateError;
use crate::message::Millis;

const FILE_NAME: &str = "migrate.lock";
const POLL: Duration = Duration::from_millis(25);

/// The process that holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Holder {
    pub pid: u32,
    pub since: Millis,
}

/// Held until dropped.
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Waits up to `wait`; `on_wait` is called once, and only if somebody else holds the lock.
    pub(super) fn acquire(
        database: &Path,
        wait: Duration,
        on_wait: impl FnOnce(Option<Holder>),
    ) -> Result<Self, MigrateError> {
        let path = path_beside(database);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| MigrateError::io("open the lock file", &path, error))?;
        let started = Instant::now();
        let mut on_wait = Some(on_wait);
        while !try_lock(&file, &path)? {
            if let Some(tell) = on_wait.take() {
                tell(read_holder(&file));
            }
            if started.elapsed() >= wait {
                return Err(MigrateError::Locked { path, holder: read_holder(&file), waited: started.elapsed() });
            }
            thread::sleep(POLL.min(wait.saturating_sub(started.elapsed())));
        }
        let mut lock = Self { file };
        let text = format!("{} {}\n", std::process::id(), Millis::now());
        lock.write(&text).map_err(|error| MigrateError::io("write the lock file", &path, error))?;
        Ok(lock)
    }

    fn write(&mut self, text: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A stale name misleads nobody for long: it is shown only while the lock is held.
        let _ = self.write("");
        // Closing would do, were it not for a child that is being started just now with a copy of the descriptor.
        let _ = self.file.unlock();
    }
}

/// Whether somebody migrates the database at `database` now. Creates and changes nothing.
pub fn lock_state(database: &Path) -> Result<LockState, MigrateError> {
    let path = path_beside(database);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(LockState::Free),
        Err(error) => return Err(MigrateError::io("open the lock file", &path, error)),
    };
    if try_lock(&file, &path)? { Ok(LockState::Free) } else { Ok(LockState::Held(read_holder(&file))) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockState {
    Free,
    /// By a living process; `None` while it has not yet written its name.
    Held(Option<Holder>),
}

fn try_lock(file: &File, path: &Path) -> Result<bool, MigrateError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(MigrateError::io("lock", path, error)),
    }
}

fn read_holder(mut file: &File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(64).read_to_string(&mut text).ok()?;
    let (pid, since) = text.trim_end().split_once(' ')?;
    let since: jiff::Timestamp = since.parse().ok()?;
    Some(Holder { pid: pid.parse().ok()?, since: Millis(since.as_millisecond()) })
}

fn path_beside(database: &Path) -> PathBuf {
    database.with_file_name(FILE_NAME)
}
