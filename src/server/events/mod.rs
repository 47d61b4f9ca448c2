//! Stage 6, the way back: what the workers tell the gateways.

#[cfg(test)]
mod contract;
mod embedded;
mod rabbitmq;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::queue::Origin;
use crate::message::{ChannelId, Message, Seq, Username};
use crate::wire::ErrorCode;
use crate::wire::frame::ChannelInfo;

pub use embedded::{EmbeddedBus, EventTail};
pub use rabbitmq::{RabbitBus, RabbitEvents};

/// Something that happened to a channel. A gateway may see an event again, never out of its channel's order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The owner gave a message its seq: deliver it, it is on its way to the store.
    Message(Arc<Message>),
    /// A message that is stored already: deliver it, and tell its sender so.
    Stored(Arc<Message>),
    /// The sender's message is stored.
    Persisted { channel: ChannelId, seq: Seq, sender: Username, client_id: Uuid },
    /// The sender's message will not be in the log.
    Rejected { channel: ChannelId, sender: Username, client_id: Uuid, code: ErrorCode },
    /// All members have everything up to here.
    Watermarks { channel: ChannelId, delivered: Option<Seq>, read: Option<Seq> },
    /// A channel exists, and `joined` are in it since `joined_seq`. Stored before it is said.
    Joined { channel: ChannelInfo, joined: Vec<Username>, joined_seq: Seq, origin: Option<Origin> },
    /// A membership change is stored; `added` and `removed` are empty when nothing had to change.
    MembersChanged {
        channel: ChannelInfo,
        seq: Seq,
        added: Vec<Username>,
        removed: Vec<Username>,
        by: Username,
        origin: Option<Origin>,
    },
    /// Everything up to here is gone from the log.
    Purged { channel: ChannelId, seq: Seq },
    /// Somebody types: said by a gateway, not by a worker, and to nobody's harm if it is lost.
    Typing { channel: ChannelId, username: Username, session: Uuid },
    /// A request that was taken turned out to be impossible when its turn came.
    Refused { origin: Origin, code: ErrorCode, message: String },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("events can't be published: {0}")]
pub struct BusError(pub String);

/// Carries events to every gateway.
#[async_trait]
pub trait EventBus: Send + Sync + 'static {
    /// Resolves when every gateway that lives has the events or will get them, in their order. A gateway that falls
    /// too far behind loses the oldest, and is told so ([`EventSink::missed`]).
    /// An error means that some may not have been published: publish all of them again.
    async fn publish(&self, events: Vec<Event>) -> Result<(), BusError>;
}

/// A gateway, as the bus sees it. Called in each channel's order; must not block.
pub trait EventSink: Send + Sync + 'static {
    fn deliver(&self, event: Event);

    /// Some events are lost: nothing that was told to clients since the last one can be relied on to be complete.
    fn missed(&self);
}

/// A gateway's end of the bus.
#[async_trait]
pub trait EventSource: Send {
    /// Hands over every event from when the source was opened on. Runs until dropped; reconnects by itself, and says
    /// [`EventSink::missed`] when something may be lost.
    async fn run(self: Box<Self>, gateway: Arc<dyn EventSink>);
}
