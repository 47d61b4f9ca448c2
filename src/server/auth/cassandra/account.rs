//! A user's row, and what may happen to the sessions in it: no input or output here.

use scylla::value::CqlTimestamp;
use scylla::{DeserializeRow, DeserializeValue, SerializeValue};
use uuid::Uuid;

use super::super::{AccountsError, MAX_SESSIONS_PER_USER, NewSession, RefreshHashes, Rotation, SessionStart, User};
use crate::message::{Millis, Username};

/// Sessions kept after their end, so that their tokens are refused with the reason.
const ENDED_KEPT: usize = 28;
/// How long a revocation waits for those who follow the log. Nobody needs the whole life of a token to read it: who
/// was away for days has lost his clients.
const ANNOUNCED_FOR: i64 = 2 * 24 * 3600 * 1000;

/// A row of `users`.
#[derive(Debug, Clone, PartialEq, DeserializeRow)]
pub(super) struct Account {
    pub(super) username: String,
    pub(super) password_hash: String,
    pub(super) created_at: CqlTimestamp,
    pub(super) disabled_at: Option<CqlTimestamp>,
    #[scylla(default_when_null)]
    pub(super) sessions: Vec<LoginSession>,
    /// What the log may lack yet.
    #[scylla(default_when_null)]
    pub(super) unannounced: Vec<Unannounced>,
    /// The write that made the row what it is.
    pub(super) last_change: Uuid,
}

#[derive(Debug, Clone, PartialEq, SerializeValue, DeserializeValue)]
pub(super) struct LoginSession {
    pub(super) session_id: Uuid,
    /// `None`: it can't be refreshed.
    refresh_hash: Option<Vec<u8>>,
    created_at: CqlTimestamp,
    expires_at: CqlTimestamp,
    ended_at: Option<CqlTimestamp>,
}

/// A revocation on its way into the log.
#[derive(Debug, Clone, PartialEq, SerializeValue, DeserializeValue)]
pub(super) struct Unannounced {
    /// By which it is known again in the log.
    pub(super) entry: Uuid,
    pub(super) session_id: Option<Uuid>,
    pub(super) expires_at: CqlTimestamp,
}

impl LoginSession {
    pub(super) fn is_live(&self) -> bool {
        self.ended_at.is_none()
    }
}

/// When a revocation of something that expires at `expires_at` may leave the log.
pub(super) fn announced_until(expires_at: Millis, now: Millis) -> CqlTimestamp {
    CqlTimestamp(expires_at.0.min(now.0.saturating_add(ANNOUNCED_FOR)))
}

impl Account {
    pub(super) fn user(&self) -> Result<User, AccountsError> {
        let username = Username::new(&self.username).map_err(|error| AccountsError::Failed(Box::new(error)))?;
        let disabled_at = self.disabled_at.map(|at| Millis(at.0));
        Ok(User { username, created_at: Millis(self.created_at.0), disabled_at })
    }

    fn session(&mut self, id: Uuid) -> Option<&mut LoginSession> {
        self.sessions.iter_mut().find(|session| session.session_id == id)
    }

    pub(super) fn has_live(&self, id: Uuid) -> bool {
        self.sessions.iter().any(|session| session.session_id == id && session.is_live())
    }

    /// Begins the session unless it is there. `Err`: nothing may change, because of this.
    pub(super) fn start(&mut self, new: &NewSession) -> Result<(), SessionStart> {
        if self.disabled_at.is_some() {
            return Err(SessionStart::Disabled);
        }
        if new.verified_hash.as_ref().is_some_and(|verified| *verified != self.password_hash) {
            return Err(SessionStart::PasswordChanged);
        }
        if self.session(new.session_id).is_some() {
            return Err(SessionStart::Started);
        }
        for oldest in self.beyond_the_limit(new.created_at) {
            self.end_one(oldest, new.created_at);
        }
        self.sessions.push(LoginSession {
            session_id: new.session_id,
            refresh_hash: new.refresh.map(|hashes| hashes.token.to_vec()),
            created_at: CqlTimestamp(new.created_at.0),
            expires_at: CqlTimestamp(new.expires_at.0),
            ended_at: None,
        });
        self.forget_ended(new.created_at);
        Ok(())
    }

