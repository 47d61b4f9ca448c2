//! Databases for tests, and what is left of them after a kill.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rusqlite::Connection;
use tempfile::TempDir;

use super::{Database, Options};

const SCHEMA: &str = concat!(
    include_str!("../../../schema/sqlite/0001_initial.sql"),
    include_str!("../../../schema/sqlite/0002_refusals.sql"),
    include_str!("../../../schema/sqlite/0003_sends_by_time.sql"),
    include_str!("../../../schema/sqlite/0004_deaths.sql"),
    include_str!("../../../schema/sqlite/0005_purges.sql"),
);

/// A data directory of its own with an open database in it; both go when it is dropped.
pub(crate) struct TempDatabase {
    // Closed before its directory goes.
    database: Database,
    options: Options,
    directory: TempDir,
}

impl TempDatabase {
    pub(crate) fn new() -> Self {
        Self::with(Options { poll_interval: std::time::Duration::from_millis(20), ..Options::default() })
    }

    pub(crate) fn with(options: Options) -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(file(directory.path()), empty_file()).unwrap();
        let database = Database::open(&file(directory.path()), &options).unwrap();
        Self { database, options, directory }
    }

    pub(crate) fn database(&self) -> Database {
        self.database.clone()
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The same file as another process opens it.
    pub(crate) fn open_again(&self) -> Database {
        Database::open(&file(self.directory()), &self.options).unwrap()
    }

    /// What the next process finds when this one is killed now: the file and its log as they are, not closed.
    pub(crate) fn after_kill(&self) -> Self {
        let directory = TempDir::new().unwrap();
        for suffix in ["", "-wal"] {
            let name = format!("aula.db{suffix}");
            fs::copy(self.directory().join(&name), directory.path().join(&name)).unwrap();
        }
        let database = Database::open(&file(directory.path()), &self.options).unwrap();
        Self { database, options: self.options.clone(), directory }
    }
}

fn file(directory: &Path) -> PathBuf {
    directory.join("aula.db")
}

/// Made once: a property test opens hundreds.
fn empty_file() -> &'static [u8] {
    static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();
    EMPTY.get_or_init(|| {
        let directory = TempDir::new().unwrap();
        let path = file(directory.path());
        Connection::open(&path).unwrap().execute_batch(SCHEMA).unwrap();
        fs::read(path).unwrap()
    })
}
