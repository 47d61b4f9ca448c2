//! What a client can do about its account, whatever the way it asks.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::attempts::{Attempts, network_of};
use super::password::{MAX_PASSWORD_BYTES, Password, Passwords};
use super::refresh::RefreshToken;
use super::secret::SigningKeys;
use super::token::{Claims, Tokens};
use super::{Accounts, AuthError, AuthOptions, Creation, NewSession, Refusal, Rotation, SessionStart, User};
use crate::message::{Millis, Username};

/// Expired rows are kept this long, so that a clock that jumps ahead and back again forgets nobody.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// Rows forgotten in one write: the writer must not be held up.
const PRUNED_AT_ONCE: u32 = 500;

/// Who a good access token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub username: Username,
    /// The log-in session.
    pub session_id: Uuid,
    /// The access token (`jti`).
    pub token_id: Uuid,
    /// When the access token expires by itself.
    pub expires_at: Millis,
}

impl From<Claims> for Identity {
    fn from(claims: Claims) -> Self {
        let expires_at = claims.expires_at();
        Self { username: claims.sub, session_id: claims.sid, token_id: claims.jti, expires_at }
    }
}

/// What a log-in or a refresh gives. Not printable: it holds secrets.
#[derive(Clone)]
pub struct Grant {
    pub username: Username,
    pub access_token: String,
    /// Good once: its use gives the next.
    pub refresh_token: String,
    /// How long the access token is good.
    pub expires_in: Duration,
}

/// The accounts of a server. Cheap to clone.
#[derive(Clone)]
pub struct Auth {
    inner: Arc<Inner>,
}

struct Inner {
    accounts: Arc<dyn Accounts>,
    passwords: Passwords,
    tokens: Tokens,
    options: AuthOptions,
    attempts_by_network: Attempts<IpAddr>,
    attempts_by_username: Attempts<Username>,
}

impl Auth {
    pub fn new(accounts: Arc<dyn Accounts>, keys: SigningKeys, options: AuthOptions) -> Self {
        let per_minute = NonZeroU32::new(options.logins_per_minute).unwrap_or(NonZeroU32::MIN);
        Self {
            inner: Arc::new(Inner {
                accounts,
                passwords: Passwords::new(options.password_threads, options.password_queue),
                tokens: Tokens::new(keys),
                attempts_by_network: Attempts::per_minute(per_minute),
                attempts_by_username: Attempts::per_minute(per_minute),
                options,
            }),
        }
    }

    pub fn accounts(&self) -> &Arc<dyn Accounts> {
        &self.inner.accounts
    }

    /// Adds a user. `client`: where the request comes from, if known.
    ///
    /// Errors: `SignUpClosed`, `InvalidUsername`, `PasswordTooShort`, `PasswordTooLong`, `Taken`, `TooManyAttempts`,
    /// `Overloaded`, and those that mean that accounts are unavailable.
    pub async fn sign_up(&self, username: &str, password: Password, client: Option<IpAddr>) -> Result<User, AuthError> {
        if !self.inner.options.signup_open {
            return Err(AuthError::SignUpClosed);
        }
        let username = Username::new(username)?;
        self.check_new_password(&password)?;
        self.count_attempt(client, None)?;
        // Before the hashing: a taken name is cheap to refuse.
        if self.inner.accounts.user(&username).await?.is_some() {
            return Err(AuthError::Taken);
        }
        let hash = self.inner.passwords.hash(password).await?;
        let created_at = Millis::now();
        match self.inner.accounts.create_user(&username, &hash, created_at).await? {
            Creation::Created => Ok(User { username, created_at, disabled_at: None }),
            Creation::Taken => Err(AuthError::Taken),
        }
    }

