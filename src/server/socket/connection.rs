//! One connection, from its first frame to its last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message as WsMessage, WebSocket};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::OwnedSemaphorePermit;

use crate::message::Millis;
use crate::server::auth::Identity;
use crate::server::gateway::{
    Closing, Connected, Gateway, Resume, SLOW_CONSUMER, Session, Step, count_refusal, encode,
};
use crate::wire::frame::{Error, Reply, Resumed};
use crate::wire::{Encoding, ErrorCode, Frame, Incoming, Malformed, Request, decode_json, decode_msgpack};

/// How long the other side may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the connection to its end.
pub(super) async fn run(
    socket: WebSocket,
    gateway: Arc<Gateway>,
    encoding: Encoding,
    identity: Option<Identity>,
    unauthenticated: Option<OwnedSemaphorePermit>,
) {
    let mut connection = Connection { socket, gateway, encoding };
    match connection.live(identity, unauthenticated).await {
        Ok(()) | Err(Ended::Gone) => {}
        Err(Ended::Goodbye) => connection.answer_goodbye().await,
        Err(Ended::Closing(closing)) => {
            tracing::debug!(code = closing.code, reason = %closing.reason, "closing a connection");
            metrics::counter!("aula_closes_total", "reason" => reason_label(closing.code)).increment(1);
            connection.close(closing).await;
        }
    }
}

/// The token was good for so long.
const EXPIRED: Closing = Closing::new(1008, "the token has expired: log in or refresh");
/// Timers can't be set for ever; a connection that lives this long may as well come back.
const LONGEST_ALARM: Duration = Duration::from_secs(365 * 24 * 3600);

struct Connection {
    socket: WebSocket,
    gateway: Arc<Gateway>,
    encoding: Encoding,
}

/// Why a connection is over.
enum Ended {
    /// The other side is gone.
    Gone,
    /// The other side closes.
    Goodbye,
    Closing(Closing),
}

impl From<axum::Error> for Ended {
    fn from(error: axum::Error) -> Self {
        use tungstenite::Error;
        let Ok(error) = error.into_inner().downcast::<Error>() else { return Self::Gone };
        match *error {
            Error::Capacity(_) => Self::Closing(Closing::new(1009, "the frame is too large")),
            Error::Utf8(_) => Self::Closing(Closing::new(1007, "a text frame that is not UTF-8")),
            Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => Self::Gone,
            Error::Protocol(error) => {
                Self::Closing(Closing { code: 1002, reason: format!("protocol error: {error}").into() })
            }
            _ => Self::Gone,
        }
    }
}

impl From<Malformed> for Ended {
    fn from(malformed: Malformed) -> Self {
        // A close frame has at most 125 bytes, two of them the code (RFC 6455 §5.5).
        let reason = malformed.to_string();
        Self::Closing(Closing { code: 1007, reason: cut(&reason, 120).to_owned().into() })
    }
}

impl Connection {
    async fn live(&mut self, identity: Option<Identity>, permit: Option<OwnedSemaphorePermit>) -> Result<(), Ended> {
        let (identity, resume) = match identity {
            Some(identity) => (identity, Resume::new(None, Default::default())),
            None => self.authenticate().await?,
        };
        // From here on it counts as a session, not as a stranger.
        drop(permit);
        let connected = match self.gateway.connect(identity, self.encoding).await {
            Ok(connected) => connected,
            Err(error) => return Err(self.turn_away(Error { reference: resume.reference, ..error }).await),
        };
        let Connected { session, welcome, .. } = &connected;
        self.write(&mut vec![encode(welcome, self.encoding)], session).await?;
        if !resume.channels.is_empty() {
            self.resume(session, resume).await?;
        }
        self.talk(session).await
    }

    /// Waits for the first frame, which must be `auth`.
    async fn authenticate(&mut self) -> Result<(Identity, Resume), Ended> {
        let timeout = self.gateway.config().server.auth_timeout;
        let first = tokio::time::timeout(timeout, self.first_request()).await;
        let incoming = match first {
            Ok(incoming) => incoming?,
            Err(_elapsed) => {
                let error = unauthorized(None, "no auth came in time".into());
                return Err(self.turn_away(error).await);
            }
        };
        let Ok(Request::Auth(auth)) = incoming.request else {
            let error = unauthorized(incoming.reference, "the first request must be auth, with a token".into());
            return Err(self.turn_away(error).await);
        };
        match self.gateway.auth().authenticate(&auth.token).await {
            Ok(identity) => {
                let most = self.gateway.config().channels.max_per_user;
                if auth.resume.len() > most {
                    let error = unauthorized(incoming.reference, format!("resume names more than {most} channels"));
                    return Err(self.turn_away(Error { code: ErrorCode::TooLarge, ..error }).await);
                }
                Ok((identity, Resume::new(incoming.reference, auth.resume)))
            }
            Err(refused) => {
                let error = Error {
                    reference: incoming.reference,
                    code: refused.code(),
                    message: refused.to_string(),
                    retry: refused.retry_after().is_some() || refused.code() == ErrorCode::Unavailable,
                    retry_after_ms: refused.retry_after().map(|after| after.as_millis() as u64),
                };
                Err(self.turn_away(error).await)
            }
        }
    }

