//! The bus on RabbitMQ, and what becomes of it when the broker can't be reached.

use futures_util::future::join_all;
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;

use super::*;
use crate::server::events::{RabbitBus, RabbitEvents};
use crate::server::rabbitmq::Link;
use crate::server::rabbitmq::testing::Vhost;
use crate::server::rabbitmq::topology::Topology;

/// What the broker sends ahead to a gateway that acknowledges nothing.
const AHEAD: u64 = 1024;
/// What waits behind that. More than is published at once elsewhere here: a busy broker lets that wait for a moment, too.
const BACKLOG: u32 = 100;

pub(super) struct Rabbitmq {
    vhost: Vhost,
    topology: Arc<Topology>,
}

impl Rabbitmq {
    async fn source_on(&self, link: Link) -> Box<dyn EventSource> {
        Box::new(RabbitEvents::open(link, Arc::clone(&self.topology), "test").await.unwrap())
    }
}

#[async_trait]
impl Backend for Rabbitmq {
    const GATEWAYS: usize = 2;

    async fn fresh() -> Self {
        let (vhost, topology) = Vhost::migrated(|values| values.events_backlog = BACKLOG).await;
        Self { vhost, topology }
    }

    async fn bus(&self) -> Arc<dyn EventBus> {
        Arc::new(RabbitBus::new(self.vhost.link().await))
    }

    async fn source(&self) -> Box<dyn EventSource> {
        self.source_on(self.vhost.link().await).await
    }

    async fn overrun(&self, bus: &dyn EventBus) -> Vec<Event> {
        let backlog = u64::from(BACKLOG);
        let last = AHEAD + backlog + 20;
        for number in 1..=last {
            bus.publish(vec![numbered(1, number)]).await.unwrap();
        }
        (1..=AHEAD).chain(last - backlog + 1..=last).map(|number| numbered(1, number)).collect()
    }
}

/// Until the broker is back.
async fn publish_at_last(bus: &dyn EventBus, event: &Event) {
    let published = async {
        while bus.publish(vec![event.clone()]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, published).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_was_cut_off_is_told_so_and_hears_what_comes_then() {
    let backend = Rabbitmq::fresh().await;
    let (bus, proxy) = (backend.bus().await, backend.vhost.proxy().await);
    let source = backend.source_on(backend.vhost.link_through(&proxy).await).await;
    let Listening { gateway, _running } = Listening::start(source);
    for round in 1..=3 {
        bus.publish(vec![numbered(1, round)]).await.unwrap();
        gateway.hears_of(&numbered(1, round)).await;
        proxy.accept(false);
        proxy.cut();
        bus.publish(vec![numbered(2, round)]).await.unwrap();
        proxy.accept(true);
        gateway.misses(round as u32).await;
        // It has a queue again by then: whoever repairs from here on is told the rest.
        bus.publish(vec![numbered(3, round)]).await.unwrap();
        gateway.hears_of(&numbered(3, round)).await;
    }
    let expected: Vec<_> = (1..=3).flat_map(|round| [numbered(1, round), numbered(3, round)]).collect();
    assert_eq!(*gateway.heard.lock(), expected);
    assert_eq!(gateway.missed(), 3);
}

#[tokio::test]
async fn without_a_broker_a_publish_fails_and_a_later_one_succeeds() {
    let backend = Rabbitmq::fresh().await;
    let Listening { gateway, _running } = Listening::start(backend.source().await);
    let proxy = backend.vhost.proxy().await;
    let bus = RabbitBus::new(backend.vhost.link_through(&proxy).await);
    for round in 1..=3 {
        bus.publish(vec![numbered(1, round)]).await.unwrap();
        proxy.accept(false);
        proxy.cut();
        let fails = async { while bus.publish(vec![numbered(2, round)]).await.is_ok() {} };
        timeout(PATIENCE, fails).await.unwrap();
        proxy.accept(true);
        publish_at_last(&bus, &numbered(3, round)).await;
        gateway.hears_of(&numbered(3, round)).await;
    }
}

#[tokio::test]
async fn a_broker_that_says_nothing_holds_nobody_up_for_long() {
    let backend = Rabbitmq::fresh().await;
    let Listening { gateway, _running } = Listening::start(backend.source().await);
    let proxy = backend.vhost.proxy().await;
    let bus = RabbitBus::new(backend.vhost.link_through(&proxy).await);
    let before = numbered(8, 1);
    bus.publish(vec![before.clone()]).await.unwrap();
    proxy.silence(true);
    let all = join_all((0..3).map(|publisher| bus.publish(vec![numbered(publisher, 1)])));
    let outcomes = timeout(PATIENCE, all).await.unwrap();
    assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
    proxy.silence(false);
    let after = numbered(9, 1);
    publish_at_last(&bus, &after).await;
    gateway.hears_of(&before).await;
    gateway.hears_of(&after).await;
}

#[tokio::test]
async fn what_cannot_be_read_counts_as_missed() {
    let backend = Rabbitmq::fresh().await;
    let Listening { gateway, _running } = Listening::start(backend.source().await);
    let link = backend.vhost.link().await;
    let channel = link.channel().await.unwrap();
    for garbage in [&b""[..], b"\x02 of a later version, with a header of its length", &[0xc1; 99]] {
        let options = BasicPublishOptions::default();
        let published =
            channel.basic_publish("events".into(), "".into(), options, garbage, BasicProperties::default()).await;
        published.unwrap();
    }
    gateway.misses(1).await;
    let bus = backend.bus().await;
    bus.publish(events(1, 1, 1)).await.unwrap();
    assert_eq!(gateway.hears(3).await, events(1, 1, 1));
}
