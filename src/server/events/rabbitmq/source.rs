use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::bundle::{self, Origin};
use crate::server::events::{EventSink, EventSource};
use crate::server::rabbitmq::topology::{Topology, declare_gateway_queue};
use crate::server::rabbitmq::{Life, Link, Unavailable};
use crate::server::worker::Backoff;

/// Bundles that the broker sends ahead. Acknowledged, so that what a gateway that stands still has not taken waits in
/// the broker, where it is bounded: to who acknowledges nothing (`no_ack`) it would send all it has.
const PREFETCH: u16 = 1024;
/// Bundles acknowledged at once.
const ACK_EVERY: u32 = 128;
/// Fewer are acknowledged after this time: the broker closes a channel that owes it one for long (`consumer_timeout`,
/// 30 minutes unless it is configured otherwise).
const ACK_AFTER: Duration = Duration::from_secs(1);
/// Workers whose numbers are followed; of more, the longest silent are forgotten.
const PUBLISHERS: usize = 1024;
/// While the broker goes on dropping, a repair is asked for this often.
const BETWEEN_REPAIRS: Duration = Duration::from_secs(1);

/// A gateway's end of the exchange: an exclusive queue, which goes with the connection, and is made anew with the next.
pub struct RabbitEvents {
    link: Link,
    topology: Arc<Topology>,
    gateway: String,
    first: Option<Subscription>,
    /// The queue of the newest subscription.
    queue: Option<OwnQueue>,
}

/// A queue, and the connection that it goes with: not the channel, which may end long before.
struct OwnQueue {
    name: String,
    of: Weak<Life>,
}

/// A queue of one connection.
struct Subscription {
    life: Arc<Life>,
    channel: Channel,
    consumer: Consumer,
}

impl RabbitEvents {
    /// Subscribes; from here on nothing is missed unsaid. `link` is one for consuming; `gateway` names this gateway
    /// among all.
    ///
    /// Errors: the broker can't be reached now, or has no exchange of events.
    pub async fn open(link: Link, topology: Arc<Topology>, gateway: &str) -> anyhow::Result<Self> {
        let mut events = Self { link, topology, gateway: gateway.to_owned(), first: None, queue: None };
        let life = events.link.life()?;
        events.first = Some(events.subscribe(life).await?);
        Ok(events)
    }

    async fn subscribe(&mut self, life: Arc<Life>) -> anyhow::Result<Subscription> {
        let channel = life.channel().await?;
        if let Some(last) = &self.queue
            && std::ptr::eq(last.of.as_ptr(), Arc::as_ptr(&life))
        {
            // Nobody reads it any more, and as long as the connection lives it would be filled.
            let name = last.name.as_str().into();
            channel.queue_delete(name, QueueDeleteOptions::default()).await.map_err(Unavailable::from)?;
        }
        // Another name each time: the queue of a connection that broke unseen goes when the broker sees it.
        let name = format!("{}.{}", self.gateway, &Uuid::new_v4().simple().to_string()[..8]);
        let queue = self.topology.gateway_queue("events", &name)?;
        // Before it is there: what fails halfway may have made it.
        self.queue = Some(OwnQueue { name: queue.name.clone(), of: Arc::downgrade(&life) });
        declare_gateway_queue(&channel, &queue).await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(Unavailable::from)?;
        let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let consumer = channel
            .basic_consume(queue.name.as_str().into(), "".into(), options, FieldTable::default())
            .await
            .map_err(Unavailable::from)?;
        Ok(Subscription { life, channel, consumer })
    }

    /// However long it takes.
    async fn subscribe_again(&mut self) -> Subscription {
        let mut backoff = Backoff::new();
        loop {
            let life = self.link.next_life().await;
            match self.subscribe(life).await {
                Ok(subscription) => return subscription,
                Err(error) => tracing::warn!(%error, "no events can be received yet"),
            }
            backoff.pause().await;
        }
    }
}

#[async_trait]
impl EventSource for RabbitEvents {
    async fn run(mut self: Box<Self>, gateway: Arc<dyn EventSink>) {
        if let Some(first) = self.first.take() {
            first.hand_over(gateway.as_ref()).await;
        }
        loop {
            let subscription = self.subscribe_again().await;
            // After the queue is there: what comes from now on waits in it.
            gateway.missed();
            subscription.hand_over(gateway.as_ref()).await;
        }
    }
}

impl Subscription {
    /// Until the connection or the queue ends.
    async fn hand_over(self, gateway: &dyn EventSink) {
        let life = Arc::clone(&self.life);
        let ended = self.hand_over_all(gateway).await;
        // Of a connection that broke its link tells.
        if life.is_alive() {
            let reason = ended.err().map(|error| error.to_string());
            tracing::warn!(reason, "the broker has ended the subscription to events: a new one is made");
        }
    }

    async fn hand_over_all(mut self, gateway: &dyn EventSink) -> lapin::Result<()> {
        let mut numbers = Numbers::default();
        let mut taken = Taken::default();
        let mut lost = false;
        let mut repaired: Option<Instant> = None;
        let mut acknowledge = interval(ACK_AFTER);
        acknowledge.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let delivery = tokio::select! {
                delivery = self.consumer.next() => delivery,
                _ = acknowledge.tick() => {
                    taken.acknowledge(&self.channel).await?;
                    continue;
                }
                () = self.life.ended() => None,
            };
            let Some(delivery) = delivery.transpose()? else { return Ok(()) };
            match bundle::decode(&delivery.data.clone().into()) {
                Ok((origin, events)) => {
                    lost |= !numbers.follows(origin);
                    for event in events {
                        gateway.deliver(event);
                    }
                }
                Err(reason) => {
                    tracing::error!(reason, "events can't be read");
                    lost = true;
                }
            }
            if lost && repaired.is_none_or(|last| last.elapsed() >= BETWEEN_REPAIRS) {
                (lost, repaired) = (false, Some(Instant::now()));
                gateway.missed();
            }
            taken.add(delivery.delivery_tag);
            if taken.count >= ACK_EVERY {
                taken.acknowledge(&self.channel).await?;
            }
        }
    }
}

/// Bundles that are not acknowledged yet.
#[derive(Default)]
struct Taken {
    count: u32,
    last: u64,
}

impl Taken {
    fn add(&mut self, tag: u64) {
        (self.count, self.last) = (self.count + 1, tag);
    }

    async fn acknowledge(&mut self, channel: &Channel) -> lapin::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        self.count = 0;
        channel.basic_ack(self.last, BasicAckOptions { multiple: true }).await
    }
}

/// The last number of each publisher.
#[derive(Default)]
struct Numbers {
    last: HashMap<Uuid, (u64, u64)>,
    clock: u64,
}

impl Numbers {
    /// Whether this is the next of its publisher, or its first here.
    fn follows(&mut self, Origin { publisher, number }: Origin) -> bool {
        self.clock += 1;
        let before = self.last.insert(publisher, (number, self.clock));
        if self.last.len() > PUBLISHERS
            && let Some(silent) = self.last.iter().min_by_key(|(_, (_, used))| *used).map(|(publisher, _)| *publisher)
        {
            self.last.remove(&silent);
        }
        before.is_none_or(|(last, _)| number == last + 1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
