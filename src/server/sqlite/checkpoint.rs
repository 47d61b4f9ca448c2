//! Folds the write-ahead log into the file beside the writer, so that commits don't pay for it.
//!
//! A passive checkpoint waits for nobody, but under steady load the writer always stays a few pages ahead of it and
//! the log would never start over. So when the log is long, the writer runs one more itself, between two commits:
//! only the pages since the last background pass are left to copy by then.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, OpenFlags};

use super::{DbError, connect};

/// A background pass begins after this many commits (several pages each).
const COMMITS_BETWEEN_PASSES: u32 = 128;
/// Pages of 4 KiB in the log from which the writer lends a hand.
const LONG_LOG_PAGES: i64 = 4_000;

/// The writer's side.
pub(super) struct Checkpoints {
    // `None` only while dropping: closing the channel is what ends the thread.
    wake: Option<SyncSender<()>>,
    writer_is_asked: Arc<AtomicBool>,
    commits: u32,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    pub(super) fn start(path: &Path) -> Result<Self, DbError> {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let writer_is_asked = Arc::new(AtomicBool::new(false));
        let (wake, waiting) = sync_channel(1);
        let asked = Arc::clone(&writer_is_asked);
        let thread = thread::Builder::new()
            .name("aula-checkpoint".into())
            .spawn(move || run(&connection, &waiting, &asked))
            .map_err(|error| DbError::Other(format!("can't start a thread: {error}")))?;
        Ok(Self { wake: Some(wake), writer_is_asked, commits: 0, thread: Some(thread) })
    }

    /// To be called by the writer after each commit.
    pub(super) fn after_commit(&mut self, writer: &Connection) {
        self.commits += 1;
        if self.commits >= COMMITS_BETWEEN_PASSES {
            self.commits = 0;
            if let Some(Err(TrySendError::Disconnected(()))) = self.wake.as_ref().map(|wake| wake.try_send(())) {
                tracing::error!("the checkpoint thread is gone; the write-ahead log will grow");
            }
        }
        if self.writer_is_asked.swap(false, Ordering::Relaxed)
            && let Err(error) = pass(writer)
        {
            tracing::warn!(%error, "checkpoint by the writer failed; it will be tried again");
        }
    }
}

impl Drop for Checkpoints {
    /// Waits for the thread: its connection must not be the last one of the file, or the log stays behind.
    fn drop(&mut self) {
        self.wake = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the checkpoint thread panicked");
        }
    }
}

fn run(connection: &Connection, waiting: &Receiver<()>, writer_is_asked: &AtomicBool) {
    while waiting.recv().is_ok() {
        match pass(connection) {
            Ok(log_pages) if log_pages > LONG_LOG_PAGES => writer_is_asked.store(true, Ordering::Relaxed),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "checkpoint failed; it will be tried again"),
        }
    }
}

/// Copies what no reader still needs from the log. Returns the log's length in pages.
fn pass(connection: &Connection) -> Result<i64, DbError> {
    let pages = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(1))?;
    Ok(pages)
}
