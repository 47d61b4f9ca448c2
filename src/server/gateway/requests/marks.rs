use std::sync::Arc;

use super::{Gateway, Refusal, Session};
use crate::message::{ChannelId, Seq};
use crate::server::events::{Event, EventBus};
use crate::server::gateway::encoded::Encoded;
use crate::server::receipts::{Full, Mark};
use crate::wire::request;
use crate::wire::{ErrorCode, Frame};

impl Gateway {
    /// A receipt. There is no reply to a good one.
    pub(super) fn mark(&self, session: &Session, mark: request::Mark, kind: fn(Seq) -> Mark) -> Result<(), Refusal> {
        let room = session.room(mark.channel).ok_or_else(Refusal::not_a_member)?;
        if !self.config.features.receipts {
            return Err(Refusal::new(ErrorCode::Forbidden, "receipts are switched off on this server"));
        }
        let last_seq = room.last_seq();
        if mark.seq == 0 || mark.seq > last_seq {
            let message = format!("seq {} is not one of the channel's, which end at {last_seq}", mark.seq);
            return Err(Refusal::new(ErrorCode::Invalid, message));
        }
        self.receipts.add(mark.channel, session.username(), kind(mark.seq)).map_err(|Full| {
            Refusal::new(ErrorCode::Overloaded, "too many receipts wait").retry(self.config.receipts.interval)
        })
    }

    /// Shows the user as typing to the others. Too often is passed over: nobody waits for an answer.
    pub(super) fn typing(&self, session: &Session, channel: ChannelId) -> Result<(), Refusal> {
        let room = session.room(channel).ok_or_else(Refusal::not_a_member)?;
        if !self.config.features.typing {
            return Err(Refusal::new(ErrorCode::Forbidden, "typing is switched off on this server"));
        }
        if session.may_type(channel, self.config.typing.interval) {
            let username = session.username().clone();
            match &self.others {
                None => room.broadcast(Arc::new(Encoded::new(Frame::Typing { channel, username })), Some(session)),
                Some(bus) => self.tell_gateways(bus, Event::Typing { channel, username, session: session.id }),
            }
        } else {
            metrics::counter!("aula_typing_dropped_total").increment(1);
        }
        Ok(())
    }

    /// To all gateways, this one among them. What finds no way at once is dropped.
    fn tell_gateways(&self, bus: &Arc<dyn EventBus>, event: Event) {
        let Ok(place) = Arc::clone(&self.telling).try_acquire_owned() else {
            return metrics::counter!("aula_typing_dropped_total").increment(1);
        };
        let bus = Arc::clone(bus);
        tokio::spawn(async move {
            if let Err(error) = bus.publish(vec![event]).await {
                tracing::debug!(%error, "the other gateways were not told");
            }
            drop(place);
        });
    }
}
