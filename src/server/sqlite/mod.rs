//! The embedded engine: one SQLite file, one writer that commits in groups, readers beside it.
//!
//! Every stage's embedded backend (queue, store, search, accounts) works through a [`Database`]. What waits to be
//! written goes into one transaction and one fsync, whatever stage it comes from.

mod checkpoint;
pub mod copy;
mod error;
pub mod holder;
pub mod migrate;
mod readers;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub(crate) mod testing;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

pub use error::DbError;
use readers::Readers;
pub use writer::Admission;
use writer::Writer;

/// The database in its data directory.
pub const FILE_NAME: &str = "aula.db";

/// How a [`Database`] is opened; the bounds are those of the configuration's `store` section.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections that read, at most; each holds its own page cache.
    pub readers: usize,
    /// Writes of clients that may wait for the writer; one more is [`DbError::Overloaded`].
    pub writer_queue: usize,
    /// Writes in one transaction, at most.
    pub max_batch: usize,
    /// How often an idle writer looks whether another process has committed.
    pub poll_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { readers: 4, writer_queue: 8192, max_batch: 1000, poll_interval: Duration::from_millis(250) }
    }
}

/// A handle on the open file; clones share it. The file is closed (and its log folded in) with the last clone.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    // Dropped in this order: the log is folded in by the last connection that closes, if that one may write.
    readers: Readers,
    writer: Writer,
}

impl Database {
    /// Opens a file whose schema is already in place (see [`migrate`]).
    ///
    /// Errors: [`DbError::ReadOnly`], [`DbError::Corrupt`] or [`DbError::Other`] as SQLite reports them.
    pub fn open(path: &Path, options: &Options) -> Result<Self, DbError> {
        let writer = Writer::start(path, options)?;
        let readers = Readers::new(path, options.readers);
        Ok(Self { inner: Arc::new(Inner { path: path.to_owned(), readers, writer }) })
    }

    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Puts `write` into the writer's next transaction, in the order of the calls, and calls `done` after the
    /// fsync (on the writer's thread: it must not block).
    ///
    /// `write` may run more than once, each time on a state where its earlier runs never happened: it must not
    /// keep anything from one run to the next. Its `Err` undoes it alone; a refusal that is no fault of the
    /// database belongs in `T`.
    ///
    /// Errors: [`DbError::Overloaded`] for [`Admission::Bounded`] when the queue is full, [`DbError::Closed`].
    pub fn submit<T, F, D>(&self, admission: Admission, write: F, done: D) -> Result<(), DbError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
        D: FnOnce(Result<T, DbError>) + Send + 'static,
    {
        self.inner.writer.submit(admission, write, done)
    }

    /// [`Database::submit`] for those who wait: resolves after the fsync.
    pub async fn write<T, F>(&self, write: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.write_as(Admission::Internal, write).await
    }

    /// [`Database::write`] with another admission.
    pub async fn write_as<T, F>(&self, admission: Admission, write: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.submit(admission, write, move |result| {
            // The one who waited may have gone away; the write stands all the same.
            let _ = reply.send(result);
        })?;
        outcome.await.unwrap_or(Err(DbError::Closed))
    }

    /// Runs `read` on a reader's connection, off the runtime's threads. It sees every commit made before the call.
    pub async fn read<T, F>(&self, read: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.inner.readers.run(read).await
    }

    /// Whether the last transaction could not be written.
    pub fn is_failing(&self) -> bool {
        self.inner.writer.is_failing()
    }

    /// Calls `observer` (on the writer's thread: it must not block) whenever another process has committed.
    pub fn on_foreign_commit(&self, observer: impl Fn() + Send + 'static) {
        self.inner.writer.observe(Box::new(observer));
    }
}

/// Opens one connection with the settings that every connection of the file shares.
fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, DbError> {
    let mut connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // SQLite opens a file that it may not write for reading instead, and would leave files beside it that it may not
    // write either.
    if flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) && connection.is_readonly("main")? {
        return Err(DbError::ReadOnly);
    }
    // Another process may hold the write lock for the length of a commit. SQLite's own waiting doubles its naps up
    // to 100 ms, which would be the latency of every contended send.
    connection.busy_handler(Some(|attempts| {
        std::thread::sleep(Duration::from_micros(if attempts < 20 { 250 } else { 2_000 }));
        attempts < 5_000
    }))?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}