    async fn first_request(&mut self) -> Result<Incoming, Ended> {
        loop {
            let frame = self.socket.next().await.ok_or(Ended::Gone)??;
            if let Some(incoming) = decode(self.encoding, &frame)? {
                return Ok(incoming);
            }
        }
    }

    /// Says why, and closes: without a session there is nothing else to do here.
    async fn turn_away(&mut self, error: Error) -> Ended {
        count_refusal(error.code);
        let closing = match error.code {
            ErrorCode::Unauthorized => Closing::new(1008, "authentication required"),
            ErrorCode::Unavailable | ErrorCode::Overloaded => Closing::new(1013, "try again later"),
            _ => Closing::new(1008, "refused"),
        };
        let frame = encode(&Frame::Error(error), self.encoding);
        match tokio::time::timeout(CLOSE_TIMEOUT, self.socket.send(frame)).await {
            Ok(Ok(())) => Ended::Closing(closing),
            _ => Ended::Gone,
        }
    }

    /// The connection's life: requests in, frames out, until one side ends it.
    async fn talk(&mut self, session: &Arc<Session>) -> Result<(), Ended> {
        let config = Arc::clone(self.gateway.config());
        let valid_for = session.identity.expires_at.0.saturating_sub(Millis::now().0);
        let expires_in = Duration::from_millis(u64::try_from(valid_for).unwrap_or(0)).min(LONGEST_ALARM);
        let expires = Instant::now() + expires_in;
        let mut last_heard = Instant::now();
        let mut frames = Vec::new();
        // Re-armed only when it fires: a busy connection pays nothing for it.
        let alarm = tokio::time::sleep(config.session.ping_interval.min(expires_in));
        tokio::pin!(alarm);
        loop {
            // Once a turn, not until it is empty: a flood of frames must not keep the turn from what else there is.
            if !session.outbox.is_empty() {
                let closing = session.outbox.take(&mut frames);
                if closing.as_ref() == Some(&SLOW_CONSUMER) {
                    return Err(Ended::Closing(SLOW_CONSUMER));
                }
                self.write(&mut frames, session).await?;
                if let Some(closing) = closing {
                    return Err(Ended::Closing(closing));
                }
            }
            if Instant::now() >= expires {
                return Err(Ended::Closing(EXPIRED));
            }
            tokio::select! {
                frame = self.socket.next() => {
                    last_heard = Instant::now();
                    let frame = frame.ok_or(Ended::Gone)??;
                    if let Some(incoming) = decode(self.encoding, &frame)?
                        && let Some(resume) = self.gateway.serve(session, incoming)
                    {
                        self.resume(session, resume).await?;
                    }
                }
                () = session.outbox.changed() => {}
                () = std::future::ready(()), if !session.outbox.is_empty() => {}
                () = &mut alarm => {
                    let now = Instant::now();
                    if now.duration_since(last_heard) >= config.session.idle_timeout {
                        return Err(Ended::Closing(Closing::new(1008, "idle: nothing was heard, not even a pong")));
                    }
                    self.write(&mut vec![WsMessage::Ping(Bytes::new())], session).await?;
                    let silence_ends = last_heard + config.session.idle_timeout;
                    let next = (now + config.session.ping_interval).min(expires).min(silence_ends.max(now));
                    alarm.as_mut().reset(next.into());
                }
            }
        }
    }

    /// Writes frames in as few system calls as they fit in. A reader that doesn't keep up is given up.
    async fn write(&mut self, frames: &mut Vec<WsMessage>, session: &Session) -> Result<(), Ended> {
        let timeout = self.gateway.config().session.write_timeout;
        let socket = &mut self.socket;
        let write = async {
            for frame in frames.drain(..) {
                socket.feed(frame).await?;
            }
            socket.flush().await
        };
        let overrun = async {
            // More and more waits behind a write that doesn't end.
            while !session.outbox.is_overrun() {
                session.outbox.changed().await;
            }
        };
        tokio::select! {
            biased;
            written = write => Ok(written?),
            () = overrun => Err(Ended::Closing(SLOW_CONSUMER)),
            () = tokio::time::sleep(timeout) => {
                metrics::counter!("aula_slow_consumers_total").increment(1);
                Err(Ended::Closing(SLOW_CONSUMER))
            }
        }
    }

