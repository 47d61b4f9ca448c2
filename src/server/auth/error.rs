use std::time::Duration;

use super::Refusal;
use super::password::PasswordError;
use super::token::TokenError;
use crate::message::InvalidUsername;
use crate::wire::ErrorCode;

/// Why a backend of [`super::Accounts`] could not answer.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// Too much waits for the backend; the same call may succeed in a moment.
    #[error("too much is waiting for the account store")]
    Overloaded,
    /// The backend can't be reached or can't write now; the same call may succeed later.
    #[error("the account store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing but an operator can help.
    #[error("the account store failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AccountsError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}

/// Why [`super::Auth`] refused. The texts are fit for the client.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error(transparent)]
    InvalidUsername(#[from] InvalidUsername),
    #[error("a password has at least {min} characters")]
    PasswordTooShort { min: usize },
    #[error("a password has at most {max} bytes")]
    PasswordTooLong { max: usize },
    #[error("sign-up is closed on this server")]
    SignUpClosed,
    #[error("the username is taken")]
    Taken,
    /// The user is unknown or the password is wrong: which of the two is nobody's business.
    #[error("wrong username or password")]
    BadCredentials,
    #[error("the account is disabled")]
    Disabled,
    /// An access token is not good.
    #[error("{0}")]
    Refused(Refusal),
    /// A refresh token is not good: the user must log in again.
    #[error("{0}")]
    RefreshRefused(&'static str),
    #[error("too many attempts")]
    TooManyAttempts { retry_after: Duration },
    #[error("too many log-ins at once")]
    Overloaded,
    #[error("accounts are unavailable")]
    Store(#[from] AccountsError),
    #[error("accounts are unavailable")]
    Hashing(#[source] PasswordError),
    #[error("accounts are unavailable")]
    Signing(#[from] TokenError),
    #[error("accounts are unavailable")]
    Random(#[from] getrandom::Error),
}

impl From<PasswordError> for AuthError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Overloaded => Self::Overloaded,
            other => Self::Hashing(other),
        }
    }
}

impl AuthError {
    /// The code that a client sees, on the socket and over HTTP alike.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidUsername(_) | Self::PasswordTooShort { .. } | Self::PasswordTooLong { .. } => {
                ErrorCode::Invalid
            }
            Self::SignUpClosed | Self::Disabled => ErrorCode::Forbidden,
            Self::Taken => ErrorCode::Conflict,
            Self::BadCredentials | Self::Refused(_) | Self::RefreshRefused(_) => ErrorCode::Unauthorized,
            Self::TooManyAttempts { .. } => ErrorCode::RateLimited,
            Self::Overloaded | Self::Store(AccountsError::Overloaded) => ErrorCode::Overloaded,
            Self::Store(_) | Self::Hashing(_) | Self::Signing(_) | Self::Random(_) => ErrorCode::Unavailable,
        }
    }

    /// How long to wait before the next attempt, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyAttempts { retry_after } => Some(*retry_after),
            Self::Overloaded | Self::Store(AccountsError::Overloaded) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}
