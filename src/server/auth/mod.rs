//! Accounts: who a user is, how a socket or a request proves it, and how that proof is taken back.
//!
//! [`service::Auth`] is what the rest of the server uses. It keeps users and log-in sessions in an [`Accounts`]
//! backend, hashes passwords ([`password`]), signs access tokens ([`token`]) with keys from the data directory
//! ([`secret`]), and bounds how often anybody may try ([`attempts`]).

pub mod agreement;
pub mod attempts;
pub mod cassandra;
#[cfg(test)]
pub(crate) mod contract;
mod error;
mod hs256;
mod options;
pub mod password;
pub mod refresh;
pub mod secret;
pub mod service;
pub mod sqlite;
#[cfg(test)]
pub(crate) mod testing;
pub mod token;

use async_trait::async_trait;
use uuid::Uuid;

use crate::message::{Millis, Username};
pub use error::{AccountsError, AuthError};
pub use options::AuthOptions;
pub use refresh::RefreshHashes;
pub use service::{Auth, Grant, Identity};
pub use token::Refusal;

/// Log-in sessions that one user may have at a time; one more ends the oldest.
pub const MAX_SESSIONS_PER_USER: u32 = 100;

/// What may be known of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub username: Username,
    pub created_at: Millis,
    pub disabled_at: Option<Millis>,
}

/// The outcome of [`Accounts::create_user`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    Created,
    Taken,
}

/// Whether a user was there to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Done,
    UnknownUser,
}

/// A page of users, for [`Accounts::list_users`].
#[derive(Debug, Clone, Default)]
pub struct UserQuery {
    /// Only usernames that begin with this; empty: all.
    pub prefix: String,
    /// Only usernames after this one: the last of the page before.
    pub after: Option<Username>,
    /// Users in the page, at most.
    pub limit: u32,
    pub with_disabled: bool,
}

/// A log-in about to begin.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Chosen by the caller, so that a repeated attempt is the same session.
    pub session_id: Uuid,
    pub username: Username,
    /// The hash that the password was checked against; `None` when an operator starts the session.
    pub verified_hash: Option<String>,
    /// `None`: the session can't be refreshed.
    pub refresh: Option<RefreshHashes>,
    pub created_at: Millis,
    pub expires_at: Millis,
}

/// The outcome of [`Accounts::start_session`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStart {
    Started,
    UnknownUser,
    Disabled,
    /// The password was changed after it had been checked.
    PasswordChanged,
}

/// The outcome of [`Accounts::rotate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    Rotated {
        username: Username,
        session_id: Uuid,
    },
    Unknown,
    /// Since when it is no longer good.
    Expired(Millis),
    /// A used token came back: somebody has a copy. The session is revoked now.
    Reused,
    Revoked,
    Disabled,
}

/// What an access token's user, session and id are worth now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Active,
    UnknownUser,
    Disabled,
    /// Logged out, revoked, or so long expired that it is forgotten.
    SessionRevoked,
    TokenRevoked,
}

/// Something that was taken back. Whose sockets it concerns is narrowed by `session` and `token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub id: i64,
    pub username: Username,
    /// `None`: every session of the user that existed then.
    pub session: Option<Uuid>,
    /// `Some`: only this access token.
    pub token: Option<Uuid>,
}

/// Where users and their log-in sessions are kept.
///
/// Every method is one atomic step, and its effect is durable when it returns. All may fail with
/// [`AccountsError`]; then a write may or may not have happened. `now` is the caller's clock: a backend never
/// asks its own. What is revoked stays revoked, whatever the clock does.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// Adds a user who has no session. [`Creation::Taken`], and nothing is changed, when there is one of that name,
    /// disabled or not.
    async fn create_user(
        &self,
        username: &Username,
        password_hash: &str,
        now: Millis,
    ) -> Result<Creation, AccountsError>;

    /// The user, disabled or not; `None` when there is none.
    async fn user(&self, username: &Username) -> Result<Option<User>, AccountsError>;

    /// The user with the password's hash as a PHC string.
    async fn credentials(&self, username: &Username) -> Result<Option<(User, String)>, AccountsError>;

    /// Replaces the password's hash, revokes all the user's sessions and writes a revocation.
    async fn set_password(
        &self,
        username: &Username,
        password_hash: &str,
        now: Millis,
    ) -> Result<Change, AccountsError>;

    /// Disables the user, revokes all their sessions and writes a revocation. On a disabled user it changes nothing.
    async fn disable(&self, username: &Username, now: Millis) -> Result<Change, AccountsError>;

    /// Lets the user log in again. Their revoked sessions stay revoked.
    async fn enable(&self, username: &Username) -> Result<Change, AccountsError>;

    /// At most `limit` users in the order of their names.
    async fn list_users(&self, query: &UserQuery) -> Result<Vec<User>, AccountsError>;

    /// Those of `usernames`, in their order, that don't exist or are disabled.
    async fn missing(&self, usernames: &[Username]) -> Result<Vec<Username>, AccountsError>;

    /// Begins a session, if the user is there, not disabled, and `verified_hash` is still the password's hash.
    /// The user's oldest sessions beyond [`MAX_SESSIONS_PER_USER`] are revoked, each with a revocation.
    /// Repeating it with the same `session_id` changes nothing.
    async fn start_session(&self, session: &NewSession) -> Result<SessionStart, AccountsError>;

    /// Replaces the good refresh token of a session by the next one and moves the session's expiry to `expires_at`.
    /// A token of a known family that is not the good one is [`Rotation::Reused`]: it revokes the session and
    /// writes a revocation. In all other refusals nothing is changed. Reasons are told in this order: `Unknown`,
    /// `Disabled`, `Revoked`, `Reused`, `Expired`.
    async fn rotate(
        &self,
        used: &RefreshHashes,
        next: &RefreshHashes,
        now: Millis,
        expires_at: Millis,
    ) -> Result<Rotation, AccountsError>;

    /// Revokes one session and writes a revocation. `false`, and nothing is changed, when there is none or it is
    /// revoked already.
    async fn end_session(&self, session_id: Uuid, now: Millis) -> Result<bool, AccountsError>;

    /// Revokes all sessions of a user and writes a revocation.
    async fn end_sessions(&self, username: &Username, now: Millis) -> Result<Change, AccountsError>;

    /// Revokes one access token until `expires_at`, when it expires by itself, and writes a revocation.
    async fn revoke_token(
        &self,
        username: &Username,
        token_id: Uuid,
        expires_at: Millis,
        now: Millis,
    ) -> Result<(), AccountsError>;

    /// What a token of this user and session is worth; sees all that was written before the call. Does not judge
    /// expiry: the token carries its own. Told in the order of [`Standing`]'s variants after `Active`.
    async fn standing(&self, username: &Username, session_id: Uuid, token_id: Uuid) -> Result<Standing, AccountsError>;

    /// At most `limit` revocations with an id greater than `after`, in the order of their ids. Ids only rise, and
    /// are never used again. A user's newest session may be younger than the revocation that is read: who closes
    /// sockets asks [`Accounts::standing`] for each first.
    async fn revocations_after(&self, after: i64, limit: u32) -> Result<Vec<Revocation>, AccountsError>;

    /// The newest revocation's id ever given; 0 before the first.
    async fn latest_revocation_id(&self) -> Result<i64, AccountsError>;

    /// Forgets at most `limit` sessions and at most `limit` revocations that expired before `before`. Returns how
    /// many it forgot: 0 when all is done.
    async fn prune(&self, before: Millis, limit: u32) -> Result<u64, AccountsError>;
}
