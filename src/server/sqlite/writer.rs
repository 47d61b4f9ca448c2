use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};

use super::checkpoint::Checkpoints;
use super::{DbError, Options, connect};

/// Whether a write may be refused when many wait, and whether somebody waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// From outside: refused with [`DbError::Overloaded`] when the queue is full.
    Bounded,
    /// A consequence of work already admitted (a store), bounded by the prefetch window.
    Internal,
    /// As [`Admission::Internal`], but no person waits for it (an acknowledgement, an index): it rides along with the
    /// next transaction, and gets one of its own only when none comes within a moment.
    Relaxed,
}

/// How long a relaxed write waits for company.
const COMPANY: Duration = Duration::from_millis(10);

/// Transactions begin at least this far apart. A lonely write is written at once; where writes come one after the
/// other, each pays with two or three milliseconds for sharing an fsync, and all that has to be woken for it, with the
/// next ones.
const PACE: Duration = Duration::from_millis(5);

type Observer = Box<dyn Fn() + Send>;

/// The thread that owns the only writing connection.
pub(super) struct Writer {
    // `None` only while dropping: closing the channel is what ends the thread.
    jobs: Option<Sender<Box<dyn Job>>>,
    backlog: Arc<AtomicUsize>,
    limit: usize,
    observers: Arc<Mutex<Vec<Observer>>>,
    is_failing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(path: &Path, options: &Options) -> Result<Self, DbError> {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // FULL: the log is synced at each commit, before anybody is told (promise P1).
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "cache_size", -16384)?;
        let checkpoints = Checkpoints::start(path)?;

        let (jobs, waiting) = channel();
        let backlog = Arc::new(AtomicUsize::new(0));
        let observers = Arc::new(Mutex::new(Vec::new()));
        let is_failing = Arc::new(AtomicBool::new(false));
        let state = Loop {
            connection,
            checkpoints,
            waiting,
            backlog: Arc::clone(&backlog),
            observers: Arc::clone(&observers),
            data_version: 0,
            max_batch: options.max_batch.max(1),
            poll_interval: options.poll_interval,
            is_failing: Arc::clone(&is_failing),
            failing: None,
        };
        let thread = thread::Builder::new()
            .name("aula-writer".into())
            .spawn(move || state.run())
            .map_err(|error| DbError::Other(format!("can't start a thread: {error}")))?;
        Ok(Self { jobs: Some(jobs), backlog, limit: options.writer_queue, observers, is_failing, thread: Some(thread) })
    }

    pub(super) fn submit<T, F, D>(&self, admission: Admission, write: F, done: D) -> Result<(), DbError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
        D: FnOnce(Result<T, DbError>) + Send + 'static,
    {
        if admission == Admission::Bounded && self.backlog() >= self.limit {
            return Err(DbError::Overloaded);
        }
        let jobs = self.jobs.as_ref().ok_or(DbError::Closed)?;
        self.backlog.fetch_add(1, Ordering::Relaxed);
        jobs.send(Box::new(Write { write, done, result: None, relaxed: admission == Admission::Relaxed }))
            .map_err(|_gone| DbError::Closed)
    }

    pub(super) fn observe(&self, observer: Observer) {
        self.observers.lock().push(observer);
    }

    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    pub(super) fn backlog(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return };
        // The last handle may be dropped by a completion, on the writer's own thread, which can't wait for itself.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the writer thread panicked");
        }
    }
}

