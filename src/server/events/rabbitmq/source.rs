use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use uuid::Uuid;

use super::bundle::{self, Origin};
use crate::server::events::{EventSink, EventSource};
use crate::server::rabbitmq::topology::{Topology, declare_gateway_queue};
use crate::server::rabbitmq::{Life, Link, Unavailable};
use crate::server::worker::Backoff;

/// Bundles that the broker sends ahead. Acknowledged, so that what a gateway that stands still has not taken waits in
/// the broker, where it is bounded.
const PREFETCH: u16 = 1024;
/// Bundles acknowledged at once.
const ACK_EVERY: u32 = 128;
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
        let mut events = Self { link, topology, gateway: gateway.to_owned(), first: None };
        events.first = Some(events.subscribe(events.link.life()?).await?);
        Ok(events)
    }

    async fn subscribe(&self, life: Arc<Life>) -> anyhow::Result<Subscription> {
        let channel = life.channel().await?;
        // Another name each time: the queue of a connection that broke unseen goes when the broker sees it.
        let name = format!("{}.{}", self.gateway, &Uuid::new_v4().simple().to_string()[..8]);
        let queue = self.topology.gateway_queue("events", &name)?;
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
    async fn subscribe_again(&self) -> Subscription {
        let mut backoff = Backoff::new();
        loop {
            match self.subscribe(self.link.next_life().await).await {
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
    async fn hand_over(mut self, gateway: &dyn EventSink) {
        let mut numbers = Numbers::default();
        let mut unacknowledged = 0;
        let mut lost = false;
        let mut repaired: Option<Instant> = None;
        loop {
            let delivery = tokio::select! {
                delivery = self.consumer.next() => delivery,
                () = self.life.ended() => None,
            };
            let Some(Ok(delivery)) = delivery else { return };
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
            unacknowledged += 1;
            if unacknowledged >= ACK_EVERY {
                unacknowledged = 0;
                let options = BasicAckOptions { multiple: true };
                if let Err(error) = self.channel.basic_ack(delivery.delivery_tag, options).await {
                    tracing::debug!(%error, "the connection ended before an acknowledgement");
                    return;
                }
            }
        }
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
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_seen_for_each_publisher() {
        let mut numbers = Numbers::default();
        let [one, other] = [1, 2].map(Uuid::from_u128);
        let mut follows = |publisher, number| numbers.follows(Origin { publisher, number });
        assert!(follows(one, 7) && follows(other, 1) && follows(one, 8) && follows(other, 2));
        assert!(!follows(one, 10));
        assert!(follows(one, 11));
    }

    #[test]
    fn the_longest_silent_publisher_is_forgotten() {
        let mut numbers = Numbers::default();
        for publisher in 0..5000 {
            assert!(numbers.follows(Origin { publisher: Uuid::from_u128(publisher), number: 1 }));
        }
        assert!(numbers.last.len() <= PUBLISHERS && numbers.last.contains_key(&Uuid::from_u128(4999)));
    }
}