    /// Begins a session.
    ///
    /// Errors: `BadCredentials` (unknown user or wrong password, after the same time), `Disabled` (only told to who
    /// knows the password), `TooManyAttempts`, `Overloaded`, and those that mean that accounts are unavailable.
    pub async fn log_in(&self, username: &str, password: Password, client: Option<IpAddr>) -> Result<Grant, AuthError> {
        let username = Username::new(username).ok();
        self.count_attempt(client, username.as_ref())?;
        let username = username.ok_or(AuthError::BadCredentials)?;
        if password.as_str().len() > MAX_PASSWORD_BYTES {
            return Err(AuthError::BadCredentials);
        }
        let found = self.inner.accounts.credentials(&username).await?;
        let hash = found.map(|(_user, hash)| hash);
        if !self.inner.passwords.verify(password, hash.clone()).await? {
            return Err(AuthError::BadCredentials);
        }

        let now = Millis::now();
        let refresh = RefreshToken::generate()?;
        let session = NewSession {
            session_id: Uuid::new_v4(),
            username: username.clone(),
            verified_hash: hash,
            refresh: Some(refresh.hashes()),
            created_at: now,
            expires_at: later(now, self.inner.options.refresh_ttl),
        };
        match self.inner.accounts.start_session(&session).await? {
            SessionStart::Started => self.grant(username, session.session_id, &refresh, now, session.expires_at),
            SessionStart::Disabled => Err(AuthError::Disabled),
            SessionStart::UnknownUser | SessionStart::PasswordChanged => Err(AuthError::BadCredentials),
        }
    }

