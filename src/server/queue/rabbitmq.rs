//! The distributed queue: quorum queues of RabbitMQ, as `schema/rabbitmq/topology.yaml` declares them.
//!
//! A task is published once and never again by itself: whoever gets no confirm is told that its outcome is unknown, and
//! repeats it as a repetition. A consumer lives as long as its AMQP channel; after that nothing of it reaches the broker.

mod consumer;
mod dead_letters;
mod publisher;
mod stats;
mod tracker;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use parking_lot::Mutex;
use tokio::time::timeout;

use self::consumer::{RabbitConsumer, Taken};
use self::publisher::{Publish, Publisher};
use super::{Confirm, Consumer, Family, Flows, Lane, LaneStats, QueueError, TaskQueue};
use crate::server::rabbitmq::management::Management;
use crate::server::rabbitmq::topology::{self, DB_TASKS, Topology, TopologyError, shard_queue};
use crate::server::rabbitmq::{Link, Unavailable};

/// Lanes of a family without shards: one queue, which several consumers share.
const SHARED: u16 = 1;
/// For a round trip with the broker.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For the management interface, when a probe waits for it: it is not needed for any task.
const BINDINGS_TIMEOUT: Duration = Duration::from_secs(1);

/// What the queue works with.
pub struct RabbitQueueOptions {
    /// For publishing alone, see [`crate::server::rabbitmq`].
    pub publishing: Link,
    /// For consuming, and for looking.
    pub consuming: Link,
    /// For what AMQP doesn't tell.
    pub management: Option<Management>,
    /// Tasks of db_tasks that wait for the broker's confirm; one more is [`QueueError::Overloaded`].
    pub publish_window: usize,
}

/// The queues of a deployment. Clones share them.
#[derive(Clone)]
pub struct RabbitQueue {
    inner: Arc<Inner>,
}

struct Inner {
    shards: u16,
    /// `<N>.<shard>` of each shard.
    keys: Vec<String>,
    options: RabbitQueueOptions,
    publisher: Publisher,
    /// The lanes that this process consumes.
    taken: Mutex<HashMap<Lane, Weak<Taken>>>,
}

impl RabbitQueue {
    /// Uses the queues of `topology`, which must be on the broker already.
    ///
    /// Errors: [`QueueError::Unavailable`], in words, if the broker can't be reached or its topology is another one.
    pub async fn open(topology: &Topology, options: RabbitQueueOptions) -> Result<Self, QueueError> {
        topology::verify(&options.consuming, topology).await.map_err(|error| {
            let advice = if matches!(error, TopologyError::Differs(_)) { "; run `aula migrate`" } else { "" };
            QueueError::Unavailable(format!("{error}{advice}"))
        })?;
        let publisher = Publisher::start(options.publishing.clone(), options.publish_window);
        let shards = topology.shards;
        let keys = (0..shards).map(|shard| format!("{shards}.{shard}")).collect();
        Ok(Self { inner: Arc::new(Inner { shards, keys, options, publisher, taken: Mutex::default() }) })
    }
}

#[async_trait]
impl TaskQueue for RabbitQueue {
    fn shards(&self, family: Family) -> u16 {
        match family {
            Family::DbTasks => self.inner.shards,
            Family::IndexTasks | Family::SearchTasks => SHARED,
        }
    }

    fn enqueue(&self, lane: Lane, payload: Bytes, confirm: Confirm) -> Result<(), QueueError> {
        let key = match lane.family {
            Family::DbTasks => self.inner.keys.get(usize::from(lane.shard)).map(String::as_str),
            Family::IndexTasks | Family::SearchTasks => Some(lane.family.as_str()),
        };
        let key = key.ok_or_else(|| QueueError::Unavailable(format!("there is no {lane}")))?;
        let is_question = lane.family == Family::SearchTasks;
        let publish = Publish { exchange: lane.family.as_str(), key: key.into(), payload, headers: None, is_question };
        self.inner.publisher.publish(lane.family == Family::DbTasks, publish, confirm)
    }

    async fn consume(&self, lane: Lane, prefetch: usize) -> Result<Box<dyn Consumer>, QueueError> {
        let consumer =
            RabbitConsumer::take(&self.inner.options.consuming, self.inner.publisher.clone(), lane, prefetch).await?;
        self.inner.taken.lock().insert(lane, consumer.taken());
        Ok(Box::new(consumer))
    }

    async fn stats(&self) -> Result<Vec<LaneStats>, QueueError> {
        stats::collect(&self.inner).await
    }

    async fn flows(&self) -> Result<Flows, QueueError> {
        Ok(stats::flows(&self.inner).await)
    }

    async fn probe(&self) -> Result<(), QueueError> {
        let life = self.inner.options.publishing.life()?;
        if life.is_blocked() {
            return Err(QueueError::Overloaded);
        }
        self.inner.publisher.check()?;
        // A channel of its own: a question about what isn't there would close that of the publisher.
        let asked = async {
            let channel = life.channel().await?;
            let look = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            let exchange = DB_TASKS.into();
            Ok::<_, Unavailable>(
                channel.exchange_declare(exchange, ExchangeKind::Direct, look, FieldTable::default()).await?,
            )
        };
        let (answer, unbound) = tokio::join!(timeout(TIMEOUT, asked), self.inner.unbound());
        match (answer, unbound) {
            (Err(_elapsed), _) => Err(QueueError::Unavailable("RabbitMQ doesn't answer".into())),
            (Ok(Err(error)), _) => Err(error.into()),
            (Ok(Ok(())), Some(queue)) => Err(QueueError::Unavailable(format!(
                "{queue} is not bound: queue.shards is another number here, or `aula migrate` is at work or has to be run"
            ))),
            (Ok(Ok(())), None) => Ok(()),
        }
    }
}

impl Inner {
    /// A queue of db_tasks that no task would come to; `None` also if that can't be seen.
    async fn unbound(&self) -> Option<String> {
        let management = self.options.management.as_ref()?;
        let bound = match timeout(BINDINGS_TIMEOUT, management.bindings(DB_TASKS)).await {
            Ok(Ok(bound)) => bound,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the bindings can't be seen");
                return None;
            }
            Err(_elapsed) => return None,
        };
        let queues = (0..self.shards).map(shard_queue).zip(&self.keys);
        let is_bound = |queue: &str, key: &str| bound.iter().any(|b| b.leads_to(queue) && b.routing_key == key);
        queues.into_iter().find(|(queue, key)| !is_bound(queue, key)).map(|(queue, _)| queue)
    }
}

/// The name of a lane's queue.
fn queue_name(lane: Lane) -> String {
    match lane.family {
        Family::DbTasks => lane.to_string(),
        Family::IndexTasks | Family::SearchTasks => lane.family.to_string(),
    }
}

impl From<Unavailable> for QueueError {
    fn from(Unavailable(reason): Unavailable) -> Self {
        Self::Unavailable(reason)
    }
}
