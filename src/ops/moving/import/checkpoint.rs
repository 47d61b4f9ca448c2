//! How far an import has come, in the data directory: it goes on there after it was interrupted or killed.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::super::files;
use super::report::Counts;

const FILE: &str = "import.json";

/// A place between two channels. What came before need not be looked at again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// SHA-256 of the export's manifest.
    pub manifest: String,
    /// The store that it goes into.
    pub place: String,
    /// Files that are done, in the manifest's order but for the accounts, which are first.
    pub files: usize,
    /// Where the next channel of the next file begins.
    pub offset: u64,
    pub counts: Counts,
}

/// Where it is kept.
pub struct Desk(PathBuf);

impl Desk {
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE))
    }

    /// `None` if there is none that can be read: then all is looked at again, which changes nothing.
    pub fn read(&self) -> anyhow::Result<Option<Checkpoint>> {
        match std::fs::read(&self.0) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("can't read {}", self.0.display())),
        }
    }

    pub fn write(&self, checkpoint: &Checkpoint) -> anyhow::Result<()> {
        let text = serde_json::to_vec(checkpoint)?;
        files::write_whole(&self.0, &text, 0o600).context("the checkpoint can't be written")
    }

    pub fn remove(&self) -> io::Result<()> {
        files::remove(&self.0)
    }
}
