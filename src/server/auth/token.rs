//! Access tokens: JSON Web Tokens (RFC 7519) signed with HMAC-SHA-256.
//!
//! A token says who and until when. Whether it has been taken back is asked of the accounts each time it is shown.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Standing;
use super::hs256;
use super::secret::SigningKeys;
use crate::message::{Millis, Username};

const ISSUER: &str = "aula";
/// Ours have some 300 bytes; nothing longer is worth decoding.
const MAX_TOKEN_BYTES: usize = 4096;

/// What a token says. Times are NumericDates: whole seconds since 1970 (RFC 7519 §2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    /// Whose it is.
    pub sub: Username,
    /// The log-in session.
    pub sid: Uuid,
    /// This token.
    pub jti: Uuid,
    pub iat: i64,
    pub exp: i64,
    /// Never set by this server, whose clock may be set back; respected where it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
}

impl Claims {
    /// A new token's claims; `expires_at` is rounded down to the second.
    pub fn new(username: Username, session_id: Uuid, now: Millis, expires_at: Millis) -> Self {
        Self {
            iss: ISSUER.to_owned(),
            sub: username,
            sid: session_id,
            jti: Uuid::new_v4(),
            iat: now.0.div_euclid(1000),
            exp: expires_at.0.div_euclid(1000),
            nbf: None,
        }
    }

    pub fn expires_at(&self) -> Millis {
        Millis(self.exp.saturating_mul(1000))
    }
}

/// Why a token is not good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Malformed,
    WrongAlgorithm,
    /// Signed with a key that this server doesn't have.
    UnknownKey,
    BadSignature,
    /// Well signed, but not an access token of this server.
    WrongIssuer,
    Expired {
        since: Millis,
    },
    NotYetValid {
        until: Millis,
    },
    /// The token itself or its session was revoked.
    Revoked,
    UserDisabled,
    UnknownUser,
}

impl Refusal {
    /// For programs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::WrongIssuer => "wrong_issuer",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::UserDisabled => "user_disabled",
            Self::UnknownUser => "unknown_user",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the token is malformed"),
            Self::WrongAlgorithm => f.write_str("the token's algorithm is not HS256"),
            Self::UnknownKey => f.write_str("the token was signed with an unknown key"),
            Self::BadSignature => f.write_str("the token's signature is wrong"),
            Self::WrongIssuer => f.write_str("the token was not issued by this kind of server"),
            Self::Expired { since } => write!(f, "the token expired at {since}"),
            Self::NotYetValid { until } => write!(f, "the token is not valid before {until}"),
            Self::Revoked => f.write_str("the token was revoked"),
            Self::UserDisabled => f.write_str("the token's user is disabled"),
            Self::UnknownUser => f.write_str("the token's user does not exist"),
        }
    }
}

impl Standing {
    /// The refusal of a token that stands so.
    pub fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Active => None,
            Self::UnknownUser => Some(Refusal::UnknownUser),
            Self::Disabled => Some(Refusal::UserDisabled),
            Self::SessionRevoked | Self::TokenRevoked => Some(Refusal::Revoked),
        }
    }
}

/// A token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("a token could not be signed: {0}")]
pub struct TokenError(#[from] jsonwebtoken::errors::Error);

/// Signs and verifies access tokens. Clones share the keys.
#[derive(Debug, Clone)]
pub struct Tokens {
    keys: Arc<SigningKeys>,
    validation: Validation,
}

/// What of a header decides how the rest is read; anything else in it is ignored.
#[derive(Deserialize)]
struct Preamble {
    alg: String,
    kid: Option<String>,
}

impl Tokens {
    pub fn new(keys: SigningKeys) -> Self {
        hs256::install();
        let mut validation = Validation::new(Algorithm::HS256);
        // Times are judged here, by a clock that the caller passes, and told apart.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Self { keys: Arc::new(keys), validation }
    }

    /// The signed text of `claims`.
    ///
    /// Errors: only if the keys can't be used, which [`SigningKeys`] has checked.
    pub fn mint(&self, claims: &Claims) -> Result<String, TokenError> {
        let (name, key) = self.keys.signing();
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(name.to_owned());
        Ok(jsonwebtoken::encode(&header, claims, key)?)
    }

    /// Judges all that can be judged from the token alone.
    ///
    /// Errors: the first of [`Refusal`]'s reasons, in their order, up to `NotYetValid`.
    pub fn check(&self, token: &str, now: Millis) -> Result<Claims, Refusal> {
        let claims = self.read(token)?;
        if claims.exp <= now.0.div_euclid(1000) {
            return Err(Refusal::Expired { since: claims.expires_at() });
        }
        match claims.nbf {
            Some(nbf) if nbf.saturating_mul(1000) > now.0 => {
                Err(Refusal::NotYetValid { until: Millis(nbf.saturating_mul(1000)) })
            }
            _ => Ok(claims),
        }
    }

    /// The claims of a token that this server signed, however old.
    ///
    /// Errors: `Malformed`, `WrongAlgorithm`, `UnknownKey`, `BadSignature`, `WrongIssuer`.
    pub fn read(&self, token: &str) -> Result<Claims, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::Malformed);
        }
        let (header, _) = token.split_once('.').ok_or(Refusal::Malformed)?;
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_not_base64| Refusal::Malformed)?;
        let preamble: Preamble = serde_json::from_slice(&header).map_err(|_not_a_header| Refusal::Malformed)?;
        if preamble.alg != "HS256" {
            return Err(Refusal::WrongAlgorithm);
        }
        let key = preamble.kid.as_deref().and_then(|name| self.keys.verifying(name)).ok_or(Refusal::UnknownKey)?;
        let decoded = jsonwebtoken::decode::<Claims>(token, key, &self.validation);
        let claims = decoded.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => Refusal::BadSignature,
            ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Refusal::WrongAlgorithm,
            _ => Refusal::Malformed,
        })?;
        if claims.claims.iss == ISSUER { Ok(claims.claims) } else { Err(Refusal::WrongIssuer) }
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
