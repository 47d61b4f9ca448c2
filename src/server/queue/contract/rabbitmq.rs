//! Processes with ways of their own to the broker, which end without goodbye when they are killed.

mod dead_letters;
mod faults;
mod named;
mod shards;
mod throughput;

use super::super::{RabbitQueue, RabbitQueueOptions};
use super::*;
use crate::server::rabbitmq::Link;
use crate::server::rabbitmq::testing::{Proxy, Vhost};
use crate::server::rabbitmq::topology::{ReplaceOptions, Topology, Values, migrate};

pub struct Rabbitmq {
    vhost: Arc<Vhost>,
}

pub struct RabbitProcess {
    queue: RabbitQueue,
    proxy: Proxy,
}

pub(super) fn topology(settings: Settings) -> Topology {
    let values = Values {
        shards: settings.shards,
        max_depth: settings.max_depth as u64,
        delivery_limit: 1000,
        search_timeout: Duration::from_secs(2),
        events_backlog: 1000,
    };
    Topology::new(&values).unwrap()
}

pub(super) async fn options(vhost: &Vhost, proxy: &Proxy) -> RabbitQueueOptions {
    let config = vhost.config_through(proxy);
    RabbitQueueOptions {
        publishing: Link::open(&config, "test, publishing").await.unwrap(),
        consuming: Link::open(&config, "test, consuming").await.unwrap(),
        management: Some(vhost.management()),
        publish_window: 10_000,
    }
}

pub(super) async fn migrate_to(vhost: &Vhost, topology: &Topology) {
    let options = ReplaceOptions { deadline: PATIENCE };
    migrate(&vhost.link().await, topology, None, &options, &mut |_| {}).await.unwrap();
}

#[async_trait]
impl Backend for Rabbitmq {
    type Process = RabbitProcess;

    // A publisher is told that a queue is full after it is, and goes on until it has heard of it.
    const EXCESS: usize = 5;
    const TELLS_AGE: bool = false;

    async fn fresh() -> Self {
        Self { vhost: Arc::new(Vhost::make().await) }
    }

    async fn open(&self, settings: Settings) -> Result<RabbitProcess, QueueError> {
        let topology = topology(settings);
        if self.vhost.management().queues().await.unwrap().is_empty() {
            migrate_to(&self.vhost, &topology).await;
        }
        let proxy = self.vhost.proxy().await;
        let queue = RabbitQueue::open(&topology, options(&self.vhost, &proxy).await).await?;
        Ok(RabbitProcess { queue, proxy })
    }

    async fn after_kill(self) -> Self {
        self
    }
}

#[async_trait]
impl Process for RabbitProcess {
    fn queue(&self) -> Arc<dyn TaskQueue> {
        Arc::new(self.queue.clone())
    }

    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::new(self.queue.clone())
    }

    async fn kill(self, consumers: Vec<Box<dyn Consumer>>) {
        self.proxy.accept(false);
        self.proxy.cut();
        // Nothing of theirs gets through any more.
        drop(consumers);
    }
}
