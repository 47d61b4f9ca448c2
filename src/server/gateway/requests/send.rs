use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Gateway, Refusal, Session, too_many_in_flight};
use crate::message::{Kind, Millis};
use crate::server::queue::{Family, Lane, SendTask, Task};
use crate::wire::frame::Reply;
use crate::wire::request::Send;
use crate::wire::{ErrorCode, Frame};

impl Gateway {
    /// Checks a send and puts it on its channel's shard. The confirm is the `accepted`.
    pub(super) fn send(
        self: &Arc<Self>,
        session: &Arc<Session>,
        reference: Option<u64>,
        send: Send,
    ) -> Result<(), Refusal> {
        let Send { channel, client_id, kind, body, retry } = send;
        if session.room(channel).is_none() {
            return Err(Refusal::not_a_member());
        }
        self.check(kind, &body, client_id, retry)?;
        let in_flight = session.begin().ok_or_else(too_many_in_flight)?;
        let task = Task::Send(SendTask {
            channel,
            id: Uuid::now_v7(),
            sender: session.username().clone(),
            client_id,
            kind,
            body,
            at: Millis::now(),
            retry,
        });
        let payload = task.encode().map_err(|error| Refusal::new(ErrorCode::Invalid, error.to_string()))?;
        let shard = channel.shard(self.queue.shards(Family::DbTasks));
        let gateway = Arc::clone(self);
        let began = Instant::now();
        let confirm = move |outcome: Result<(), _>| {
            let session = in_flight.end();
            match outcome {
                Ok(()) => {
                    metrics::histogram!("aula_status_seconds", "status" => "accepted").record(began.elapsed());
                    let accepted = Reply { reference, status: Some("accepted"), ..Reply::default() };
                    gateway.answers.put(&session, &Frame::Ok(accepted));
                }
                Err(error) => gateway.refuse(&session, Refusal::from(error).into_error(reference)),
            }
        };
        self.queue.enqueue(Lane { family: Family::DbTasks, shard }, payload, Box::new(confirm))?;
        Ok(())
    }

    fn check(&self, kind: Kind, body: &str, client_id: Uuid, retry: bool) -> Result<(), Refusal> {
        if kind != Kind::Text {
            return Err(Refusal::new(ErrorCode::Invalid, "only messages of kind text can be sent to this server"));
        }
        if body.is_empty() {
            return Err(Refusal::new(ErrorCode::Invalid, "a message has a body"));
        }
        let most = self.config.channels.max_body_bytes;
        if body.len() > most {
            return Err(Refusal::new(ErrorCode::TooLarge, format!("a body has at most {most} bytes")));
        }
        if retry && age(client_id).is_some_and(|age| age > self.config.queue.dedup_ttl) {
            return Err(Refusal::new(
                ErrorCode::StaleRetry,
                "the first attempt is too long ago to be looked up: read the history, then send it as a new message",
            ));
        }
        Ok(())
    }
}

/// How long ago a client_id was made, if it says so.
fn age(client_id: Uuid) -> Option<Duration> {
    let made = Millis::of_uuid(client_id)?;
    u64::try_from(Millis::now().0 - made.0).ok().map(Duration::from_millis)
}
