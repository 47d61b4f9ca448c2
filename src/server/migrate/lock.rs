//! One migrator at a time: a row that only one can insert, and that the database removes when its holder is gone.
//!
//! The row lives for a lease (`USING TTL`), which its holder renews every third of it. Whoever can't renew in time
//! stops by its own clock before the database gives the lock to another. Inserting, renewing and removing are
//! lightweight transactions, each about one holding's id.

use std::sync::Arc;
use std::time::Duration;

use scylla::errors::{DbError, ExecutionError, RequestAttemptError, WriteType};
use scylla::response::query_result::QueryResult;
use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;
use scylla::value::{CqlTimestamp, CqlValue, Row};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::error::MigrateError;
use super::journal::Journal;
use super::report::Holder;
use crate::message::Millis;

/// How long a holder that fell silent keeps the lock.
pub const LEASE: Duration = Duration::from_secs(30);
/// Rows expire on whole seconds of the nodes' clocks: this much earlier the holder stops by its own.
const MARGIN: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(250);
/// The one row of `schema_lock`.
const NAME: &str = "migrate";

/// The lock, held until released; dropped without that, it expires.
pub struct Lease {
    claim: Arc<Claim>,
    validity: watch::Sender<Validity>,
    renewing: tokio::task::JoinHandle<()>,
}

struct Claim {
    journal: Journal,
    id: String,
    host: String,
    since: Millis,
    length: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Validity {
    Until(Instant),
    Lost,
}

impl Lease {
    /// Waits up to `wait`; `on_wait` is called for each holder it waits for. `length` is at least three seconds.
    pub async fn acquire(
        journal: &Journal,
        length: Duration,
        wait: Duration,
        on_wait: &mut (dyn FnMut(Option<Holder>) + Send),
    ) -> Result<Self, MigrateError> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let id = Uuid::new_v4().to_string();
        let claim = Claim { journal: journal.clone(), id, host, since: Millis::now(), length };
        let started = Instant::now();
        let mut waits_for: Option<String> = None;
        loop {
            let asked = Instant::now();
            let free = claim.insert().await?;
            let holder = if free { None } else { holder(journal).await? };
            // Ours after all: an earlier attempt that was answered by a timeout.
            if free || holder.as_ref().is_some_and(|holder| holder.id == claim.id) {
                return Ok(Self::hold(claim, asked));
            }
            if let Some(holder) = &holder
                && waits_for.as_ref() != Some(&holder.id)
            {
                waits_for = Some(holder.id.clone());
                on_wait(Some(holder.clone()));
            }
            if started.elapsed() >= wait {
                // Not ours unless a timed out attempt comes through late; then it expires.
                return Err(MigrateError::Locked { holder, waited: started.elapsed() });
            }
            sleep(POLL.min(wait.saturating_sub(started.elapsed()))).await;
        }
    }

    fn hold(claim: Claim, asked: Instant) -> Self {
        let claim = Arc::new(claim);
        let (validity, _) = watch::channel(Validity::Until(asked + claim.length - MARGIN));
        let renewing = tokio::spawn(keep(Arc::clone(&claim), validity.clone()));
        Self { claim, validity, renewing }
    }

    /// Renews the lock now. Errors: [`MigrateError::LockLost`].
    pub async fn renew(&self) -> Result<(), MigrateError> {
        self.guard(async {
            match self.claim.renew().await {
                Ok(validity) => {
                    self.validity.send_replace(validity);
                }
                // Unknown: what was renewed last counts, and the task goes on trying.
                Err(error) => tracing::warn!(%error, "the migration lock can't be renewed"),
            }
        })
        .await
    }

    /// What `work` gives, unless the lock is lost before it is done: then it is dropped where it stands.
    pub async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, MigrateError> {
        let done = tokio::select! {
            () = lost(self.validity.subscribe()) => None,
            done = work => Some(done),
        };
        let validity = *self.validity.borrow();
        match (done, validity) {
            (Some(done), Validity::Until(end)) if Instant::now() < end => Ok(done),
            _ => Err(self.lost().await),
        }
    }

    async fn lost(&self) -> MigrateError {
        let holder = match holder(&self.claim.journal).await {
            Ok(holder) => holder.filter(|holder| holder.id != self.claim.id),
            Err(error) => {
                tracing::debug!(%error, "who holds the migration lock can't be read");
                None
            }
        };
        MigrateError::LockLost { holder }
    }

