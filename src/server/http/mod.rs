//! The HTTP interface under `/api/v1`: JSON in, JSON or a problem out.

pub mod accounts;
pub mod bearer;
pub mod channels;
pub mod extract;
pub mod health;
pub mod listen;
pub mod openapi;
pub mod problem;

pub use bearer::Bearer;
pub use problem::Problem;

use axum::Router;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, Method, Uri};
use axum::routing::any;

use crate::wire::ErrorCode;

/// Neither tokens nor anything of one user's may stay in a cache (RFC 6749 §5.1).
const NO_STORE: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

/// Completes a router, to be called when all its routes are in: a path under `/api` that it doesn't have, and a
/// method that a path doesn't have, are answered with a [`Problem`] too.
pub fn refuse_the_rest<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
        .route("/api", any(unknown_path))
        .route("/api/", any(unknown_path))
        .route("/api/{*rest}", any(unknown_path))
        .method_not_allowed_fallback(unknown_method)
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::new(ErrorCode::NotFound, format!("there is nothing at {}", uri.path()))
}

async fn unknown_method(method: Method, uri: Uri) -> Problem {
    Problem::new(ErrorCode::UnknownOp, format!("{} can't be done with {method}", uri.path()))
}
