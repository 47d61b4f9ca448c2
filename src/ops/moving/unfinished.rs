//! A note in a folder that what is in it is not finished, so that whoever was killed there can begin anew.

use std::io;
use std::path::{Path, PathBuf};

use super::files;

/// Lies in the folder from before the first file until after the last.
pub struct Note {
    path: PathBuf,
}

impl Note {
    /// The note of `command` (`backup`, `restore`) in a folder.
    pub fn of(folder: &Path, command: &str) -> Self {
        Self { path: folder.join(format!("{command}.unfinished")) }
    }

    pub fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Durable when it returns.
    pub fn put(&self) -> io::Result<()> {
        files::write_whole(&self.path, b"this folder is not finished\n", 0o644)
    }

    pub fn remove(&self) -> io::Result<()> {
        files::remove(&self.path)?;
        files::sync_folder(self.path.parent().unwrap_or(Path::new(".")))
    }
}
