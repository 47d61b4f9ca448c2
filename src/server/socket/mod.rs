//! Stage 1: WebSockets, RFC 6455.

mod connection;
mod origin;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{ConnectInfo, FromRef, State};
use axum::http::{HeaderMap, header};
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

/// Bytes read from a socket at once. The library's default of 128 KiB would be most of a connection's memory.
const READ_BUFFER: usize = 4 << 10;
/// Bytes gathered before a write; what is queued for a connection goes out in one system call.
const WRITE_BUFFER: usize = 16 << 10;

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
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    match accept(&sockets, &headers, upgrade, place).await {
        Ok(response) => response,
        Err(problem) => {
            tracing::debug!(peer = ?peer.map(|peer| peer.0.0), code = %problem.code(), "a handshake was refused");
            problem.into_response()
        }
    }
}

async fn accept(
    sockets: &Sockets,
    headers: &HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
    place: Option<Extension<Place>>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|rejection| {
        Problem::new(ErrorCode::Invalid, format!("this is a WebSocket endpoint: {}", rejection.body_text()))
            .with_status(rejection.status())
    })?;
    let gateway = &sockets.gateway;
    let limits = &gateway.config().session;
    if !origin::is_allowed(headers, &gateway.config().server.allowed_origins) {
        return Err(Problem::new(ErrorCode::Forbidden, "this origin is not in server.allowed_origins"));
    }
    let offers = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let upgrade = upgrade
        .protocols([SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK])
        .max_frame_size(limits.max_frame_bytes)
        .max_message_size(limits.max_frame_bytes)
        .read_buffer_size(READ_BUFFER)
        // The next frame waits until this much is written; so a limit of its own would only refuse large frames.
        .write_buffer_size(WRITE_BUFFER);
    let encoding = match upgrade.selected_protocol().and_then(|chosen| chosen.to_str().ok()) {
        Some(SUBPROTOCOL_MSGPACK) => Encoding::Msgpack,
        Some(_) => Encoding::Json,
        // A tool on a terminal, say, that offers no subprotocol at all.
        None if !offers => Encoding::Json,
        None => {
            let known = format!("the subprotocols are {SUBPROTOCOL_JSON} and {SUBPROTOCOL_MSGPACK}");
            return Err(Problem::new(ErrorCode::Invalid, known));
        }
    };
    let identity = match token_of(headers) {
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
    let token = sockets.connections.token();
    Ok(upgrade.on_upgrade(move |socket| async move {
        connection::run(socket, gateway, encoding, identity, permit).await;
        drop((token, place));
    }))
}
