//! One change of a user's row, whatever others do to it meanwhile and whatever becomes of the answer.

use std::time::Duration;

use scylla::value::MaybeUnset;
use uuid::Uuid;

use super::super::AccountsError;
use super::CassandraAccounts;
use super::account::Account;
use super::statements::{Conditional, failure, malformed};
use crate::message::Username;

/// Attempts at a conditional write. Each refused one means that another's has succeeded.
pub(super) const ATTEMPTS: u32 = 40;
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What is to become of a row.
pub(super) enum Decision<T> {
    /// Nothing: this is the outcome.
    Leave(T),
    /// It is to be written as it was changed.
    Write(T),
}

impl CassandraAccounts {
    pub(super) async fn account(&self, username: &str, serial: bool) -> Result<Option<Account>, AccountsError> {
        let statement = self.statements.account.get(serial);
        let result = self.session.execute_unpaged(statement, (username,)).await.map_err(failure)?;
        result.into_rows_result().map_err(malformed)?.maybe_first_row().map_err(malformed)
    }

    /// Lets `decide` change the row, until what it decided on was still so when it was written; `None`: no such user.
    ///
    /// `decide` may be called several times, each time with the row as it is then. Its flag says that an earlier write
    /// of this call may have happened, and that others have changed the row since.
    pub(super) async fn change<T: Clone + Send>(
        &self,
        username: &Username,
        decide: impl Fn(&mut Account, bool) -> Result<Decision<T>, AccountsError> + Send + Sync,
    ) -> Result<Option<T>, AccountsError> {
        let mut unknown: Vec<(Uuid, T)> = Vec::new();
        let mut error = None;
        for attempt in 0..ATTEMPTS {
            let Some(found) = self.account(username.as_str(), attempt > 0).await? else { return Ok(None) };
            if let Some((_, outcome)) = unknown.iter().find(|(change, _)| *change == found.last_change) {
                let outcome = outcome.clone();
                self.announce(found).await?;
                return Ok(Some(outcome));
            }
            let mut changed = found.clone();
            let outcome = match decide(&mut changed, !unknown.is_empty())? {
                Decision::Leave(outcome) => {
                    self.announce(found).await?;
                    return Ok(Some(outcome));
                }
                Decision::Write(outcome) => outcome,
            };
            changed.last_change = Uuid::new_v4();
            match self.write(&found, &changed).await? {
                Conditional::Applied => {
                    self.announce(changed).await?;
                    return Ok(Some(outcome));
                }
                Conditional::Refused => {}
                Conditional::Unknown(why) => {
                    unknown.push((changed.last_change, outcome));
                    error = Some(why);
                }
            }
            pause(attempt).await;
        }
        Err(error.unwrap_or(AccountsError::Overloaded))
    }

    /// Puts what the log may lack into it, and then notes in the row that it is there.
    ///
    /// The row holds it from the moment of the change on. Whoever dies in between leaves it to the next change of the
    /// user, or to the repetition of the same call; until then sockets live on that can't outlive their access
    /// token. Two who find it put it there once (see [`CassandraAccounts::append`]).
    async fn announce(&self, mut account: Account) -> Result<(), AccountsError> {
        let entries = account.unannounced.clone();
        if entries.is_empty() {
            return Ok(());
        }
        for unannounced in &entries {
            self.append(&account.username, unannounced.clone(), None).await?;
        }
        for attempt in 0..ATTEMPTS {
            let mut settled = account.clone();
            settled.unannounced.retain(|unannounced| !entries.contains(unannounced));
            if settled.unannounced.len() == account.unannounced.len() {
                return Ok(());
            }
            settled.last_change = Uuid::new_v4();
            if let Ok(Conditional::Applied) = self.write(&account, &settled).await {
                return Ok(());
            }
            pause(attempt).await;
            match self.account(&account.username, true).await {
                Ok(Some(found)) => account = found,
                Ok(None) => return Ok(()),
                Err(error) => {
                    // The change stands and is announced; the next one of this user tidies up.
                    tracing::warn!(%error, "announced revocations stay noted as unannounced");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Only what differs: an equal value would be stored again, a null leave a tombstone.
    pub(super) async fn write(&self, before: &Account, after: &Account) -> Result<Conditional, AccountsError> {
        fn unless_same<T: PartialEq>(before: &T, after: T) -> MaybeUnset<T> {
            if *before == after { MaybeUnset::Unset } else { MaybeUnset::Set(after) }
        }
        let values = (
            unless_same(&before.password_hash.as_str(), after.password_hash.as_str()),
            unless_same(&before.disabled_at, after.disabled_at),
            unless_same(&&before.sessions, &after.sessions),
            unless_same(&&before.unannounced, &after.unannounced),
            after.last_change,
            after.username.as_str(),
            before.last_change,
        );
        Conditional::from(self.session.execute_unpaged(&self.statements.change_user, values).await)
    }
}

/// A moment by chance, longer after each attempt: those who met once should not meet again.
pub(super) async fn pause(attempt: u32) {
    let most = LONGEST_PAUSE.min(Duration::from_millis(5) * 2u32.saturating_pow(attempt.min(8)));
    let chance = Uuid::new_v4().as_u128() as u64 % (most.as_micros() as u64).max(1);
    tokio::time::sleep(Duration::from_micros(chance)).await;
}