    /// Exchanges a refresh token for new tokens. A token that was exchanged before ends its session: two hold it.
    /// That includes a client that repeats a refresh whose answer it never got; it has to log in again.
    ///
    /// Errors: `RefreshRefused`, and those that mean that accounts are unavailable.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Grant, AuthError> {
        let used = RefreshToken::parse(refresh_token)
            .ok_or(AuthError::RefreshRefused("this is not a refresh token of this server"))?;
        let next = used.next()?;
        let now = Millis::now();
        let expires_at = later(now, self.inner.options.refresh_ttl);
        let rotation = self.inner.accounts.rotate(&used.hashes(), &next.hashes(), now, expires_at).await?;
        let refused = match rotation {
            Rotation::Rotated { username, session_id } => {
                return self.grant(username, session_id, &next, now, expires_at);
            }
            Rotation::Unknown => "the refresh token is unknown",
            Rotation::Expired(_) => "the refresh token has expired",
            Rotation::Revoked => "the session has ended",
            Rotation::Disabled => "the account is disabled",
            Rotation::Reused => {
                tracing::warn!("a used refresh token came back; its session is revoked");
                "the refresh token was used before; its session has ended"
            }
        };
        Err(AuthError::RefreshRefused(refused))
    }

    /// Ends the session, with all its tokens. Doing it twice is the same as once.
    ///
    /// Errors: those that mean that accounts are unavailable.
    pub async fn log_out(&self, identity: &Identity) -> Result<(), AuthError> {
        self.inner.accounts.end_session(identity.session_id, Millis::now()).await?;
        Ok(())
    }

    /// Whose an access token is, if it is good now.
    ///
    /// Errors: `Refused`, and those that mean that accounts are unavailable.
    pub async fn authenticate(&self, access_token: &str) -> Result<Identity, AuthError> {
        let identity = self.verify(access_token).map_err(AuthError::Refused)?;
        let standing = self.inner.accounts.standing(&identity.username, identity.session_id, identity.token_id).await?;
        match standing.refusal() {
            None => Ok(identity),
            Some(refusal) => Err(AuthError::Refused(refusal)),
        }
    }

    /// A token good for `ttl` in a session of its own that can't be refreshed: for an operator, who needs no
    /// password.
    ///
    /// Errors: `Refused` with `UnknownUser` or `UserDisabled`, and those that mean that accounts are unavailable.
    pub async fn mint(&self, username: &Username, ttl: Duration) -> Result<(String, Identity), AuthError> {
        let now = Millis::now();
        let session = NewSession {
            session_id: Uuid::new_v4(),
            username: username.clone(),
            verified_hash: None,
            refresh: None,
            created_at: now,
            expires_at: later(now, ttl),
        };
        match self.inner.accounts.start_session(&session).await? {
            SessionStart::Started => {}
            SessionStart::Disabled => return Err(AuthError::Refused(Refusal::UserDisabled)),
            SessionStart::UnknownUser | SessionStart::PasswordChanged => {
                return Err(AuthError::Refused(Refusal::UnknownUser));
            }
        }
        let claims = Claims::new(username.clone(), session.session_id, now, session.expires_at);
        Ok((self.inner.tokens.mint(&claims)?, claims.into()))
    }

    /// All there is to say about an access token: what it claims, if this server signed it, and why it is refused, if
    /// it is.
    ///
    /// Errors: those that mean that accounts are unavailable.
    pub async fn examine(&self, access_token: &str) -> Result<(Option<Identity>, Option<Refusal>), AuthError> {
        let claimed = self.inner.tokens.read(access_token).ok().map(Identity::from);
        match self.authenticate(access_token).await {
            Ok(identity) => Ok((Some(identity), None)),
            Err(AuthError::Refused(refusal)) => Ok((claimed, Some(refusal))),
            Err(error) => Err(error),
        }
    }

    /// Takes one access token back, however old it is. Its session goes on.
    ///
    /// Errors: `Refused` if this server did not sign it, and those that mean that accounts are unavailable.
    pub async fn revoke(&self, access_token: &str) -> Result<Identity, AuthError> {
        let identity = Identity::from(self.inner.tokens.read(access_token).map_err(AuthError::Refused)?);
        let Identity { username, token_id, expires_at, .. } = &identity;
        self.inner.accounts.revoke_token(username, *token_id, *expires_at, Millis::now()).await?;
        Ok(identity)
    }

    /// Forgets what expired more than a day ago, a little at a time. Whether there is more to forget.
    ///
    /// Errors: those that mean that accounts are unavailable.
    pub async fn prune(&self) -> Result<bool, AuthError> {
        let before = Millis(Millis::now().0.saturating_sub_unsigned(millis(KEPT_AFTER_EXPIRY)));
        Ok(self.inner.accounts.prune(before, PRUNED_AT_ONCE).await? > 0)
    }

    /// Hashes a password that is to become somebody's.
    ///
    /// Errors: `PasswordTooShort`, `PasswordTooLong`, `Overloaded`, `Hashing`.
    pub async fn hash_new_password(&self, password: Password) -> Result<String, AuthError> {
        self.check_new_password(&password)?;
        Ok(self.inner.passwords.hash(password).await?)
    }

    fn verify(&self, access_token: &str) -> Result<Identity, Refusal> {
        self.inner.tokens.check(access_token, Millis::now()).map(Identity::from)
    }

    fn grant(
        &self,
        username: Username,
        session_id: Uuid,
        refresh: &RefreshToken,
        now: Millis,
        session_expires_at: Millis,
    ) -> Result<Grant, AuthError> {
        let expires_at = later(now, self.inner.options.access_ttl).min(session_expires_at);
        let claims = Claims::new(username.clone(), session_id, now, expires_at);
        let expires_in = Duration::from_millis(expires_at.0.saturating_sub(now.0).unsigned_abs());
        let access_token = self.inner.tokens.mint(&claims)?;
        Ok(Grant { username, access_token, refresh_token: refresh.reveal(), expires_in })
    }

    fn check_new_password(&self, password: &Password) -> Result<(), AuthError> {
        let min = self.inner.options.min_password_length;
        if password.as_str().chars().count() < min {
            return Err(AuthError::PasswordTooShort { min });
        }
        if password.as_str().len() > MAX_PASSWORD_BYTES {
            return Err(AuthError::PasswordTooLong { max: MAX_PASSWORD_BYTES });
        }
        Ok(())
    }

    /// The address first: whoever is over its limit can't use up the attempts of a user.
    fn count_attempt(&self, client: Option<IpAddr>, username: Option<&Username>) -> Result<(), AuthError> {
        let by_network = client.map_or(Ok(()), |ip| self.inner.attempts_by_network.check(&network_of(ip)));
        let outcome =
            by_network.and_then(|()| username.map_or(Ok(()), |name| self.inner.attempts_by_username.check(name)));
        outcome.map_err(|retry_after| AuthError::TooManyAttempts { retry_after })
    }
}

fn later(moment: Millis, by: Duration) -> Millis {
    Millis(moment.0.saturating_add_unsigned(millis(by)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