    /// Frees the lock for the next one. A failure is no error: it frees itself when the lease is over.
    pub async fn release(self) {
        self.renewing.abort();
        if let Err(error) = remove(&self.claim.journal, &self.claim.id).await {
            tracing::warn!(%error, "the migration lock can't be released; it expires by itself");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

async fn lost(mut validity: watch::Receiver<Validity>) {
    loop {
        let Validity::Until(end) = *validity.borrow_and_update() else { return };
        tokio::select! {
            () = sleep_until(end) => {
                if *validity.borrow() == Validity::Until(end) {
                    return;
                }
            }
            // The sender is the lease itself, which outlives this.
            _ = validity.changed() => {}
        }
    }
}

async fn keep(claim: Arc<Claim>, validity: watch::Sender<Validity>) {
    loop {
        sleep(claim.length / 3).await;
        loop {
            match claim.renew().await {
                Ok(Validity::Lost) => {
                    validity.send_replace(Validity::Lost);
                    return;
                }
                Ok(renewed) => {
                    validity.send_replace(renewed);
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "the migration lock can't be renewed");
                    sleep(claim.length / 12).await;
                }
            }
        }
    }
}

impl Claim {
    /// Whether the lock was free and is ours now. A timeout counts as no: the next attempt shows.
    async fn insert(&self) -> Result<bool, MigrateError> {
        let Self { journal, id, length, .. } = self;
        let cql = format!(
            "INSERT INTO {}.schema_lock (name, id, host, pid, since, lease) VALUES ('{NAME}', '{id}', {}, {}, {}, {}) \
             IF NOT EXISTS USING TTL {4}",
            journal.keyspace(),
            quoted(&self.host),
            std::process::id(),
            self.since.0,
            length.as_secs(),
        );
        match journal.locking(cql).await {
            Ok(answer) => applied(answer).map_err(MigrateError::cassandra("take the migration lock")),
            Err(error) if is_undecided(&error) => Ok(false),
            Err(error) => Err(MigrateError::cassandra("take the migration lock")(error)),
        }
    }

    /// All columns, because each has its own time to live.
    async fn renew(&self) -> anyhow::Result<Validity> {
        let Self { journal, id, length, .. } = self;
        let cql = format!(
            "UPDATE {}.schema_lock USING TTL {} SET id = '{id}', host = {}, pid = {}, since = {}, lease = {1} \
             WHERE name = '{NAME}' IF id = '{id}'",
            journal.keyspace(),
            length.as_secs(),
            quoted(&self.host),
            std::process::id(),
            self.since.0,
        );
        let asked = Instant::now();
        let renewed = applied(journal.locking(cql).await?)?;
        Ok(if renewed { Validity::Until(asked + *length - MARGIN) } else { Validity::Lost })
    }
}

/// As CQL has strings.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Who holds the lock, if anybody does; nobody if its table isn't there.
pub async fn holder(journal: &Journal) -> Result<Option<Holder>, MigrateError> {
    if !journal.has_table("schema_lock").await? {
        return Ok(None);
    }
    let cql = format!(
        "SELECT id, host, pid, since, lease, TTL(id) FROM {}.schema_lock WHERE name = '{NAME}'",
        journal.keyspace()
    );
    let mut statement = Statement::new(cql);
    // Finishes a transaction that is under way, so that its outcome is seen.
    statement.set_consistency(Consistency::Serial);
    let mut attempt = 0;
    let found = loop {
        attempt += 1;
        match journal.query(statement.clone()).await {
            Err(error) if is_undecided(&error) && attempt < 5 => sleep(POLL).await,
            outcome => break outcome,
        }
    };
    let holder = found.map_err(anyhow::Error::from).and_then(read_holder);
    holder.map_err(MigrateError::cassandra("read the migration lock"))
}

fn read_holder(answer: QueryResult) -> anyhow::Result<Option<Holder>> {
    type Columns = (Option<String>, Option<String>, Option<i32>, Option<CqlTimestamp>, Option<i32>, Option<i32>);
    let answer = answer.into_rows_result()?;
    // Without an id the row is expiring just now.
    let Some((Some(id), host, pid, since, lease, left)) = answer.maybe_first_row::<Columns>()? else {
        return Ok(None);
    };
    let (lease, left) = (lease.unwrap_or_default(), left.unwrap_or_default());
    Ok(Some(Holder {
        id,
        host: host.unwrap_or_default(),
        pid: pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default(),
        since: Millis(since.map_or(0, |at| at.0)),
        expires_in_s: left,
        // By the database's clock. It renews every third; with the last third begun it has failed twice.
        fresh: left > lease / 3,
    }))
}

/// Takes the lock from the holding `id`, and from no other; whether it was still held so.
pub async fn remove(journal: &Journal, id: &str) -> Result<bool, MigrateError> {
    let cql = format!("DELETE FROM {}.schema_lock WHERE name = '{NAME}' IF id = {}", journal.keyspace(), quoted(id));
    let answer = journal.locking(cql).await.map_err(MigrateError::cassandra("remove the migration lock"))?;
    applied(answer).map_err(MigrateError::cassandra("remove the migration lock"))
}

/// The `[applied]` of a lightweight transaction, its first column; what follows differs between servers.
fn applied(answer: QueryResult) -> anyhow::Result<bool> {
    let row: Row = answer.into_rows_result()?.first_row()?;
    let first = row.columns.first().and_then(Option::as_ref);
    first.and_then(CqlValue::as_boolean).ok_or_else(|| anyhow::anyhow!("the answer doesn't say whether it was applied"))
}

/// Whether others' transactions got in the way: the outcome is unknown then.
fn is_undecided(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _)) => match error {
            DbError::WriteTimeout { write_type, .. } => *write_type == WriteType::Cas,
            DbError::ReadTimeout { .. } => true,
            // CAS_WRITE_UNKNOWN of protocol 5 (Cassandra), as older protocols don't know it.
            DbError::Other(code) => *code == 0x1700,
            _ => false,
        },
        _ => false,
    }
}
