//! The log of revocations: dense ids, given by conditional writes.

use scylla::DeserializeRow;
use scylla::serialize::row::SerializeRow;
use scylla::value::CqlTimestamp;
use uuid::Uuid;

use super::super::{AccountsError, Revocation};
use super::CassandraAccounts;
use super::account::Unannounced;
use super::change::{ATTEMPTS, pause};
use super::statements::{Conditional, conditional_batch, failure, malformed};
use crate::message::{Millis, Username};

/// How far back an entry is looked for before it is put in. One that another put in longer ago is put in again: that
/// takes a process that slept meanwhile, and only makes followers look twice.
const RECENT: i32 = 64;
/// Rows removed in one write: some 100 bytes each, far below what a batch may have.
const REMOVED_AT_ONCE: i32 = 100;

#[derive(DeserializeRow)]
struct Newest {
    id: i64,
    entry: Option<Uuid>,
    last_id: Option<i64>,
}

#[derive(Default, DeserializeRow)]
struct LogState {
    last_id: Option<i64>,
    forgotten_id: Option<i64>,
}

#[derive(DeserializeRow)]
struct Stored {
    id: i64,
    username: String,
    session_id: Option<Uuid>,
    token_id: Option<Uuid>,
}

impl CassandraAccounts {
    /// Gives the entry the next id, unless it has one.
    ///
    /// The recent rows tell whether it is there; as they are read up to `last_id`, and the write is refused when
    /// `last_id` has moved, nobody can put it in between. The same settles a write whose outcome is unknown.
    pub(super) async fn append(
        &self,
        username: &str,
        revocation: Unannounced,
        token: Option<Uuid>,
    ) -> Result<(), AccountsError> {
        // Of this process one at a time: otherwise they would only refuse each other.
        let _turn = self.appending.lock().await;
        let mut error = None;
        for attempt in 0..ATTEMPTS {
            let newest = self.newest(attempt > 0).await?;
            if newest.iter().any(|row| row.entry == Some(revocation.entry)) {
                return Ok(());
            }
            // Row 0 comes last; before it, the newest has the last id.
            let last = newest.first().and_then(|row| if row.id == 0 { row.last_id } else { Some(row.id) });
            let next = last.unwrap_or(0) + 1;
            let Unannounced { entry, session_id, expires_at } = revocation;
            let counter = (next, self.log.clone(), last);
            let row = (self.log.clone(), next, username.to_owned(), session_id, token, expires_at, entry);
            let outcome = conditional_batch(
                &self.session,
                vec![
                    (&self.statements.set_last_id, Box::new(counter) as Box<dyn SerializeRow + Send + Sync>),
                    (&self.statements.add_revocation, Box::new(row)),
                ],
            );
            match outcome.await? {
                Conditional::Applied => return Ok(()),
                Conditional::Refused => {}
                Conditional::Unknown(why) => error = Some(why),
            }
            pause(attempt).await;
        }
        Err(error.unwrap_or(AccountsError::Overloaded))
    }

    async fn newest(&self, serial: bool) -> Result<Vec<Newest>, AccountsError> {
        let statement = self.statements.newest_revocations.get(serial);
        let result = self.session.execute_unpaged(statement, (&self.log, RECENT)).await.map_err(failure)?;
        let rows = result.into_rows_result().map_err(malformed)?;
        rows.rows().map_err(malformed)?.collect::<Result<_, _>>().map_err(malformed)
    }

    async fn log_state(&self) -> Result<LogState, AccountsError> {
        let result = self.session.execute_unpaged(&self.statements.log_state, (&self.log,)).await.map_err(failure)?;
        let row = result.into_rows_result().map_err(malformed)?.maybe_first_row().map_err(malformed)?;
        Ok(row.unwrap_or_default())
    }

    pub(super) async fn last_id(&self) -> Result<i64, AccountsError> {
        Ok(self.log_state().await?.last_id.unwrap_or(0))
    }

    /// Only up to the first hole. A read asks each replica at a moment of its own, so it could see a row and miss the
    /// one before; the next read sees both. Below `forgotten_id` there is nothing to wait for.
    pub(super) async fn read_log(&self, after: i64, limit: u32) -> Result<Vec<Revocation>, AccountsError> {
        let values = (&self.log, after.max(0), i32::try_from(limit).unwrap_or(i32::MAX));
        // CQL refuses a limit of 0.
        if limit == 0 {
            return Ok(Vec::new());
        }
        let result = self.session.execute_unpaged(&self.statements.revocations, values).await.map_err(failure)?;
        let rows = result.into_rows_result().map_err(malformed)?;
        let rows: Vec<Stored> = rows.rows().map_err(malformed)?.collect::<Result<_, _>>().map_err(malformed)?;
        let mut next = after.max(0) + 1;
        if rows.first().is_some_and(|first| first.id > next) {
            next = next.max(self.log_state().await?.forgotten_id.unwrap_or(0) + 1);
        }
        let mut dense = Vec::with_capacity(rows.len());
        let first = next;
        for row in rows.into_iter().skip_while(|row| row.id < first) {
            if row.id != next {
                break;
            }
            next += 1;
            let username = Username::new(&row.username).map_err(malformed)?;
            dense.push(Revocation { id: row.id, username, session: row.session_id, token: row.token_id });
        }
        Ok(dense)
    }

    /// Removes the oldest rows as far as they have expired. Rows expire nearly in the order of their ids, as
    /// none waits longer than [`super::account::announced_until`].
    pub(super) async fn prune_log(&self, before: Millis, limit: u32) -> Result<u64, AccountsError> {
        let mut removed = 0;
        for attempt in 0..ATTEMPTS {
            let most = i32::try_from(u64::from(limit) - removed).unwrap_or(i32::MAX).min(REMOVED_AT_ONCE);
            if most == 0 {
                break;
            }
            let forgotten = self.log_state().await?.forgotten_id;
            // From where the last one stopped: what was removed before would be walked over again.
            let values = (&self.log, forgotten.unwrap_or(0), most);
            let statement = &self.statements.oldest_revocations;
            let result = self.session.execute_unpaged(statement, values).await.map_err(failure)?;
            let rows = result.into_rows_result().map_err(malformed)?;
            let mut expired = Vec::new();
            for row in rows.rows::<(i64, CqlTimestamp)>().map_err(malformed)? {
                let (id, expires_at) = row.map_err(malformed)?;
                if expires_at.0 >= before.0 {
                    break;
                }
                expired.push(id);
            }
            let Some(last) = expired.last().copied() else { break };
            let count = expired.len() as u64;
            let counter = (last, self.log.clone(), forgotten);
            let mut steps =
                vec![(&self.statements.set_forgotten_id, Box::new(counter) as Box<dyn SerializeRow + Send + Sync>)];
            for id in expired {
                steps.push((&self.statements.forget_revocation, Box::new((self.log.clone(), id))));
            }
            match conditional_batch(&self.session, steps).await? {
                Conditional::Applied => removed += count,
                // Another process prunes as well.
                Conditional::Refused => pause(attempt).await,
                Conditional::Unknown(error) => return Err(error),
            }
        }
        Ok(removed)
    }
}
