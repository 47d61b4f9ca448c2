//! The statements that more than one write is made of, each within the caller's transaction.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use uuid::Uuid;

use super::super::{Change, MAX_SESSIONS_PER_USER, NewSession, RefreshHashes, Rotation, User};
use crate::message::{Millis, Username};

pub(super) fn rotate(
    connection: &Connection,
    used: &RefreshHashes,
    next: &RefreshHashes,
    now: Millis,
    expires_at: Millis,
) -> rusqlite::Result<Rotation> {
    struct Found {
        session_id: Uuid,
        username: Username,
        good: [u8; 32],
        expires_at: i64,
        revoked: bool,
        may_log_in: bool,
    }
    let found = connection
        .prepare_cached(
            "SELECT session_id, username, refresh_hash, expires_at, revoked_at IS NOT NULL,
                    EXISTS (SELECT 1 FROM users u WHERE u.username = s.username AND u.disabled_at IS NULL)
             FROM login_sessions s WHERE family_hash = ?1",
        )?
        .query_row([used.family], |row| {
            Ok(Found {
                session_id: Uuid::from_bytes(row.get(0)?),
                username: username_at(row, 1)?,
                good: row.get(2)?,
                expires_at: row.get(3)?,
                revoked: row.get(4)?,
                may_log_in: row.get(5)?,
            })
        })
        .optional()?;
    let Some(found) = found else { return Ok(Rotation::Unknown) };
    if !found.may_log_in {
        return Ok(Rotation::Disabled);
    }
    if found.revoked {
        return Ok(Rotation::Revoked);
    }
    if found.good != used.token {
        revoke_one(connection, found.session_id, now)?;
        return Ok(Rotation::Reused);
    }
    if found.expires_at <= now.0 {
        return Ok(Rotation::Expired(Millis(found.expires_at)));
    }
    // The expiry never moves back: a token already given out may live until then.
    connection
        .prepare_cached(
            "UPDATE login_sessions SET refresh_hash = ?2, expires_at = max(expires_at, ?3) WHERE session_id = ?1",
        )?
        .execute(params![found.session_id.as_bytes(), next.token, expires_at.0])?;
    Ok(Rotation::Rotated { username: found.username, session_id: found.session_id })
}

/// The user's oldest sessions, when there are more than allowed with the one just begun.
pub(super) fn beyond_the_limit(connection: &Connection, session: &NewSession) -> rusqlite::Result<Vec<Uuid>> {
    connection
        .prepare_cached(
            "SELECT session_id FROM login_sessions
             WHERE username = ?1 AND revoked_at IS NULL AND expires_at > ?2 AND session_id <> ?3
             ORDER BY created_at DESC LIMIT -1 OFFSET ?4",
        )?
        .query_map(
            params![
                session.username.as_str(),
                session.created_at.0,
                session.session_id.as_bytes(),
                MAX_SESSIONS_PER_USER.saturating_sub(1)
            ],
            |row| row.get(0).map(Uuid::from_bytes),
        )?
        .collect()
}

pub(super) fn revoke_one(connection: &Connection, session_id: Uuid, now: Millis) -> rusqlite::Result<bool> {
    let ended = connection
        .prepare_cached(
            "UPDATE login_sessions SET revoked_at = ?2 WHERE session_id = ?1 AND revoked_at IS NULL
             RETURNING username, expires_at",
        )?
        .query_row(params![session_id.as_bytes(), now.0], |row| Ok((username_at(row, 0)?, Millis(row.get(1)?))))
        .optional()?;
    let Some((username, expires_at)) = ended else { return Ok(false) };
    write_revocation(connection, &username, Some(session_id), None, expires_at, now)?;
    Ok(true)
}

pub(super) fn revoke_all(connection: &Connection, username: &Username, now: Millis) -> rusqlite::Result<()> {
    let last_expiry = connection
        .prepare_cached("SELECT max(expires_at) FROM login_sessions WHERE username = ?1 AND revoked_at IS NULL")?
        .query_row([username.as_str()], |row| row.get::<_, Option<i64>>(0))?;
    connection
        .prepare_cached("UPDATE login_sessions SET revoked_at = ?2 WHERE username = ?1 AND revoked_at IS NULL")?
        .execute(params![username.as_str(), now.0])?;
    let expires_at = Millis(last_expiry.map_or(now.0, |expiry| expiry.max(now.0)));
    write_revocation(connection, username, None, None, expires_at, now)
}

pub(super) fn write_revocation(
    connection: &Connection,
    username: &Username,
    session: Option<Uuid>,
    token: Option<Uuid>,
    expires_at: Millis,
    now: Millis,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO revocations (username, session_id, token_id, expires_at, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            username.as_str(),
            session.map(Uuid::into_bytes),
            token.map(Uuid::into_bytes),
            expires_at.0,
            now.0
        ])?;
    Ok(())
}

pub(super) fn known(connection: &Connection, username: &Username) -> rusqlite::Result<Change> {
    let exists = connection.prepare_cached("SELECT 1 FROM users WHERE username = ?1")?.exists([username.as_str()])?;
    Ok(if exists { Change::Done } else { Change::UnknownUser })
}

pub(super) fn user_from(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        username: username_at(row, 0)?,
        created_at: Millis(row.get(1)?),
        disabled_at: row.get::<_, Option<i64>>(2)?.map(Millis),
    })
}

pub(super) fn username_at(row: &Row<'_>, index: usize) -> rusqlite::Result<Username> {
    let text = row.get_ref(index)?.as_str()?;
    Username::new(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, error.into()))
}
