//! Stage 1: WebSockets, RFC 6455.

mod connection;
mod line;
mod origin;
mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRef, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::gateway::Gateway;
use super::http::bearer::token_of;
use super::http::listen::Place;
use super::http::problem::Problem;
use crate::wire::{Encoding, ErrorCode, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK};
use upgrade::Upgrade;

/// What the endpoint works with.
#[derive(Clone)]
pub struct Sockets {
    gateway: Arc<Gateway>,
    /// One permit for each connection that has not said who it is.
    unauthenticated: Arc<Semaphore>,
    connections: TaskTracker,
}

impl Sockets {
    pub fn new(gateway: Arc<Gateway>) -> Self {
        let unauthenticated = Arc::new(Semaphore::new(gateway.config().server.max_unauthenticated));
        Self { gateway, unauthenticated, connections: TaskTracker::new() }
    }

    /// Waits until every connection has ended.
    pub async fn ended(&self) {
        self.connections.close();
        self.connections.wait().await;
    }
}

/// `GET /ws`.
pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Sockets: FromRef<S>,
{
    Router::new().route("/ws", get(upgrade))
}

async fn upgrade(
    State(sockets): State<Sockets>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    place: Option<Extension<Place>>,
    request: Request,
) -> Response {
    match accept(&sockets, request, place).await {
        Ok(response) => response,
        Err(problem) => {
            tracing::debug!(peer = ?peer.map(|peer| peer.0.0), code = %problem.code(), "a handshake was refused");
            let mut response = problem.into_response();
            // For clients of another version (RFC 6455 §4.4).
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            response
        }
    }
}

async fn accept(sockets: &Sockets, request: Request, place: Option<Extension<Place>>) -> Result<Response, Problem> {
    let gateway = &sockets.gateway;
    let headers = request.headers().clone();
    let upgrade = Upgrade::of(request)?;
    if !origin::is_allowed(&headers, &gateway.config().server.allowed_origins) {
        return Err(Problem::new(ErrorCode::Forbidden, "this origin is not in server.allowed_origins"));
    }
    let chosen = upgrade::subprotocol(&headers, &[SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK]);
    let encoding = match chosen {
        Some(SUBPROTOCOL_MSGPACK) => Encoding::Msgpack,
        Some(_) => Encoding::Json,
        // A tool on a terminal, say, that offers no subprotocol at all.
        None if !headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) => Encoding::Json,
        None => {
            let known = format!("the subprotocols are {SUBPROTOCOL_JSON} and {SUBPROTOCOL_MSGPACK}");
            return Err(Problem::new(ErrorCode::Invalid, known));
        }
    };
    let identity = match token_of(&headers) {
        Some(token) => Some(gateway.auth().authenticate(token).await.map_err(Problem::from)?),
        None => None,
    };
    // Who has said who it is takes no place from those who have not.
    let permit = match identity {
        Some(_) => None,
        None => Some(Arc::clone(&sockets.unauthenticated).try_acquire_owned().map_err(|_full| {
            Problem::new(ErrorCode::Overloaded, "too many connections that have not authenticated")
                .with_retry_after(Some(Duration::from_secs(1)))
        })?),
    };
    let gateway = Arc::clone(gateway);
    let (response, upgrading) = upgrade.accept(chosen);
    sockets.connections.spawn(connection::run(upgrading, gateway, encoding, identity, permit, place));
    Ok(response)
}
