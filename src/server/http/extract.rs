//! Reading requests, with a [`Problem`] for whatever can't be read.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::Problem;
use crate::wire::ErrorCode;

/// The largest JSON body, in bytes: several times what any request needs.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// The time for a whole body to arrive: who sends a byte now and then holds a connection for nothing.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body. Unknown fields are ignored.
pub struct ApiJson<T>(pub T);

impl<S, T> FromRequest<S> for ApiJson<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let problem = Problem::new(ErrorCode::Invalid, "the body must be JSON: send content-type application/json");
            return Err(problem.with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let too_long = |_elapsed| {
            let problem = Problem::new(ErrorCode::Invalid, "the body did not arrive in time");
            problem.with_status(StatusCode::REQUEST_TIMEOUT)
        };
        let body = tokio::time::timeout(BODY_TIMEOUT, to_bytes(request.into_body(), MAX_BODY_BYTES))
            .await
            .map_err(too_long)?
            .map_err(|error| unreadable(&error))?;
        parse(&body).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn unreadable(error: &axum::Error) -> Problem {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return Problem::new(ErrorCode::TooLarge, format!("a body has at most {MAX_BODY_BYTES} bytes"));
        }
        cause = error.source();
    }
    Problem::new(ErrorCode::Invalid, "the body broke off")
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let invalid = |detail: String| Problem::new(ErrorCode::Invalid, detail);
    // A list would be taken for the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(invalid("the body must be a JSON object".into()));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        match (error.classify(), missing_field(&error)) {
            (Category::Data, Some(field)) => invalid(format!("the field {field} is missing")),
            // serde's own text may quote the value, and the value may be a password.
            (Category::Data, None) => invalid(format!("the field {path} has the wrong type or a bad value")),
            _ => invalid(format!("the body is not JSON (line {}, column {})", error.line(), error.column())),
        }
    })?;
    json.end().map_err(|_more| invalid("the body holds more than one JSON value".into()))?;
    Ok(value)
}

/// The field's name, which is one of ours.
fn missing_field(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    let (field, _) = text.strip_prefix("missing field `")?.split_once('`')?;
    Some(field.to_owned())
}

/// The parameters after `?`. Unknown ones are ignored.
pub struct ApiQuery<T>(pub T);

impl<S, T> FromRequestParts<S> for ApiQuery<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(ErrorCode::Invalid, rejection.body_text())),
        }
    }
}

/// Where the request comes from: the address of the connection, if the server was set up to tell it.
#[derive(Debug, Clone, Copy)]
pub struct Client(pub Option<IpAddr>);

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let connection = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Ok(Self(connection.map(|ConnectInfo(address)| address.ip())))
    }
}
