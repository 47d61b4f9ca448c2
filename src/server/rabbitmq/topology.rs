//! Exchanges, queues and bindings, as `schema/rabbitmq/topology.yaml` has them.

mod apply;
mod bindings;
mod filled;
mod operations;
pub mod present;
mod replace;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::types::{AMQPValue, FieldTable};
use serde::Deserialize;

pub use self::apply::{Difference, DifferenceKind, TopologyError, declare_gateway_queue, verify};
pub use self::bindings::unbound;
use self::filled::fill;
pub use self::operations::{Operation, operations};
pub use self::replace::{Progress, ReplaceOptions, bind_all, migrate, present_shards};
use crate::config::Config;

const FILE: &str = include_str!("../../../schema/rabbitmq/topology.yaml");

/// The exchange and the queues of what changes channels.
pub const DB_TASKS: &str = "db_tasks";
/// The exchange that takes what can't be worked on; its key is the name of the family.
pub const DEAD_LETTERS: &str = "dead_letters";

/// What the placeholders of the file stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    pub shards: u16,
    /// Tasks that may wait in all shards of db_tasks together.
    pub max_depth: u64,
    pub delivery_limit: u32,
    pub search_timeout: Duration,
    pub events_backlog: u32,
}

impl Values {
    #[must_use]
    pub fn configured(config: &Config) -> Self {
        Self {
            shards: config.queue.shard_count(),
            max_depth: config.queue.max_depth,
            delivery_limit: config.rabbitmq.delivery_limit,
            search_timeout: config.search.timeout,
            events_backlog: config.rabbitmq.events_backlog,
        }
    }
}

/// The topology of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Of the file.
    pub version: u32,
    pub shards: u16,
    pub exchanges: Vec<Exchange>,
    /// Those of all, in the order in which they are declared.
    pub queues: Vec<Queue>,
    gateway_queues: Vec<Queue>,
    values: Values,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub durable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Direct,
    Fanout,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
        }
    }

    fn amqp(self) -> ExchangeKind {
        match self {
            Self::Direct => ExchangeKind::Direct,
            Self::Fanout => ExchangeKind::Fanout,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    pub name: String,
    #[serde(default)]
    each: Option<Each>,
    pub durable: bool,
    /// For one connection alone, and gone with it.
    #[serde(default)]
    pub exclusive: bool,
    pub arguments: BTreeMap<String, Argument>,
    pub bindings: Vec<Binding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Each {
    Shard,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Argument {
    Flag(bool),
    Number(i64),
    Text(String),
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    pub exchange: String,
    pub key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    exchanges: Vec<Exchange>,
    queues: Vec<Queue>,
    gateway_queues: Vec<Queue>,
}

/// One thing to declare; its text is what `aula migrate plan` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declaration<'t> {
    Exchange(&'t Exchange),
    Queue(&'t Queue),
    Binding(&'t Queue, &'t Binding),
}

impl Topology {
    /// The file with `values` in its placeholders.
    ///
    /// Errors: the file that is built in is wrong, which a test rules out.
    pub fn new(values: &Values) -> Result<Self, TopologyError> {
        let file: File = serde_saphyr::from_str(FILE).map_err(|error| TopologyError::File(error.to_string()))?;
        let mut queues = Vec::new();
        for queue in &file.queues {
            match queue.each {
                None => queues.push(fill(queue, values, None, None)?),
                Some(Each::Shard) => {
                    for shard in 0..values.shards {
                        queues.push(fill(queue, values, Some(shard), None)?);
                    }
                }
            }
        }
        Ok(Self {
            version: file.version,
            shards: values.shards,
            exchanges: file.exchanges,
            queues,
            gateway_queues: file.gateway_queues,
            values: values.clone(),
        })
    }

    /// The queue of a gateway whose name begins with `prefix` (`events`, `search_results`).
    pub fn gateway_queue(&self, prefix: &str, gateway: &str) -> Result<Queue, TopologyError> {
        let pattern = format!("{prefix}.${{gateway}}");
        let queue = self.gateway_queues.iter().find(|queue| queue.name == pattern);
        let queue = queue.ok_or_else(|| TopologyError::File(format!("no gateway queue {pattern}")))?;
        fill(queue, &self.values, None, Some(gateway))
    }

    /// In the order in which they have to be done.
    pub fn declarations(&self) -> impl Iterator<Item = Declaration<'_>> {
        let queues = self.queues.iter().map(Declaration::Queue);
        let bindings = self
            .queues
            .iter()
            .flat_map(|queue| queue.bindings.iter().map(move |binding| Declaration::Binding(queue, binding)));
        self.exchanges.iter().map(Declaration::Exchange).chain(queues).chain(bindings)
    }
}

/// `db_tasks.3` is that of shard 3.
fn is_of_shard(queue: &Queue) -> bool {
    let number = queue.name.strip_prefix(DB_TASKS).and_then(|rest| rest.strip_prefix('.'));
    number.is_some_and(|number| number.parse::<u16>().is_ok())
}

/// The queue of a shard of db_tasks.
pub fn shard_queue(shard: u16) -> String {
    format!("{DB_TASKS}.{shard}")
}

impl Queue {
    /// As AMQP has them.
    #[must_use]
    pub fn amqp_arguments(&self) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, argument) in &self.arguments {
            let value = match argument {
                Argument::Flag(flag) => AMQPValue::Boolean(*flag),
                Argument::Number(number) => AMQPValue::LongLongInt(*number),
                Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            };
            table.insert(name.as_str().into(), value);
        }
        table
    }
}

impl fmt::Display for Declaration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(exchange) => {
                write!(f, "declare {} exchange {}", exchange.kind.as_str(), exchange.name)?;
                f.write_str(if exchange.durable { " (durable)" } else { "" })
            }
            Self::Queue(queue) => {
                write!(f, "declare queue {}", queue.name)?;
                f.write_str(if queue.durable { " (durable)" } else { "" })?;
                for (place, (name, argument)) in queue.arguments.iter().enumerate() {
                    write!(f, "{} {name}={argument}", if place == 0 { " with" } else { "," })?;
                }
                Ok(())
            }
            Self::Binding(queue, binding) => {
                write!(f, "bind queue {} to exchange {} by key \"{}\"", queue.name, binding.exchange, binding.key)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
