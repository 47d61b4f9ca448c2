//! Stage 2: what becomes of each request. A refusal is an answer with a code; the connection lives on.

mod channels;
mod history;
mod marks;
mod search;
mod send;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Gateway, Session};
use crate::message::{ChannelId, Seq};
use crate::server::queue::QueueError;
use crate::wire::codec::Unusable;
use crate::wire::frame::{Error, Reply};
use crate::wire::{ErrorCode, Frame, Incoming, Request};

pub use history::{MAX_PAGE, history_page};
pub use search::search_limit;

/// Of a message about a request that can't be read, in bytes.
const MAX_QUOTE: usize = 256;

/// What the connection itself has to do, because its socket is needed for it.
pub struct Resume {
    pub reference: Option<u64>,
    pub channels: HashMap<ChannelId, Seq>,
    pub asked: Instant,
}

impl Resume {
    /// Asked for now.
    pub fn new(reference: Option<u64>, channels: HashMap<ChannelId, Seq>) -> Self {
        Self { reference, channels, asked: Instant::now() }
    }
}

/// A refusal on its way to the client.
pub(super) struct Refusal {
    code: ErrorCode,
    message: String,
    retry: bool,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: false, retry_after: None }
    }

    /// The same request may succeed later.
    fn retry(mut self, after: Duration) -> Self {
        self.retry = true;
        self.retry_after = Some(after);
        self
    }

    /// The same answer whether the channel exists or not.
    fn not_a_member() -> Self {
        Self::new(ErrorCode::NotAMember, "not a member of this channel, or there is no such channel")
    }

    fn into_error(self, reference: Option<u64>) -> Error {
        let Self { code, message, retry, retry_after } = self;
        let retry_after_ms = retry_after.map(|after| after.as_millis().max(1) as u64);
        Error { reference, code, message, retry, retry_after_ms }
    }
}

impl From<QueueError> for Refusal {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Overloaded => Self::new(ErrorCode::Overloaded, "the server has too much to do; send it again")
                .retry(Duration::from_millis(500)),
            other => {
                // Who could not write it has said so in the log, once for many.
                tracing::debug!(error = %other, "a task could not be queued");
                Self::new(ErrorCode::Unavailable, "it could not be kept; send it again")
                    .retry(Duration::from_millis(1000))
            }
        }
    }
}

impl Gateway {
    /// Serves a request of a connection. Answers go to its outbox, at once or when they are known.
    pub fn serve(self: &Arc<Self>, session: &Arc<Session>, incoming: Incoming) -> Option<Box<Resume>> {
        let Incoming { reference, request } = incoming;
        metrics::counter!("aula_requests_total").increment(1);
        if let Some(wait) = session.over_rate() {
            let refusal = Refusal::new(ErrorCode::RateLimited, "too many requests on this connection").retry(wait);
            self.refuse(session, refusal.into_error(reference));
            return None;
        }
        let request = match request {
            Ok(Request::Resume(resume)) if resume.channels.len() > self.config.channels.max_per_user => {
                Err(Refusal::new(ErrorCode::TooLarge, "more channels than a user can have"))
            }
            Ok(request) => Ok(request),
            Err(Unusable::UnknownOp(op)) => {
                Err(Refusal::new(ErrorCode::UnknownOp, format!("there is no op {op:?} in this version")))
            }
            Err(Unusable::Invalid(mut message)) => {
                // It may quote what came, which may be as long as a frame.
                message.truncate(message.floor_char_boundary(MAX_QUOTE));
                Err(Refusal::new(ErrorCode::Invalid, message))
            }
        };
        let outcome = match request {
            Ok(Request::Resume(resume)) => return Some(Box::new(Resume::new(reference, resume.channels))),
            Ok(request) => self.dispatch(session, reference, request),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = outcome {
            self.refuse(session, refusal.into_error(reference));
        }
        None
    }

    fn dispatch(
        self: &Arc<Self>,
        session: &Arc<Session>,
        reference: Option<u64>,
        request: Request,
    ) -> Result<(), Refusal> {
        match request {
            Request::Send(send) => self.send(session, reference, send),
            Request::Delivered(mark) => self.mark(session, mark, crate::server::receipts::Mark::Delivered),
            Request::Read(mark) => self.mark(session, mark, crate::server::receipts::Mark::Read),
            Request::Typing(typing) => self.typing(session, typing.channel),
            Request::Ping => {
                session.push(&Frame::Pong { reference });
                Ok(())
            }
            Request::Auth(_) => Err(Refusal::new(ErrorCode::Invalid, "this connection is authenticated already")),
            Request::History(history) => self.later(session, reference, move |gateway, session| async move {
                gateway.history(&session, reference, history).await
            }),
            Request::Search(search) => self.later(session, reference, move |gateway, session| async move {
                gateway.search_for(&session, reference, search).await
            }),
            Request::CreateChannel(create) => self.later(session, reference, move |gateway, session| async move {
                gateway.create_channel(&session, reference, create).await
            }),
            Request::AddMembers(change) => self.later(session, reference, move |gateway, session| async move {
                gateway.change_members(&session, reference, change.channel, change.members, Vec::new()).await
            }),
            Request::RemoveMember(change) => self.later(session, reference, move |gateway, session| async move {
                gateway.change_members(&session, reference, change.channel, Vec::new(), change.members).await
            }),
            Request::Leave(leave) => self.later(session, reference, move |gateway, session| async move {
                let me = vec![session.username().clone()];
                gateway.change_members(&session, reference, leave.channel, Vec::new(), me).await
            }),
            // Handled by the caller, who has the socket.
            Request::Resume(_) => Ok(()),
        }
    }

    /// Serves a request that has to wait, without holding up the connection.
    fn later<F, A>(self: &Arc<Self>, session: &Arc<Session>, reference: Option<u64>, serve: F) -> Result<(), Refusal>
    where
        F: FnOnce(Arc<Self>, Arc<Session>) -> A,
        A: Future<Output = Result<Option<Frame>, Refusal>> + Send + 'static,
    {
        let in_flight = session.begin().ok_or_else(too_many_in_flight)?;
        let answer = serve(Arc::clone(self), Arc::clone(session));
        let gateway = Arc::clone(self);
        tokio::spawn(async move {
            let answer = answer.await;
            let session = in_flight.end();
            match answer {
                Ok(Some(frame)) => session.push(&frame),
                // It has been answered on the way.
                Ok(None) => {}
                Err(refusal) => gateway.refuse(&session, refusal.into_error(reference)),
            }
        });
        Ok(())
    }
}

fn too_many_in_flight() -> Refusal {
    Refusal::new(ErrorCode::Overloaded, "too many requests of this connection wait for an answer")
        .retry(Duration::from_millis(100))
}

/// The reply to a request that was queued.
fn queued(reference: Option<u64>, channel: ChannelId) -> Frame {
    Frame::Ok(Reply { reference, status: Some("queued"), channel: Some(channel), ..Reply::default() })
}
