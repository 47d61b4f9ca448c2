//! Declares a topology, and says how a broker's differs from it.

use lapin::Channel;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use super::present::{self, Looked};
use super::{Exchange, Queue, Topology, shard_queue};
use crate::server::rabbitmq::{Link, Unavailable};

#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    #[error("the built-in schema/rabbitmq/topology.yaml: {0}")]
    File(String),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("the broker's queues and exchanges are not what this version needs: {}", list(.0))]
    Differs(Vec<Difference>),
    #[error("{0}")]
    NotEmpty(String),
}

impl From<lapin::Error> for TopologyError {
    fn from(error: lapin::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

/// How something on the broker differs from the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `queue db_tasks.0`.
    pub name: String,
    /// What is there, and what should be.
    pub what: String,
    pub kind: DifferenceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    /// An exchange or a queue that is not there yet.
    Missing,
    /// A binding that is not there; its queue and its exchange are.
    Unbound,
    /// What is there is another.
    Different,
}

impl Difference {
    /// `None` if it is as it should be.
    pub(super) fn of(name: String, looked: Looked) -> Option<Self> {
        let (kind, what) = match looked {
            Looked::AsItShouldBe => return None,
            Looked::Missing => (DifferenceKind::Missing, "is missing".to_owned()),
            Looked::Different(what) => (DifferenceKind::Different, what),
        };
        Some(Self { name, what, kind })
    }

    /// Whether it is only not there yet.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.kind == DifferenceKind::Missing
    }
}

fn list(differences: &[Difference]) -> String {
    let lines: Vec<_> = differences.iter().map(|found| format!("{}: {}", found.name, found.what)).collect();
    lines.join("; ")
}

/// Compares the broker with `topology` and changes nothing.
///
/// Bindings are not compared, because AMQP can't ask for them: see [`super::unbound`].
///
/// Errors: [`TopologyError::Differs`] with everything that differs.
pub async fn verify(link: &Link, topology: &Topology) -> Result<(), TopologyError> {
    let mut differences = Vec::new();
    let mut looker = present::Looker::new(link).await?;
    for exchange in &topology.exchanges {
        let looked = looker.exchange(exchange).await?;
        differences.extend(Difference::of(format!("exchange {}", exchange.name), looked));
    }
    for queue in &topology.queues {
        let looked = looker.queue(queue).await?;
        differences.extend(Difference::of(format!("queue {}", queue.name), looked));
    }
    let beyond = shard_queue(topology.shards);
    if looker.count(&beyond).await?.is_some() {
        let what = format!("is there, and queue.shards is {}", topology.shards);
        differences.push(Difference { name: format!("queue {beyond}"), what, kind: DifferenceKind::Different });
    }
    if differences.is_empty() { Ok(()) } else { Err(TopologyError::Differs(differences)) }
}

pub(super) async fn bind(channel: &Channel, queue: &Queue, exchange: &str, key: &str) -> Result<(), Unavailable> {
    let options = QueueBindOptions { nowait: false };
    let bound =
        channel.queue_bind(queue.name.as_str().into(), exchange.into(), key.into(), options, FieldTable::default());
    Ok(bound.await?)
}

pub(super) fn queue_options(queue: &Queue) -> QueueDeclareOptions {
    QueueDeclareOptions {
        passive: false,
        durable: queue.durable,
        exclusive: queue.exclusive,
        // A queue of tasks is nobody's to delete by leaving.
        auto_delete: false,
        // The answer is what we are after.
        nowait: false,
    }
}

pub(super) fn exchange_options(exchange: &Exchange) -> ExchangeDeclareOptions {
    ExchangeDeclareOptions {
        passive: false,
        durable: exchange.durable,
        auto_delete: false,
        // Publishers name it.
        internal: false,
        nowait: false,
    }
}

/// Declares and binds a queue of a gateway on the gateway's own channel.
pub async fn declare_gateway_queue(channel: &Channel, queue: &Queue) -> Result<(), Unavailable> {
    let name = queue.name.as_str().into();
    channel.queue_declare(name, queue_options(queue), queue.amqp_arguments()).await?;
    for binding in &queue.bindings {
        bind(channel, queue, &binding.exchange, &binding.key).await?;
    }
    Ok(())
}
