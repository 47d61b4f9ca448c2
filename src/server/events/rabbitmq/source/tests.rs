use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::message::ChannelId;
use crate::server::events::{Event, EventBus as _, RabbitBus};
use crate::server::rabbitmq::testing::Vhost;

/// The broker counts a queue's messages every five seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts what it is told.
#[derive(Default)]
struct Counts {
    heard: watch::Sender<u64>,
    missed: watch::Sender<u64>,
}

impl EventSink for Counts {
    fn deliver(&self, _event: Event) {
        self.heard.send_modify(|heard| *heard += 1);
    }

    fn missed(&self) {
        self.missed.send_modify(|missed| *missed += 1);
    }
}

async fn reaches(counter: &watch::Sender<u64>, least: u64) {
    timeout(PATIENCE, counter.subscribe().wait_for(|count| *count >= least)).await.unwrap().unwrap();
}

struct Gateway {
    vhost: Vhost,
    link: Link,
    /// Of the first subscription.
    channel: Channel,
    counts: Arc<Counts>,
    bus: RabbitBus,
    _running: AbortOnDropHandle<()>,
}

impl Gateway {
    async fn start() -> Self {
        let (vhost, topology) = Vhost::migrated(|_| {}).await;
        let link = vhost.link().await;
        let source = RabbitEvents::open(link.clone(), topology, "test").await.unwrap();
        let channel = source.first.as_ref().unwrap().channel.clone();
        let counts = Arc::new(Counts::default());
        let running = tokio::spawn(Box::new(source).run(Arc::clone(&counts) as Arc<dyn EventSink>));
        let bus = RabbitBus::new(vhost.link().await);
        Self { vhost, link, channel, counts, bus, _running: AbortOnDropHandle::new(running) }
    }

    async fn hears_one_more(&self) {
        let before = *self.counts.heard.borrow();
        let event = Event::Watermarks { channel: ChannelId(Uuid::from_u128(1)), delivered: Some(1), read: None };
        self.bus.publish(vec![event]).await.unwrap();
        reaches(&self.counts.heard, before + 1).await;
    }

    /// The names of the queues of events, and the unacknowledged bundles in all of them.
    async fn queues(&self) -> (Vec<String>, u64) {
        let mut queues = self.vhost.management().queues().await.unwrap();
        queues.retain(|name, _| name.starts_with("events."));
        let unacknowledged = queues.values().map(|queue| queue.messages_unacknowledged).sum();
        (queues.into_keys().collect(), unacknowledged)
    }

    async fn has_one_queue(&self) {
        let only_one = async {
            while self.queues().await.0.len() != 1 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let in_time = timeout(PATIENCE, only_one).await;
        assert!(in_time.is_ok(), "the gateway left queues behind: {:?}", self.queues().await);
    }
}

/// As after `consumer_timeout`: the broker closes the channel, and the connection goes on.
#[tokio::test]
async fn a_channel_that_the_broker_closes_leaves_no_queue_behind() {
    let gateway = Gateway::start().await;
    gateway.hears_one_more().await;
    let of_nothing = gateway.channel.basic_ack(4711, BasicAckOptions::default());
    of_nothing.await.unwrap();
    reaches(&gateway.counts.missed, 1).await;
    gateway.hears_one_more().await;
    gateway.has_one_queue().await;
}

#[tokio::test]
async fn a_queue_that_somebody_deletes_is_made_anew() {
    let gateway = Gateway::start().await;
    gateway.hears_one_more().await;
    let (before, _) = gateway.queues().await;
    // Only the connection that it belongs to may.
    let channel = gateway.link.channel().await.unwrap();
    channel.queue_delete(before[0].as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    reaches(&gateway.counts.missed, 1).await;
    gateway.hears_one_more().await;
    gateway.has_one_queue().await;
    assert_ne!(gateway.queues().await.0, before);
}

#[tokio::test]
async fn a_quiet_gateway_owes_the_broker_no_acknowledgement() {
    let gateway = Gateway::start().await;
    for _ in 0..3 {
        gateway.hears_one_more().await;
    }
    // What the broker has counted by now it counted after the bundles, and after the acknowledgement was due.
    tokio::time::sleep(ACK_AFTER * 2 + Duration::from_secs(6)).await;
    assert_eq!(gateway.queues().await.1, 0);
    assert_eq!(*gateway.counts.missed.borrow(), 0);
}

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
