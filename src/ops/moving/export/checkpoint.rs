//! How far an export has come, in its folder: it goes on there after it was interrupted or killed.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::super::{files, manifest};
use super::way::Way;
use crate::message::Millis;

const FILE: &str = "export.json";

/// What is left to do, and what is done: its files are whole, in their places, and never changed again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The store that it is of.
    pub place: String,
    pub began_at: Millis,
    pub way: Way,
    pub files: Vec<manifest::Part>,
    /// Seqs of the channels that were walked by, purged ones among them: for the progress.
    pub walked: u64,
}

impl Checkpoint {
    pub fn accounts(&self) -> u64 {
        self.files.iter().map(|file| file.accounts).sum()
    }

    pub fn channels(&self) -> u64 {
        self.files.iter().map(|file| file.channels).sum()
    }

    pub fn entries(&self) -> u64 {
        self.files.iter().map(|file| file.entries).sum()
    }

    /// `None` if there is none. Errors: it can't be read, or is of another version.
    pub fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder.join(FILE);
        match std::fs::read(&path) {
            Ok(text) => {
                let read = serde_json::from_slice(&text);
                Ok(Some(read.with_context(|| format!("{} is not a checkpoint of this version", path.display()))?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
        }
    }

    /// Durable when it returns.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec(self)?;
        files::write_whole(&folder.join(FILE), &text, 0o600).context("the checkpoint can't be written")
    }

    pub fn remove(folder: &Path) -> io::Result<()> {
        files::remove(&folder.join(FILE))?;
        files::sync_folder(folder)
    }
}
