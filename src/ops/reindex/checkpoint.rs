//! How far a rebuild has come, in a file: it goes on there after it was interrupted or killed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::message::Millis;
use crate::server::search::rebuild::{Rejected, Walk};

const FILE: &str = "reindex.json";
const LOCK: &str = "reindex.lock";
/// Rejected entries that are kept, at most; more are only counted.
const KEPT: usize = 1_000;

/// What is known of the index that is being built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its name.
    pub index: String,
    pub began_at: Millis,
    /// Each as far as it has come; `None` when it is at its end.
    pub walks: Vec<Option<Walk>>,
    /// Entries that the walks came by and that are in the index.
    pub entries: u64,
    pub rejected: Vec<Rejected>,
    pub rejected_count: u64,
}

impl Checkpoint {
    pub fn new(index: String, walks: Vec<Walk>) -> Self {
        Self {
            index,
            began_at: Millis::now(),
            walks: walks.into_iter().map(Some).collect(),
            entries: 0,
            rejected: Vec::new(),
            rejected_count: 0,
        }
    }

    pub fn reject(&mut self, rejected: Vec<Rejected>) {
        self.rejected_count += rejected.len() as u64;
        let place = KEPT.saturating_sub(self.rejected.len());
        self.rejected.extend(rejected.into_iter().take(place));
    }

    /// How much is done, 0 to 1.
    pub fn fraction(&self) -> f64 {
        let done: f64 = self.walks.iter().map(|walk| walk.as_ref().map_or(1.0, Walk::fraction)).sum();
        if self.walks.is_empty() { 1.0 } else { done / self.walks.len() as f64 }
    }
}

/// The folder of the checkpoint, held by one command at a time.
pub struct Desk {
    folder: PathBuf,
    _locked: File,
}

impl Desk {
    /// Errors: another `aula reindex` is at work here.
    pub fn take(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(LOCK);
        let shown = || path.display().to_string();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("can't open {}", shown()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { folder: folder.to_owned(), _locked: file }),
            Err(TryLockError::WouldBlock) => anyhow::bail!("another `aula reindex` is at work: {} is locked", shown()),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("can't lock {}", shown())),
        }
    }

    /// `None` if there is none that can be read: then everything is walked through again.
    pub fn read(&self) -> io::Result<Option<Checkpoint>> {
        match fs::read(self.folder.join(FILE)) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whole or not at all. Not synced: an older one only means more to do again.
    pub fn write(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        let (path, new) = (self.folder.join(FILE), self.folder.join("reindex.json.new"));
        File::create(&new)?.write_all(&serde_json::to_vec(checkpoint)?)?;
        fs::rename(new, path)
    }

    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(self.folder.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_it_keeps_what_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::take(folder.path()).unwrap();
        assert!(Desk::take(folder.path()).is_err());
        assert_eq!(desk.read().unwrap(), None);
        let mut checkpoint = Checkpoint::new("next".into(), vec![Walk::Positions { first: 0, after: 0, last: 8 }; 2]);
        assert_eq!(checkpoint.fraction(), 0.0);
        checkpoint.walks = vec![None, Some(Walk::Positions { first: 0, after: 4, last: 8 })];
        assert_eq!(checkpoint.fraction(), 0.75);
        desk.write(&checkpoint).unwrap();
        drop(desk);
        let desk = Desk::take(folder.path()).unwrap();
        assert_eq!(desk.read().unwrap(), Some(checkpoint));
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(desk.read().unwrap(), None, "torn: from the beginning");
        desk.remove().unwrap();
        desk.remove().unwrap();
    }
}
