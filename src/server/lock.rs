//! One gateway a data directory: a second one would tell its clients nothing of what the first one's send.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Held for as long as the server lives; the kernel lets go of it however the process ends.
pub struct ServerLock {
    _locked: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another server (process {pid}) is at work on {}: stop it first, or give this one its own --data-dir", path.display())]
    Held { path: PathBuf, pid: String },
    #[error("can't lock {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

impl ServerLock {
    /// Takes the lock, or says who has it.
    pub fn take(data_dir: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { path: data_dir.to_owned(), source };
        let path = data_dir.join("serve.lock");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Only for the message: a lock without a readable pid is held all the same.
                if file.read_to_string(&mut pid).is_err() || pid.trim().is_empty() {
                    pid = "unknown".to_owned();
                }
                return Err(LockError::Held { path: data_dir.to_owned(), pid: pid.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _locked: file })
    }
}

/// Whether a server is at work on a data directory; also when that can't be told.
pub fn is_held(data_dir: &Path) -> bool {
    match File::open(data_dir.join("serve.lock")) {
        Ok(file) => file.try_lock_shared().is_err(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}
