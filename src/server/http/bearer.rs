use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::Problem;
use crate::server::auth::{Auth, Identity};
use crate::wire::ErrorCode;

/// Who asks, proved by `Authorization: Bearer …` (RFC 6750 §2.1). A request without it, or with a token that is not
/// good now, is refused with `unauthorized`.
#[derive(Debug, Clone)]
pub struct Bearer(pub Identity);

impl<S> FromRequestParts<S> for Bearer
where
    S: Send + Sync,
    Auth: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = token_of(&parts.headers)
            .ok_or_else(|| Problem::new(ErrorCode::Unauthorized, "send Authorization: Bearer and an access token"))?;
        let identity = Auth::from_ref(state).authenticate(token).await?;
        Ok(Self(identity))
    }
}

/// The token in a request's `Authorization` header, if there is exactly one and it is of this kind.
pub fn token_of(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