    /// The oldest sessions, when there would be too many with one more.
    fn beyond_the_limit(&self, now: Millis) -> Vec<Uuid> {
        let good = |session: &&LoginSession| session.is_live() && session.expires_at.0 > now.0;
        let mut good: Vec<_> = self.sessions.iter().filter(good).collect();
        good.sort_by_key(|session| std::cmp::Reverse(session.created_at.0));
        good.iter().skip(MAX_SESSIONS_PER_USER as usize - 1).map(|session| session.session_id).collect()
    }

    /// Keeps those that are good at `now`, and the newest others.
    fn forget_ended(&mut self, now: Millis) {
        let bad = |session: &LoginSession| !session.is_live() || session.expires_at.0 <= now.0;
        let mut excess = self.sessions.iter().filter(|session| bad(session)).count().saturating_sub(ENDED_KEPT);
        self.sessions.retain(|session| {
            let forgotten = excess > 0 && bad(session);
            excess -= usize::from(forgotten);
            !forgotten
        });
    }

    /// Replaces the refresh token. [`Rotation::Rotated`] and [`Rotation::Reused`] have changed the row, all others not.
    pub(super) fn rotate(
        &mut self,
        session_id: Uuid,
        used: &RefreshHashes,
        next: &RefreshHashes,
        now: Millis,
        expires_at: Millis,
    ) -> Result<Rotation, AccountsError> {
        let username = self.user()?.username;
        if self.disabled_at.is_some() {
            return Ok(Rotation::Disabled);
        }
        let Some(session) = self.session(session_id).filter(|session| session.is_live()) else {
            return Ok(Rotation::Revoked);
        };
        if session.refresh_hash.as_deref() != Some(&used.token) {
            self.end_one(session_id, now);
            return Ok(Rotation::Reused);
        }
        if session.expires_at.0 <= now.0 {
            return Ok(Rotation::Expired(Millis(session.expires_at.0)));
        }
        session.refresh_hash = Some(next.token.to_vec());
        // The expiry never moves back: a token already given out may live until then.
        session.expires_at = CqlTimestamp(session.expires_at.0.max(expires_at.0));
        Ok(Rotation::Rotated { username, session_id })
    }

    /// Whether `next` is the good token of the session already: nobody else can have drawn it.
    pub(super) fn has_rotated_to(&self, session_id: Uuid, next: &RefreshHashes) -> bool {
        let same = |session: &LoginSession| session.refresh_hash.as_deref() == Some(&next.token);
        self.sessions.iter().any(|session| session.session_id == session_id && same(session))
    }

    /// Whether it was there to be ended.
    pub(super) fn end_one(&mut self, session_id: Uuid, now: Millis) -> bool {
        let Some(session) = self.session(session_id).filter(|session| session.is_live()) else { return false };
        session.ended_at = Some(CqlTimestamp(now.0));
        let expires_at = Millis(session.expires_at.0);
        self.announce(Some(session_id), expires_at, now);
        true
    }

    pub(super) fn end_all(&mut self, now: Millis) {
        let mut expires_at = now;
        for session in self.sessions.iter_mut().filter(|session| session.is_live()) {
            session.ended_at = Some(CqlTimestamp(now.0));
            expires_at = expires_at.max(Millis(session.expires_at.0));
        }
        self.forget_ended(now);
        self.announce(None, expires_at, now);
    }

    fn announce(&mut self, session_id: Option<Uuid>, expires_at: Millis, now: Millis) {
        let expires_at = announced_until(expires_at, now);
        self.unannounced.push(Unannounced { entry: Uuid::new_v4(), session_id, expires_at });
    }
}
