//! Accounts in the embedded database.

mod steps;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, named_params, params};
use uuid::Uuid;

use super::{
    Accounts, AccountsError, Change, Creation, NewSession, RefreshHashes, Revocation, Rotation, SessionStart, Standing,
    User, UserQuery,
};
use crate::message::{Millis, Username};
use crate::server::sqlite::{Admission, Database, DbError};
use steps::{beyond_the_limit, known, revoke_all, revoke_one, rotate, user_from, username_at, write_revocation};

/// The tables `users`, `login_sessions` and `revocations`.
#[derive(Clone)]
pub struct SqliteAccounts {
    database: Database,
}

impl SqliteAccounts {
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    async fn read<T, F>(&self, read: F) -> Result<T, AccountsError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        Ok(self.database.read(move |connection| read(connection)).await?)
    }

    /// A write from outside: refused when too many wait.
    async fn write<T, F>(&self, write: F) -> Result<T, AccountsError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.database.submit(Admission::Bounded, write, move |result| {
            // Who waited may have gone away; the write stands all the same.
            let _ = reply.send(result);
        })?;
        Ok(outcome.await.unwrap_or(Err(DbError::Closed))?)
    }
}

impl From<DbError> for AccountsError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Overloaded => Self::Overloaded,
            error if error.is_transient() || error == DbError::Closed => Self::Unavailable(Box::new(error)),
            error => Self::Failed(Box::new(error)),
        }
    }
}

