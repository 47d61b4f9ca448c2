//! Accounts in Cassandra.
//!
//! All that is judged about a user (the password, whether they are disabled, their sessions) is one row, and each change
//! of it one conditional write ([`change`]): so every method is one atomic step, on whatever process. What else is written
//! for it comes before and leads nowhere until then ([`pointers`], [`names`]), or comes after and is noted in the row
//! until it is done ([`log`]). Conditional writes are for log-ins, refreshes and administration; who connects or sends
//! costs plain reads at most.

mod account;
mod change;
mod log;
mod names;
mod pointers;
pub(super) mod statements;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use scylla::client::session::Session;
use scylla::errors::PrepareError;
use scylla::value::CqlTimestamp;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{
    Accounts, AccountsError, Change, Creation, NewSession, RefreshHashes, Revocation, Rotation, SessionStart, Standing,
    User, UserQuery,
};
use crate::message::{Millis, Username};
use crate::server::cassandra::Cassandra;
use account::{Unannounced, announced_until};
use change::{ATTEMPTS, Decision, pause};
use statements::{Conditional, Statements};

/// The name of the log of revocations: one for the deployment. Tests have one each.
const LOG: &str = "main";

/// The tables of `schema/cassandra/0002_accounts.cql`.
pub struct CassandraAccounts {
    session: Arc<Session>,
    statements: Statements,
    log: String,
    /// Held by who gives a revocation its id.
    appending: Mutex<()>,
}

impl CassandraAccounts {
    /// Errors: the tables aren't there, or the database doesn't answer.
    pub async fn open(cassandra: &Cassandra) -> Result<Self, PrepareError> {
        Self::with_log(cassandra, LOG).await
    }

    async fn with_log(cassandra: &Cassandra, log: &str) -> Result<Self, PrepareError> {
        Ok(Self {
            session: Arc::clone(&cassandra.session),
            statements: Statements::prepare(cassandra).await?,
            log: log.to_owned(),
            appending: Mutex::new(()),
        })
    }
}

#[async_trait]
impl Accounts for CassandraAccounts {
    async fn create_user(
        &self,
        username: &Username,
        password_hash: &str,
        now: Millis,
    ) -> Result<Creation, AccountsError> {
        self.add_name(username).await?;
        let change = Uuid::new_v4();
        let values = (username.as_str(), password_hash, CqlTimestamp(now.0), change);
        let mut error = None;
        for attempt in 0..ATTEMPTS {
            match Conditional::from(self.session.execute_unpaged(&self.statements.add_user, values).await)? {
                Conditional::Applied => return Ok(Creation::Created),
                Conditional::Refused if error.is_none() => return Ok(Creation::Taken),
                Conditional::Refused => {}
                Conditional::Unknown(why) => error = Some(why),
            }
            // Perhaps the earlier attempt has come through; the hash has salt of its own, so it is ours even after
            // another change.
            if let Some(found) = self.account(username.as_str(), true).await? {
                let ours = found.last_change == change || found.password_hash == password_hash;
                return Ok(if ours { Creation::Created } else { Creation::Taken });
            }
            pause(attempt).await;
        }
        Err(error.unwrap_or(AccountsError::Overloaded))
    }

    async fn user(&self, username: &Username) -> Result<Option<User>, AccountsError> {
        Ok(self.credentials(username).await?.map(|(user, _hash)| user))
    }

    async fn credentials(&self, username: &Username) -> Result<Option<(User, String)>, AccountsError> {
        let found = self.account(username.as_str(), false).await?;
        found.map(|account| Ok((account.user()?, account.password_hash))).transpose()
    }

    async fn set_password(
        &self,
        username: &Username,
        password_hash: &str,
        now: Millis,
    ) -> Result<Change, AccountsError> {
        let done = self.change(username, |account, may_have_happened| {
            if may_have_happened && account.password_hash == password_hash {
                return Ok(Decision::Leave(()));
            }
            account.password_hash = password_hash.to_owned();
            account.end_all(now);
            Ok(Decision::Write(()))
        });
        Ok(known(done.await?))
    }

    async fn disable(&self, username: &Username, now: Millis) -> Result<Change, AccountsError> {
        let done = self.change(username, |account, _| {
            if account.disabled_at.is_some() {
                return Ok(Decision::Leave(()));
            }
            account.disabled_at = Some(CqlTimestamp(now.0));
            account.end_all(now);
            Ok(Decision::Write(()))
        });
        Ok(known(done.await?))
    }

    async fn enable(&self, username: &Username) -> Result<Change, AccountsError> {
        let done = self.change(username, |account, _| match account.disabled_at.take() {
            Some(_) => Ok(Decision::Write(())),
            None => Ok(Decision::Leave(())),
        });
        Ok(known(done.await?))
    }

