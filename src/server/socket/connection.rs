//! One connection, from its first frame to its last.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::coop;

use super::line::Line;
use crate::message::Millis;
use crate::server::auth::Identity;
use crate::server::gateway::{
    Closing, Connected, Drained, Gateway, Resume, SLOW_CONSUMER, Session, Step, count_refusal, encode,
};
use crate::websocket::{Item, Opcode, Violation, close_frame, frame};
use crate::wire::frame::{Error, Reply, Resumed};
use crate::wire::{Encoding, ErrorCode, Frame, Incoming, Malformed, Request, decode_json, decode_msgpack};

/// How long the other side may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a connection to its end. `upgrading` gives the socket, and what came right behind the handshake; `place` is let
/// go at the end.
///
/// Whatever is needed only at the beginning, or now and then, is boxed: it would take its place in the memory of each
/// connection all the time.
pub(super) fn run(
    upgrading: impl Future<Output = Option<(TcpStream, Bytes)>>,
    gateway: Arc<Gateway>,
    encoding: Encoding,
    identity: Option<Identity>,
    unauthenticated: Option<OwnedSemaphorePermit>,
    place: impl Sized,
) -> impl Future<Output = ()> {
    let beginning = Box::pin(async move {
        let (socket, early) = upgrading.await?;
        let line = Line::new(socket, gateway.config().session.max_frame_bytes);
        let mut connection = Connection { line, gateway, encoding, waiting: VecDeque::new() };
        match connection.enter(early, identity, unauthenticated).await {
            Ok((connected, resume)) => Some(Entered { connection, connected, resume }),
            Err(ended) => {
                connection.end(ended, None).await;
                None
            }
        }
    });
    async move {
        let mut entered = beginning.await;
        // Not taken apart: its parts would have a place beside it.
        if let Some(Entered { connection, connected, resume }) = &mut entered {
            let ended = connection.live(&connected.session, resume.take()).await;
            Box::pin(finish(entered, ended)).await;
        }
        drop(place);
    }
}

/// A connection that has its session.
struct Entered {
    connection: Connection,
    connected: Connected,
    resume: Option<Box<Resume>>,
}

async fn finish(entered: Option<Entered>, ended: Result<(), Ended>) {
    if let Some(Entered { connection, connected, .. }) = entered {
        let begun = connected.session.outbox.finish();
        drop(connected);
        if let Err(ended) = ended {
            connection.end(ended, begun).await;
        }
    }
}

/// The token was good for so long.
const EXPIRED: Closing = Closing::new(1008, "the token has expired: log in or refresh");
/// Timers can't be set for ever; a connection that lives this long may as well come back.
const LONGEST_ALARM: Duration = Duration::from_secs(365 * 24 * 3600);

struct Connection {
    line: Line,
    gateway: Arc<Gateway>,
    encoding: Encoding,
    /// Requests that were read together with one that must be served before them.
    waiting: VecDeque<Incoming>,
}

/// The answer to the newest ping; the earlier ones need none (RFC 6455 §5.5.3).
type Pong = Option<Bytes>;

