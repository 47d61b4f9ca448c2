//! Declares a topology, and says how a broker's differs from it.

use lapin::Channel;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use super::present::{self, Looked};
use super::{Declaration, Exchange, Queue, Topology, shard_queue};
use crate::server::rabbitmq::{Link, Unavailable};

#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    #[error("the built-in schema/rabbitmq/topology.yaml: {0}")]
    File(String),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("the broker's queues and exchanges are not what this version needs: {}; run `aula migrate`", list(.0))]
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
}

impl Difference {
    /// Whether it is only not there yet.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.what == present::MISSING
    }
}

fn list(differences: &[Difference]) -> String {
    let lines: Vec<_> = differences.iter().map(|found| format!("{}: {}", found.name, found.what)).collect();
    lines.join("; ")
}

/// Compares the broker with `topology` and changes nothing.
///
/// Bindings are not compared: AMQP can't ask for them. A publish that meets a missing one is returned.
///
/// Errors: [`TopologyError::Differs`] with everything that differs.
pub async fn verify(link: &Link, topology: &Topology) -> Result<(), TopologyError> {
    let mut differences = Vec::new();
    let mut looker = present::Looker::new(link).await?;
    for exchange in &topology.exchanges {
        if let Some(what) = looker.exchange(exchange).await?.difference() {
            differences.push(Difference { name: format!("exchange {}", exchange.name), what });
        }
    }
    for queue in &topology.queues {
        if let Some(what) = looker.queue(queue).await?.difference() {
            differences.push(Difference { name: format!("queue {}", queue.name), what });
        }
    }
    let beyond = shard_queue(topology.shards);
    if looker.count(&beyond).await?.is_some() {
        let what = format!("is there, and queue.shards is {}", topology.shards);
        differences.push(Difference { name: format!("queue {beyond}"), what });
    }
    if differences.is_empty() { Ok(()) } else { Err(TopologyError::Differs(differences)) }
}

/// Declares all that is missing, and takes queues of shards as they come: see `replace`. Idempotent.
///
/// Errors: [`TopologyError::Differs`] if something is there and is different; it stays as it is.
pub(super) async fn declare(link: &Link, topology: &Topology) -> Result<(), TopologyError> {
    let mut looker = present::Looker::new(link).await?;
    let mut differences = Vec::new();
    for declaration in topology.declarations() {
        let (name, looked) = match declaration {
            Declaration::Exchange(exchange) => {
                (format!("exchange {}", exchange.name), looker.declare_exchange(exchange).await?)
            }
            Declaration::Queue(queue) => (format!("queue {}", queue.name), looker.declare_queue(queue).await?),
            // What is different must not be reached by publishers.
            Declaration::Binding(..) if !differences.is_empty() => continue,
            Declaration::Binding(queue, binding) => {
                bind(looker.channel(), queue, &binding.exchange, &binding.key).await?;
                continue;
            }
        };
        if let Looked::Different(what) = looked {
            differences.push(Difference { name, what });
        }
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