    async fn list_users(&self, query: &UserQuery) -> Result<Vec<User>, AccountsError> {
        self.users_after(query).await
    }

    async fn missing(&self, usernames: &[Username]) -> Result<Vec<Username>, AccountsError> {
        self.missing_of(usernames).await
    }

    async fn start_session(&self, session: &NewSession) -> Result<SessionStart, AccountsError> {
        let NewSession { session_id, username, refresh, created_at, expires_at, .. } = session;
        let family = refresh.as_ref().map(|hashes| &hashes.family);
        self.point_to(username, *session_id, family, *expires_at, *created_at).await?;
        let started = self.change(username, |account, _| match account.start(session) {
            Ok(()) => Ok(Decision::Write(SessionStart::Started)),
            Err(refused) => Ok(Decision::Leave(refused)),
        });
        Ok(started.await?.unwrap_or(SessionStart::UnknownUser))
    }

    async fn rotate(
        &self,
        used: &RefreshHashes,
        next: &RefreshHashes,
        now: Millis,
        expires_at: Millis,
    ) -> Result<Rotation, AccountsError> {
        let Some(family) = self.family(&used.family).await? else { return Ok(Rotation::Unknown) };
        let (username, session_id) =
            (Username::new(&family.username).map_err(statements::malformed)?, family.session_id);
        if family.ends_before(expires_at) {
            self.point_to(&username, session_id, Some(&used.family), expires_at, now).await?;
        }
        let rotated = self.change(&username, |account, may_have_happened| {
            if may_have_happened && account.has_rotated_to(session_id, next) {
                return Ok(Decision::Leave(Rotation::Rotated { username: username.clone(), session_id }));
            }
            let rotation = account.rotate(session_id, used, next, now, expires_at)?;
            let changed = matches!(rotation, Rotation::Rotated { .. } | Rotation::Reused);
            Ok(if changed { Decision::Write(rotation) } else { Decision::Leave(rotation) })
        });
        Ok(rotated.await?.unwrap_or(Rotation::Unknown))
    }

    async fn end_session(&self, session_id: Uuid, now: Millis) -> Result<bool, AccountsError> {
        let Some(username) = self.owner_of(session_id).await? else { return Ok(false) };
        let ended = self.change(&username, |account, may_have_happened| {
            let ended = account.end_one(session_id, now);
            Ok(if ended { Decision::Write(true) } else { Decision::Leave(may_have_happened) })
        });
        Ok(ended.await?.unwrap_or(false))
    }

    async fn end_sessions(&self, username: &Username, now: Millis) -> Result<Change, AccountsError> {
        let done = self.change(username, |account, _| {
            account.end_all(now);
            Ok(Decision::Write(()))
        });
        Ok(known(done.await?))
    }

    /// The token first: who is told looks it up. A call that fails in between is the caller's to repeat.
    async fn revoke_token(
        &self,
        username: &Username,
        token_id: Uuid,
        expires_at: Millis,
        now: Millis,
    ) -> Result<(), AccountsError> {
        self.mark_token(username, token_id, expires_at, now).await?;
        let expires_at = announced_until(expires_at, now);
        let revocation = Unannounced { entry: Uuid::new_v4(), session_id: None, expires_at };
        self.append(username.as_str(), revocation, Some(token_id)).await
    }

    async fn standing(&self, username: &Username, session_id: Uuid, token_id: Uuid) -> Result<Standing, AccountsError> {
        let (account, token_revoked) =
            tokio::try_join!(self.account(username.as_str(), false), self.is_marked(token_id))?;
        let Some(account) = account else { return Ok(Standing::UnknownUser) };
        Ok(match (account.disabled_at, account.has_live(session_id), token_revoked) {
            (Some(_), _, _) => Standing::Disabled,
            (None, false, _) => Standing::SessionRevoked,
            (None, true, true) => Standing::TokenRevoked,
            (None, true, false) => Standing::Active,
        })
    }

    async fn revocations_after(&self, after: i64, limit: u32) -> Result<Vec<Revocation>, AccountsError> {
        self.read_log(after, limit).await
    }

    async fn latest_revocation_id(&self) -> Result<i64, AccountsError> {
        self.last_id().await
    }

    /// Only the log has to be pruned: sessions give way to newer ones in their user's row, the rest has a TTL.
    async fn prune(&self, before: Millis, limit: u32) -> Result<u64, AccountsError> {
        self.prune_log(before, limit).await
    }
}

fn known(done: Option<()>) -> Change {
    done.map_or(Change::UnknownUser, |()| Change::Done)
}