#[async_trait]
impl Accounts for SqliteAccounts {
    async fn create_user(
        &self,
        username: &Username,
        password_hash: &str,
        now: Millis,
    ) -> Result<Creation, AccountsError> {
        let (username, password_hash) = (username.clone(), password_hash.to_owned());
        self.write(move |connection| {
            let added = connection
                .prepare_cached(
                    "INSERT INTO users (username, password_hash, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                )?
                .execute(params![username.as_str(), password_hash, now.0])?;
            Ok(if added == 1 { Creation::Created } else { Creation::Taken })
        })
        .await
    }

    async fn user(&self, username: &Username) -> Result<Option<User>, AccountsError> {
        Ok(self.credentials(username).await?.map(|(user, _hash)| user))
    }

    async fn credentials(&self, username: &Username) -> Result<Option<(User, String)>, AccountsError> {
        let username = username.clone();
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT username, created_at, disabled_at, password_hash FROM users WHERE username = ?1",
                )?
                .query_row([username.as_str()], |row| Ok((user_from(row)?, row.get(3)?)))
                .optional()
        })
        .await
    }

    async fn set_password(
        &self,
        username: &Username,
        password_hash: &str,
        now: Millis,
    ) -> Result<Change, AccountsError> {
        let (username, password_hash) = (username.clone(), password_hash.to_owned());
        self.write(move |connection| {
            let changed = connection
                .prepare_cached("UPDATE users SET password_hash = ?2 WHERE username = ?1")?
                .execute(params![username.as_str(), password_hash])?;
            if changed == 0 {
                return Ok(Change::UnknownUser);
            }
            revoke_all(connection, &username, now)?;
            Ok(Change::Done)
        })
        .await
    }

    async fn disable(&self, username: &Username, now: Millis) -> Result<Change, AccountsError> {
        let username = username.clone();
        self.write(move |connection| {
            let changed = connection
                .prepare_cached("UPDATE users SET disabled_at = ?2 WHERE username = ?1 AND disabled_at IS NULL")?
                .execute(params![username.as_str(), now.0])?;
            if changed == 0 {
                return known(connection, &username);
            }
            revoke_all(connection, &username, now)?;
            Ok(Change::Done)
        })
        .await
    }

    async fn enable(&self, username: &Username) -> Result<Change, AccountsError> {
        let username = username.clone();
        self.write(move |connection| {
            connection
                .prepare_cached("UPDATE users SET disabled_at = NULL WHERE username = ?1")?
                .execute([username.as_str()])?;
            known(connection, &username)
        })
        .await
    }

    async fn list_users(&self, query: &UserQuery) -> Result<Vec<User>, AccountsError> {
        let query = query.clone();
        self.read(move |connection| {
            // DEL is greater than every character of a username: the range holds exactly those with the prefix.
            let beyond_prefix = format!("{}\u{7f}", query.prefix);
            connection
                .prepare_cached(
                    "SELECT username, created_at, disabled_at FROM users
                     WHERE username >= :prefix AND username < :beyond AND username > :after
                       AND (disabled_at IS NULL OR :with_disabled)
                     ORDER BY username LIMIT :limit",
                )?
                .query_map(
                    named_params! {
                        ":prefix": query.prefix,
                        ":beyond": beyond_prefix,
                        ":after": query.after.as_ref().map_or("", Username::as_str),
                        ":with_disabled": query.with_disabled,
                        ":limit": query.limit,
                    },
                    user_from,
                )?
                .collect()
        })
        .await
    }

    async fn missing(&self, usernames: &[Username]) -> Result<Vec<Username>, AccountsError> {
        let usernames = usernames.to_vec();
        self.read(move |connection| {
            let mut active =
                connection.prepare_cached("SELECT 1 FROM users WHERE username = ?1 AND disabled_at IS NULL")?;
            let mut missing = Vec::new();
            for username in usernames {
                if !active.exists([username.as_str()])? {
                    missing.push(username);
                }
            }
            Ok(missing)
        })
        .await
    }

    async fn start_session(&self, session: &NewSession) -> Result<SessionStart, AccountsError> {
        let session = session.clone();
        self.write(move |connection| {
            let user = connection
                .prepare_cached("SELECT password_hash, disabled_at FROM users WHERE username = ?1")?
                .query_row([session.username.as_str()], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?))
                })
                .optional()?;
            let Some((password_hash, disabled_at)) = user else { return Ok(SessionStart::UnknownUser) };
            if disabled_at.is_some() {
                return Ok(SessionStart::Disabled);
            }
            if session.verified_hash.as_ref().is_some_and(|verified| *verified != password_hash) {
                return Ok(SessionStart::PasswordChanged);
            }
            connection
                .prepare_cached(
                    "INSERT INTO login_sessions
                         (session_id, username, family_hash, refresh_hash, created_at, expires_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (session_id) DO NOTHING",
                )?
                .execute(params![
                    session.session_id.as_bytes(),
                    session.username.as_str(),
                    session.refresh.map(|hashes| hashes.family),
                    session.refresh.map(|hashes| hashes.token),
                    session.created_at.0,
                    session.expires_at.0,
                ])?;
            for id in beyond_the_limit(connection, &session)? {
                revoke_one(connection, id, session.created_at)?;
            }
            Ok(SessionStart::Started)
        })
        .await
    }

    async fn rotate(
        &self,
        used: &RefreshHashes,
        next: &RefreshHashes,
        now: Millis,
        expires_at: Millis,
    ) -> Result<Rotation, AccountsError> {
        let (used, next) = (*used, *next);
        self.write(move |connection| rotate(connection, &used, &next, now, expires_at)).await
    }

    async fn end_session(&self, session_id: Uuid, now: Millis) -> Result<bool, AccountsError> {
        self.write(move |connection| revoke_one(connection, session_id, now)).await
    }

    async fn end_sessions(&self, username: &Username, now: Millis) -> Result<Change, AccountsError> {
        let username = username.clone();
        self.write(move |connection| {
            let change = known(connection, &username)?;
            if change == Change::Done {
                revoke_all(connection, &username, now)?;
            }
            Ok(change)
        })
        .await
    }

    async fn revoke_token(
        &self,
        username: &Username,
        token_id: Uuid,
        expires_at: Millis,
        now: Millis,
    ) -> Result<(), AccountsError> {
        let username = username.clone();
        self.write(move |connection| write_revocation(connection, &username, None, Some(token_id), expires_at, now))
            .await
    }

    async fn standing(&self, username: &Username, session_id: Uuid, token_id: Uuid) -> Result<Standing, AccountsError> {
        let username = username.clone();
        self.read(move |connection| {
            let found = connection
                .prepare_cached(
                    "SELECT disabled_at IS NOT NULL,
                            EXISTS (SELECT 1 FROM login_sessions
                                    WHERE session_id = ?2 AND username = ?1 AND revoked_at IS NULL),
                            EXISTS (SELECT 1 FROM revocations WHERE token_id = ?3)
                     FROM users WHERE username = ?1",
                )?
                .query_row(params![username.as_str(), session_id.as_bytes(), token_id.as_bytes()], |row| {
                    Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?, row.get::<_, bool>(2)?))
                })
                .optional()?;
            Ok(match found {
                None => Standing::UnknownUser,
                Some((true, _, _)) => Standing::Disabled,
                Some((_, false, _)) => Standing::SessionRevoked,
                Some((_, _, true)) => Standing::TokenRevoked,
                Some((false, true, false)) => Standing::Active,
            })
        })
        .await
    }

    async fn revocations_after(&self, after: i64, limit: u32) -> Result<Vec<Revocation>, AccountsError> {
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT id, username, session_id, token_id FROM revocations WHERE id > ?1 ORDER BY id LIMIT ?2",
                )?
                .query_map(params![after, limit], |row| {
                    Ok(Revocation {
                        id: row.get(0)?,
                        username: username_at(row, 1)?,
                        session: row.get::<_, Option<[u8; 16]>>(2)?.map(Uuid::from_bytes),
                        token: row.get::<_, Option<[u8; 16]>>(3)?.map(Uuid::from_bytes),
                    })
                })?
                .collect()
        })
        .await
    }

    async fn latest_revocation_id(&self) -> Result<i64, AccountsError> {
        // Not the newest row: pruning may have emptied the table.
        self.read(|connection| {
            let id = connection
                .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'revocations'")?
                .query_row([], |row| row.get(0))
                .optional()?;
            Ok(id.unwrap_or(0))
        })
        .await
    }

    async fn prune(&self, before: Millis, limit: u32) -> Result<u64, AccountsError> {
        self.write(move |connection| {
            let sessions = connection
                .prepare_cached(
                    "DELETE FROM login_sessions WHERE session_id IN
                         (SELECT session_id FROM login_sessions WHERE expires_at < ?1 LIMIT ?2)",
                )?
                .execute(params![before.0, limit])?;
            let revocations = connection
                .prepare_cached(
                    "DELETE FROM revocations WHERE id IN (SELECT id FROM revocations WHERE expires_at < ?1 LIMIT ?2)",
                )?
                .execute(params![before.0, limit])?;
            Ok((sessions + revocations) as u64)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::{contract, testing};
    use super::*;

    fn accounts() -> (SqliteAccounts, tempfile::TempDir) {
        let (database, dir) = testing::database();
        (SqliteAccounts::new(database), dir)
    }

    contract::accounts_contract!(accounts());
}
