//! The handshake (RFC 6455 §4.1), the client's side.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ended::Ended;

/// Headers of an answer that are read; more are refused.
const MAX_HEADERS: usize = 32;
/// The largest answer to a handshake.
const MAX_ANSWER: usize = 16 << 10;

/// What a handshake asks for.
#[derive(Debug, Clone)]
pub struct Upgrade<'a> {
    /// As in the URL: name or address, and port.
    pub host: &'a str,
    /// With its query.
    pub path: &'a str,
    pub subprotocol: Option<&'a str>,
    /// An access token.
    pub bearer: Option<&'a str>,
}

impl Upgrade<'_> {
    /// The request's bytes; `nonce` makes its key differ from others.
    pub fn request(&self, nonce: u128) -> Vec<u8> {
        let Self { host, path, .. } = self;
        let key = STANDARD.encode(nonce.to_ne_bytes());
        let mut text = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        );
        if let Some(subprotocol) = self.subprotocol {
            text.push_str(&format!("Sec-WebSocket-Protocol: {subprotocol}\r\n"));
        }
        if let Some(token) = self.bearer {
            text.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// The length of the answer at the start of `bytes`, if all of it is there and agrees.
pub(super) fn answer(bytes: &[u8]) -> Result<Option<usize>, Ended> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => match response.code {
            Some(101) => Ok(Some(length)),
            Some(status) => Err(Ended::Refused(status)),
            None => Err(Ended::NoHandshake("an answer without a status")),
        },
        Ok(httparse::Status::Partial) if bytes.len() < MAX_ANSWER => Ok(None),
        Ok(httparse::Status::Partial) => Err(Ended::NoHandshake("a handshake without an end")),
        Err(_not_http) => Err(Ended::NoHandshake("an answer that is not HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_when_it_is_whole() {
        let whole = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00";
        assert_eq!(answer(&whole[..20]), Ok(None));
        assert_eq!(answer(whole), Ok(Some(whole.len() - 2)));
        assert_eq!(answer(b"HTTP/1.1 401 Unauthorized\r\n\r\n"), Err(Ended::Refused(401)));
        assert!(matches!(answer(b"SSH-2.0-x\r\n\r\n"), Err(Ended::NoHandshake(_))));
    }
}