    /// Sends what was missed in each channel, then the reply.
    async fn resume(&mut self, session: &Arc<Session>, resume: Resume) -> Result<(), Ended> {
        let mut channels = std::collections::BTreeMap::new();
        let mut frames = Vec::new();
        let gateway = Arc::clone(&self.gateway);
        self.drain(session, &mut frames).await?;
        let unknown = {
            let prepared = gateway.prepare_resume(session, &resume);
            tokio::pin!(prepared);
            loop {
                tokio::select! {
                    unknown = &mut prepared => break unknown,
                    () = session.outbox.changed() => self.drain(session, &mut frames).await?,
                }
            }
        };
        for (channel, after) in resume.channels {
            if unknown.contains(&channel) {
                let code = Some(ErrorCode::Unavailable);
                channels.insert(channel, Resumed { complete: false, last_seq: 0, code });
                continue;
            }
            let resumed = match gateway.begin_resume(session, channel, after) {
                Err(refused) => refused,
                Ok(mut resuming) => {
                    // What was handed over before the stream began anew must not come behind it.
                    self.drain(session, &mut frames).await?;
                    loop {
                        match gateway.step(&mut resuming).await {
                            Step::Done(resumed) => break resumed,
                            Step::Write(messages) => {
                                let encoding = self.encoding;
                                frames.extend(messages.into_iter().map(|m| encode(&Frame::Message(m), encoding)));
                                self.write(&mut frames, session).await?;
                                // Other channels go on meanwhile.
                                self.drain(session, &mut frames).await?;
                            }
                        }
                    }
                }
            };
            self.drain(session, &mut frames).await?;
            channels.insert(channel, resumed);
        }
        session.push(&Frame::Ok(Reply { reference: resume.reference, channels: Some(channels), ..Reply::default() }));
        Ok(())
    }

    /// Writes what is in the outbox now, and ends the connection if that was its last: a long resume must not
    /// outlive a revocation or the token.
    async fn drain(&mut self, session: &Session, frames: &mut Vec<WsMessage>) -> Result<(), Ended> {
        let closing = session.outbox.take(frames);
        if closing.as_ref() == Some(&SLOW_CONSUMER) {
            return Err(Ended::Closing(SLOW_CONSUMER));
        }
        if !frames.is_empty() {
            self.write(frames, session).await?;
        }
        match closing {
            Some(closing) => Err(Ended::Closing(closing)),
            None if session.identity.expires_at <= Millis::now() => Err(Ended::Closing(EXPIRED)),
            None => Ok(()),
        }
    }

    /// The library has its answer ready, and writes it when it is asked to go on (RFC 6455 §5.5.1).
    async fn answer_goodbye(mut self) {
        let answer = async { while let Some(Ok(_)) = self.socket.next().await {} };
        if tokio::time::timeout(CLOSE_TIMEOUT, answer).await.is_err() {
            tracing::debug!("the answer to a close could not be written");
        }
    }

    /// The closing handshake (RFC 6455 §7.1.2), for as long as the other side deserves.
    async fn close(mut self, closing: Closing) {
        let frame = CloseFrame { code: closing.code, reason: cut(&closing.reason, 120).into() };
        let handshake = async {
            if self.socket.send(WsMessage::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, handshake).await.is_err() {
            tracing::debug!("the other side did not answer the close");
        }
    }
}

/// `None` for frames that carry no request.
fn decode(encoding: Encoding, frame: &WsMessage) -> Result<Option<Incoming>, Ended> {
    match (encoding, frame) {
        (Encoding::Json, WsMessage::Text(text)) => Ok(Some(decode_json(text.as_bytes())?)),
        (Encoding::Msgpack, WsMessage::Binary(bytes)) => Ok(Some(decode_msgpack(bytes)?)),
        (Encoding::Json, WsMessage::Binary(_)) => {
            Err(Ended::Closing(Closing::new(1003, "aula.v1.json has text frames only")))
        }
        (Encoding::Msgpack, WsMessage::Text(_)) => {
            Err(Ended::Closing(Closing::new(1003, "aula.v1.msgpack has binary frames only")))
        }
        (_, WsMessage::Close(_)) => Err(Ended::Goodbye),
        (_, WsMessage::Ping(_) | WsMessage::Pong(_)) => Ok(None),
    }
}

fn unauthorized(reference: Option<u64>, message: String) -> Error {
    Error { reference, code: ErrorCode::Unauthorized, message, retry: false, retry_after_ms: None }
}

fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

fn reason_label(code: u16) -> &'static str {
    match code {
        1002 | 1003 | 1007 => "malformed",
        1008 => "policy",
        1009 => "too_large",
        1012 => "drain",
        1013 => "slow_or_overloaded",
        _ => "other",
    }
}