/// One write with the one who waits for it, its type erased.
trait Job: Send {
    fn apply(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    fn finish(self: Box<Self>, outcome: Result<(), DbError>);
    fn is_relaxed(&self) -> bool;
}

struct Write<T, F, D> {
    write: F,
    done: D,
    result: Option<T>,
    relaxed: bool,
}

impl<T, F, D> Job for Write<T, F, D>
where
    T: Send,
    F: FnMut(&Connection) -> rusqlite::Result<T> + Send,
    D: FnOnce(Result<T, DbError>) + Send,
{
    fn apply(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.result = Some((self.write)(connection)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), DbError>) {
        let Self { done, result, .. } = *self;
        done(outcome.and_then(|()| result.ok_or(DbError::Closed)));
    }

    fn is_relaxed(&self) -> bool {
        self.relaxed
    }
}

struct Loop {
    // Dropped in this order, so that the writer's is the last connection.
    checkpoints: Checkpoints,
    connection: Connection,
    waiting: Receiver<Box<dyn Job>>,
    backlog: Arc<AtomicUsize>,
    observers: Arc<Mutex<Vec<Observer>>>,
    data_version: i64,
    max_batch: usize,
    poll_interval: Duration,
    /// Of `failing`, for all to see.
    is_failing: Arc<AtomicBool>,
    failing: Option<Failing>,
}

/// Since when transactions fail one after the other.
struct Failing {
    since: Instant,
    failed: u64,
    report_at: Instant,
}

/// Between two lines of log about transactions that fail.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

impl Loop {
    fn run(mut self) {
        let mut last_poll = Instant::now();
        let mut last_began: Option<Instant> = None;
        let mut batch = Vec::new();
        loop {
            match self.waiting.recv_timeout(self.poll_interval) {
                Ok(job) => {
                    batch.push(job);
                    self.wait_for_company(&mut batch);
                    // Asleep and not receiving: nobody has to wake this thread for each write that joins.
                    let since = last_began.map_or(PACE, |began| began.elapsed());
                    thread::sleep(PACE.saturating_sub(since));
                    last_began = Some(Instant::now());
                    self.write_all_that_waits(&mut batch);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if last_poll.elapsed() >= self.poll_interval {
                last_poll = Instant::now();
                self.look_for_foreign_commits();
            }
        }
    }

    /// While there are only relaxed writes, waits a moment for one that is not.
    fn wait_for_company(&self, batch: &mut Vec<Box<dyn Job>>) {
        let patience = Instant::now() + COMPANY;
        while batch.len() < self.max_batch && batch.last().is_some_and(|job| job.is_relaxed()) {
            let left = patience.saturating_duration_since(Instant::now());
            match self.waiting.recv_timeout(left) {
                Ok(job) => batch.push(job),
                Err(_nobody_came) => return,
            }
        }
    }

    /// One transaction, one fsync, for everything that is there by the time it is written.
    fn write_all_that_waits(&mut self, batch: &mut Vec<Box<dyn Job>>) {
        let started = Instant::now();
        let outcome = self.group_commit(batch);
        let (writes, took) = (batch.len(), started.elapsed());
        match outcome {
            Ok(()) => {
                if let Some(Failing { since, failed, .. }) = self.failing.take() {
                    self.is_failing.store(false, Ordering::Relaxed);
                    let seconds = since.elapsed().as_secs_f64();
                    tracing::info!(failed, seconds, "transactions are written again");
                }
                for job in batch.drain(..) {
                    self.finish(job, Ok(()));
                }
                metrics::histogram!("aula_writer_batch_writes").record(writes as f64);
                metrics::histogram!("aula_writer_commit_seconds").record(took.as_secs_f64());
                self.checkpoints.after_commit(&self.connection);
            }
            // The environment's fault: every write of the group would meet it again.
            Err(error) if error.is_transient() => {
                self.report(&error, batch.len());
                for job in batch.drain(..) {
                    self.finish(job, Err(error.clone()));
                }
            }
            // One write's fault: each gets a transaction of its own, so that the others don't suffer.
            Err(error) => {
                tracing::warn!(%error, writes = batch.len(), "a group failed; its writes are tried one by one");
                for mut job in batch.drain(..) {
                    let alone = self.commit_alone(job.as_mut());
                    self.finish(job, alone);
                }
            }
        }
    }

    /// Clients try again at once and there may be thousands of them: a full disk must not be filled up by saying so.
    fn report(&mut self, error: &DbError, writes: usize) {
        let now = Instant::now();
        self.is_failing.store(true, Ordering::Relaxed);
        let failing = self.failing.get_or_insert(Failing { since: now, failed: 0, report_at: now });
        failing.failed += 1;
        if now >= failing.report_at {
            failing.report_at = now + REPORT_INTERVAL;
            tracing::error!(%error, writes, failed = failing.failed, "a transaction could not be written");
        }
    }

    fn group_commit(&mut self, batch: &mut Vec<Box<dyn Job>>) -> Result<(), DbError> {
        let transaction = Transaction::begin(&self.connection)?;
        let mut applied = 0;
        loop {
            while applied < batch.len() {
                batch[applied].apply(&self.connection)?;
                applied += 1;
            }
            if applied >= self.max_batch {
                break;
            }
            match self.waiting.try_recv() {
                Ok(job) => batch.push(job),
                Err(_nothing_waits) => break,
            }
        }
        transaction.commit()
    }

    fn commit_alone(&self, job: &mut dyn Job) -> Result<(), DbError> {
        let transaction = Transaction::begin(&self.connection)?;
        job.apply(&self.connection)?;
        transaction.commit()
    }

    fn finish(&self, job: Box<dyn Job>, outcome: Result<(), DbError>) {
        self.backlog.fetch_sub(1, Ordering::Relaxed);
        job.finish(outcome);
    }

    /// On this connection `data_version` changes only by commits of others, and within one process only this
    /// connection commits (<https://www.sqlite.org/pragma.html#pragma_data_version>).
    fn look_for_foreign_commits(&mut self) {
        let version = self.connection.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
        match version {
            Ok(version) if version != self.data_version => {
                self.data_version = version;
                for observer in self.observers.lock().iter() {
                    observer();
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "can't see whether another process has written"),
        }
    }
}

/// Rolls back when dropped before [`Transaction::commit`].
struct Transaction<'c> {
    connection: &'c Connection,
    open: bool,
}

impl<'c> Transaction<'c> {
    fn begin(connection: &'c Connection) -> Result<Self, DbError> {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(Self { connection, open: true })
    }

    fn commit(mut self) -> Result<(), DbError> {
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SQLite may have rolled back by itself (disk full): then there is nothing left to undo.
        if self.open
            && !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::TempDatabase;

    /// A kill can't show it, as the system keeps what it has taken: only this line stands between a power cut and what was
    /// accepted.
    #[tokio::test]
    async fn a_commit_is_synced_before_anybody_is_told() {
        let kept = TempDatabase::new();
        let database = kept.database();
        let pragmas = database.write(|connection| {
            let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
            let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
            Ok((synchronous, journal))
        });
        assert_eq!(pragmas.await.unwrap(), (2, "wal".to_owned()), "2: FULL");
    }
}
