use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a request was refused: the closed list that clients may rely on, on the socket and over HTTP alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Who asks is not known, or no longer.
    Unauthorized,
    /// Who asks is known and may not.
    Forbidden,
    /// Who asks is not in the channel, or there is no such channel: the two can't be told apart.
    NotAMember,
    NotFound,
    /// The request makes no sense as it stands; the message names the field.
    Invalid,
    TooLarge,
    /// Who asks does so too often; `retry_after_ms` says when again.
    RateLimited,
    /// The server has too much to do; `retry_after_ms` says when to try again.
    Overloaded,
    /// It contradicts what is there already.
    Conflict,
    UnknownOp,
    /// A part of the server can't answer now; the same request may succeed later.
    Unavailable,
    /// A retry that comes so late that its first attempt is no longer remembered.
    StaleRetry,
}

impl ErrorCode {
    pub const ALL: [Self; 12] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotAMember,
        Self::NotFound,
        Self::Invalid,
        Self::TooLarge,
        Self::RateLimited,
        Self::Overloaded,
        Self::Conflict,
        Self::UnknownOp,
        Self::Unavailable,
        Self::StaleRetry,
    ];

    /// As it is written on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotAMember => "not_a_member",
            Self::NotFound => "not_found",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Conflict => "conflict",
            Self::UnknownOp => "unknown_op",
            Self::Unavailable => "unavailable",
            Self::StaleRetry => "stale_retry",
        }
    }

    /// The status of an HTTP answer with this code (RFC 9110 §15), unless the answer says it more exactly.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthorized => 401,
            Self::Forbidden | Self::NotAMember => 403,
            Self::NotFound => 404,
            Self::UnknownOp => 405,
            Self::Conflict | Self::StaleRetry => 409,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Overloaded | Self::Unavailable => 503,
        }
    }
}

impl std::str::FromStr for ErrorCode {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|code| code.as_str() == text).ok_or(())
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_and_the_encoding_agree() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).ok(), Some(code.as_str().into()));
            assert_eq!(code.as_str().parse(), Ok(code));
        }
    }
}
