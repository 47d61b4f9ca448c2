//! From an HTTP request to a socket without HTTP (RFC 6455 §4.2).

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::server::http::problem::Problem;
use crate::websocket::handshake::accept_key;
use crate::wire::ErrorCode;

/// A good handshake that is not answered yet.
pub(super) struct Upgrade {
    accept: HeaderValue,
    on_upgrade: OnUpgrade,
}

impl Upgrade {
    /// Errors: what is wrong with the handshake, as a client's developer would want to know it.
    pub fn of(mut request: Request) -> Result<Self, Problem> {
        let refused = |status: StatusCode, why: &str| {
            Problem::new(ErrorCode::Invalid, format!("this is a WebSocket endpoint: {why}")).with_status(status)
        };
        let headers = request.headers();
        if request.method() != Method::GET || request.version() != Version::HTTP_11 {
            return Err(refused(StatusCode::METHOD_NOT_ALLOWED, "the request must be a GET of HTTP/1.1"));
        }
        if !names(headers, header::CONNECTION, "upgrade") || !names(headers, header::UPGRADE, "websocket") {
            let why = "the request must have Connection: Upgrade and Upgrade: websocket";
            return Err(refused(StatusCode::BAD_REQUEST, why));
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(refused(StatusCode::BAD_REQUEST, "Sec-WebSocket-Version must be 13"));
        }
        // It proves nothing about the client: what it is made of is no reason to refuse.
        let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty()) else {
            return Err(refused(StatusCode::BAD_REQUEST, "the request must have a Sec-WebSocket-Key"));
        };
        let accept = HeaderValue::try_from(accept_key(key.as_bytes()));
        let accept = accept.map_err(|_| refused(StatusCode::BAD_REQUEST, "the key has no answer"))?;
        let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let on_upgrade =
            on_upgrade.ok_or_else(|| refused(StatusCode::UPGRADE_REQUIRED, "the connection can't be upgraded"))?;
        Ok(Self { accept, on_upgrade })
    }

    /// The answer, and what comes of it once it is written: the socket, and what the client has sent behind its
    /// handshake already.
    pub fn accept(
        self,
        subprotocol: Option<&'static str>,
    ) -> (Response, impl Future<Output = Option<(TcpStream, Bytes)>>) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(subprotocol) = subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        }
        let upgrading = async {
            match self.on_upgrade.await.map(socket_of) {
                Ok(Some(socket)) => return Some(socket),
                Ok(None) => tracing::error!("a connection was upgraded that is no TCP connection"),
                Err(error) => tracing::debug!(%error, "a connection ended before it was upgraded"),
            }
            None
        };
        (response, upgrading)
    }
}

/// The socket itself: the HTTP connection's buffers, which are most of it, are gone. `None` if it is no TCP connection
/// of ours.
fn socket_of(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

/// Whether a header that is a list has a token, in whatever case (RFC 9110 §5.6.1).
fn names(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(token))
}

/// The first of `ours` that the client offers (RFC 6455 §4.2.2).
pub(super) fn subprotocol(headers: &HeaderMap, ours: &[&'static str]) -> Option<&'static str> {
    ours.iter().copied().find(|ours| {
        let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
        offers.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|one| one.trim() == *ours)
    })
}