/// Why a connection is over.
enum Ended {
    /// The other side is gone.
    Gone,
    /// The other side closes, with this code.
    Goodbye(u16),
    Closing(Closing),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<Violation> for Ended {
    fn from(violation: Violation) -> Self {
        Self::Closing(Closing { code: violation.code(), reason: violation.to_string().into() })
    }
}

impl From<Malformed> for Ended {
    fn from(malformed: Malformed) -> Self {
        Self::Closing(Closing { code: 1007, reason: malformed.to_string().into() })
    }
}

impl Connection {
    /// From a stranger to a session, whose welcome waits in its outbox.
    async fn enter(
        &mut self,
        early: Bytes,
        identity: Option<Identity>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<(Connected, Option<Box<Resume>>), Ended> {
        let mut pong = None;
        self.wait_with(early, &mut pong)?;
        let (identity, resume) = match identity {
            Some(identity) => (identity, Resume::new(None, Default::default())),
            None => self.authenticate(&mut pong).await?,
        };
        // From here on it counts as a session, not as a stranger.
        drop(permit);
        let (connected, welcome) = match self.gateway.connect(identity, self.encoding).await {
            Ok(connected) => connected,
            Err(error) => return Err(self.turn_away(Error { reference: resume.reference, ..error }).await),
        };
        let welcome = encode(&Frame::Welcome(welcome), self.encoding);
        connected.session.outbox.open(Arc::clone(&self.line.socket), welcome);
        if let Some(pong) = pong {
            connected.session.outbox.push(&pong);
        }
        Ok((connected, (!resume.channels.is_empty()).then(|| Box::new(resume))))
    }

    /// What was read before it can be served.
    fn wait_with(&mut self, early: Bytes, pong: &mut Pong) -> Result<(), Ended> {
        let Self { line, encoding, waiting, .. } = self;
        line.take(&mut Vec::from(early), |item| {
            waiting.extend(decode(*encoding, item, pong)?);
            Ok(())
        })
    }

    /// Waits for the first frame, which must be `auth`.
    async fn authenticate(&mut self, pong: &mut Pong) -> Result<(Identity, Resume), Ended> {
        let timeout = self.gateway.config().server.auth_timeout;
        let first = tokio::time::timeout(timeout, self.first_request(pong)).await;
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

    async fn first_request(&mut self, pong: &mut Pong) -> Result<Incoming, Ended> {
        loop {
            if let Some(pong) = pong.take()
                && !self.line.write(pong, CLOSE_TIMEOUT).await
            {
                return Err(Ended::Gone);
            }
            if let Some(incoming) = self.waiting.pop_front() {
                return Ok(incoming);
            }
            self.line.readable().await?;
            coop::consume_budget().await;
            let Self { line, encoding, waiting, .. } = self;
            line.read(|item| {
                waiting.extend(decode(*encoding, item, pong)?);
                Ok::<_, Ended>(())
            })?;
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
        if self.line.write(frame, CLOSE_TIMEOUT).await { Ended::Closing(closing) } else { Ended::Gone }
    }

    /// The session's life: requests in, frames out, until one side ends it.
    async fn live(&mut self, session: &Arc<Session>, mut resume: Option<Box<Resume>>) -> Result<(), Ended> {
        let valid_for = session.identity.expires_at.0.saturating_sub(Millis::now().0);
        let expires_in = Duration::from_millis(u64::try_from(valid_for).unwrap_or(0)).min(LONGEST_ALARM);
        let expires = Instant::now() + expires_in;
        let mut last_heard = Instant::now();
        self.drain(session).await?;
        // Re-armed only when it fires: a busy connection pays nothing for it.
        let alarm = tokio::time::sleep(self.gateway.config().session.ping_interval.min(expires_in));
        tokio::pin!(alarm);
        loop {
            // A socket that is always ready would keep the thread.
            coop::consume_budget().await;
            if let Some(asked) = resume.take() {
                Box::pin(self.resume(session, *asked)).await?;
                // Nothing was read meanwhile.
                last_heard = Instant::now();
            }
            resume = self.serve_waiting(session);
            // Once a turn, not until it is empty: a flood of frames must not keep the turn from what else there is.
            self.drain(session).await?;
            if Instant::now() >= expires {
                return Err(Ended::Closing(EXPIRED));
            }
            tokio::select! {
                () = std::future::ready(()), if resume.is_some() || !session.outbox.is_empty() => {}
                readable = self.line.readable() => {
                    readable?;
                    let heard = self.receive(session, &mut resume)?;
                    last_heard = if heard { Instant::now() } else { last_heard };
                }
                () = session.outbox.changed() => {}
                () = &mut alarm => {
                    let (now, config) = (Instant::now(), self.gateway.config());
                    if now.duration_since(last_heard) >= config.session.idle_timeout {
                        return Err(Ended::Closing(Closing::new(1008, "idle: nothing was heard, not even a pong")));
                    }
                    session.outbox.push(&frame(Opcode::Ping, &[]));
                    let silence_ends = last_heard + config.session.idle_timeout;
                    let next = (now + config.session.ping_interval).min(expires).min(silence_ends.max(now));
                    alarm.as_mut().reset(next.into());
                }
            }
        }
    }

    /// Reads once, and serves what is read; what is behind a resume waits for it. Whether anything was heard.
    fn receive(&mut self, session: &Arc<Session>, resume: &mut Option<Box<Resume>>) -> Result<bool, Ended> {
        let Self { line, gateway, encoding, waiting } = self;
        let mut pong = None;
        let heard = line.read(|item| {
            if let Some(incoming) = decode(*encoding, item, &mut pong)? {
                if resume.is_some() || !waiting.is_empty() {
                    waiting.push_back(incoming);
                } else {
                    *resume = gateway.serve(session, incoming);
                }
            }
            Ok::<_, Ended>(())
        })?;
        if let Some(pong) = pong {
            session.outbox.push(&pong);
        }
        Ok(heard)
    }

    /// Up to the next resume.
    fn serve_waiting(&mut self, session: &Arc<Session>) -> Option<Box<Resume>> {
        while let Some(incoming) = self.waiting.pop_front() {
            let resume = self.gateway.serve(session, incoming);
            if resume.is_some() {
                return resume;
            }
        }
        // Most connections never have anything waiting.
        self.waiting = VecDeque::new();
        None
    }

    /// Writes what waits now, and ends the connection if that was its last: a long resume must not outlive a
    /// revocation. A reader that doesn't keep up is given up.
    async fn drain(&self, session: &Session) -> Result<(), Ended> {
        let Drained { rest, closing } = session.outbox.drain()?;
        if let Some(end) = rest {
            Box::pin(self.write_slowly(session, end)).await?;
        }
        match closing {
            Some(closing) => Err(Ended::Closing(closing)),
            None => Ok(()),
        }
    }

    /// The same for as long as something takes.
    async fn drain_while<T>(&mut self, session: &Session, something: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::pin!(something);
        loop {
            self.drain(session).await?;
            tokio::select! {
                done = &mut something => return Ok(done),
                () = session.outbox.changed() => {}
                () = std::future::ready(()), if !session.outbox.is_empty() => {}
            }
        }
    }

    /// Writes everything before `end`.
    async fn write_slowly(&self, session: &Session, end: u64) -> Result<(), Ended> {
        let deadline = tokio::time::sleep(self.gateway.config().session.write_timeout);
        let overrun = async {
            // More and more waits behind a write that doesn't end.
            while !session.outbox.is_overrun() {
                session.outbox.changed().await;
            }
        };
        tokio::pin!(deadline, overrun);
        loop {
            tokio::select! {
                biased;
                () = &mut overrun => return Err(Ended::Closing(SLOW_CONSUMER)),
                writable = self.line.socket.writable() => {
                    writable?;
                    if session.outbox.flush(end)? {
                        return Ok(());
                    }
                }
                () = &mut deadline => {
                    metrics::counter!("aula_slow_consumers_total").increment(1);
                    return Err(Ended::Closing(SLOW_CONSUMER));
                }
            }
        }
    }

    /// Sends what was missed in each channel, then the reply.
    async fn resume(&mut self, session: &Arc<Session>, resume: Resume) -> Result<(), Ended> {
        let mut channels = BTreeMap::new();
        let (gateway, encoding) = (Arc::clone(&self.gateway), self.encoding);
        let unknown = self.drain_while(session, gateway.prepare_resume(session, &resume)).await?;
        for (channel, after) in resume.channels {
            if unknown.contains(&channel) {
                let code = Some(ErrorCode::Unavailable);
                channels.insert(channel, Resumed { complete: false, last_seq: 0, code });
                continue;
            }
            let resumed = match gateway.begin_resume(session, channel, after) {
                Err(refused) => refused,
                Ok(mut resuming) => loop {
                    match self.drain_while(session, gateway.step(&mut resuming)).await? {
                        Step::Done(resumed) => break resumed,
                        Step::Write(messages) => {
                            let page = messages.into_iter().map(|message| encode(&Frame::Message(message), encoding));
                            session.outbox.push_page(page);
                            self.drain(session).await?;
                        }
                    }
                },
            };
            self.drain(session).await?;
            if session.identity.expires_at <= Millis::now() {
                return Err(Ended::Closing(EXPIRED));
            }
            channels.insert(channel, resumed);
        }
        session.push(&Frame::Ok(Reply { reference: resume.reference, channels: Some(channels), ..Reply::default() }));
        Ok(())
    }

    /// Says goodbye, for as long as the other side deserves. `begun` is the rest of a frame that was being written.
    async fn end(mut self, ended: Ended, begun: Option<Bytes>) {
        let (code, reason) = match &ended {
            Ended::Gone => return,
            Ended::Goodbye(code) => (*code, ""),
            Ended::Closing(closing) => {
                tracing::debug!(code = closing.code, reason = %closing.reason, "closing a connection");
                metrics::counter!("aula_closes_total", "reason" => reason_label(closing.code)).increment(1);
                (closing.code, closing.reason.as_ref())
            }
        };
        let handshake = async {
            for bytes in begun.into_iter().chain([close_frame(code, reason)]) {
                if !self.line.write(bytes, CLOSE_TIMEOUT).await {
                    return;
                }
            }
            // Whoever closes waits for the answer (RFC 6455 §7.1.2), which an answer to a close has none.
            if matches!(ended, Ended::Closing(_)) {
                self.line.until_closed().await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, handshake).await.is_err() {
            tracing::debug!("the other side did not answer the close");
        }
    }
}

/// `None` for frames that carry no request; the answer to a ping is put in `pong`.
fn decode(encoding: Encoding, item: Item<'_>, pong: &mut Pong) -> Result<Option<Incoming>, Ended> {
    match (encoding, item) {
        (Encoding::Json, Item::Text(text)) => Ok(Some(decode_json(text.as_bytes())?)),
        (Encoding::Msgpack, Item::Binary(bytes)) => Ok(Some(decode_msgpack(bytes)?)),
        (Encoding::Json, Item::Binary(_)) => {
            Err(Ended::Closing(Closing::new(1003, "aula.v1.json has text frames only")))
        }
        (Encoding::Msgpack, Item::Text(_)) => {
            Err(Ended::Closing(Closing::new(1003, "aula.v1.msgpack has binary frames only")))
        }
        (_, Item::Ping(payload)) => {
            *pong = Some(frame(Opcode::Pong, payload));
            Ok(None)
        }
        (_, Item::Pong(_)) => Ok(None),
        // A close without a code is answered as a normal one.
        (_, Item::Close(goodbye)) => Err(Ended::Goodbye(goodbye.map_or(1000, |(code, _)| code))),
    }
}

fn unauthorized(reference: Option<u64>, message: String) -> Error {
    Error { reference, code: ErrorCode::Unauthorized, message, retry: false, retry_after_ms: None }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::server::gateway::testing::Deployment;

    /// Each connection has one of these for all its life.
    #[tokio::test]
    async fn a_connection_is_small() {
        let gateway = Arc::clone(&Deployment::new().await.gateway);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let upgrading = std::future::ready(Some((socket, Bytes::new())));
        let connection = run(upgrading, gateway, Encoding::Json, None, None, ());
        let size = size_of_val(&connection);
        assert!(size <= 560, "{size} bytes");
    }
}
