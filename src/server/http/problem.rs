use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::auth::AuthError;
use crate::server::gateway::count_refusal;
use crate::wire::ErrorCode;

/// A refusal, as problem details (RFC 9457) with the same codes as on the socket.
#[derive(Debug, Clone)]
pub struct Problem {
    code: ErrorCode,
    status: StatusCode,
    detail: String,
    retry_after: Option<Duration>,
}

/// What a [`Problem`] looks like to the client.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Always `about:blank`: `code` tells the kinds apart.
    #[schema(example = "about:blank")]
    r#type: &'static str,
    /// The status in words.
    title: &'static str,
    status: u16,
    /// What was wrong this time, for people.
    detail: String,
    code: ErrorCode,
    /// How long to wait before trying again, where that would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Problem {
    /// With the code's own status. `detail` is for people; it must not hold secrets.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { code, status, detail: detail.into(), retry_after: None }
    }

    /// Where HTTP has a more exact status than the code.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    pub fn code(&self) -> ErrorCode {
        self.code
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let code = error.code();
        if code == ErrorCode::Unavailable {
            tracing::error!(error = %chain(&error), "an account request failed");
        }
        metrics::counter!("aula_account_refusals_total", "code" => code.as_str()).increment(1);
        Self::new(code, error.to_string()).with_retry_after(error.retry_after())
    }
}

/// An error with its causes, for the log: the client is told the first sentence only.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        count_refusal(self.code);
        let body = ProblemBody {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: self.detail,
            code: self.code,
            retry_after_ms: self.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        };
        // Texts and numbers: writing them can't fail.
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, json).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            // Whole seconds (RFC 9110 §10.2.3), rounded up: never too early.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §11.6.1 asks for it in every 401.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
