use serde::{Deserialize, Serialize};

/// Why a request was refused, on the socket and over HTTP. The list is closed: clients may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// No valid token.
    Unauthorized,
    /// The user may not do this, or the feature is switched off.
    Forbidden,
    /// Not a member of the channel, or there is no such channel: the two are not told apart.
    NotAMember,
    /// What the request names (a user, a path) does not exist.
    NotFound,
    /// A field is missing or wrong.
    Invalid,
    /// A text, a list or a number is over a limit.
    TooLarge,
    /// Too many requests from this session, user or address.
    RateLimited,
    /// The server has too much to do.
    Overloaded,
    /// It contradicts what is already there.
    Conflict,
    /// No such op.
    UnknownOp,
    /// A part of the server can't be reached or can't write.
    Unavailable,
    /// A retry of a send so old that its first attempt can't be looked up any more.
    StaleRetry,
}
