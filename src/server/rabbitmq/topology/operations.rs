//! What brings a broker to a topology, in order: `aula migrate plan` shows it, and `migrate` does just that.

use std::fmt;

use super::present::{Looked, Looker};
use super::replace::{CANCELLED, present_shards};
use super::{DB_TASKS, Declaration, Topology, is_of_shard, shard_queue};
use crate::server::rabbitmq::management::Management;
use crate::server::rabbitmq::{Link, Unavailable};

/// One thing to do; its text is what `aula migrate plan` shows. A pause reads as a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation<'t> {
    Declare(Declaration<'t>),
    /// From the exchange of db_tasks. What is not bound is no error.
    Unbind {
        queue: String,
        key: String,
    },
    /// Until no task waits in the old queues, and none is in a worker's hands.
    AwaitEmpty {
        shards: u16,
    },
    Delete {
        queue: String,
    },
    /// Until the consumers of what was deleted have heard of it.
    AwaitCancelled,
}

/// All that [`super::migrate`] would do now. Changes nothing.
///
/// What is not sharded comes first: dead letters of the old queues have somewhere to go.
pub async fn operations<'t>(
    link: &Link,
    topology: &'t Topology,
    management: Option<&Management>,
) -> Result<Vec<Operation<'t>>, Unavailable> {
    let (of_shards, others): (Vec<_>, Vec<_>) = topology.declarations().partition(is_of_a_shard);
    let mut operations: Vec<Operation<'_>> = others.into_iter().map(Operation::Declare).collect();
    let mut looker = Looker::new(link).await?;
    let present = present_shards(&mut looker).await?;
    if present > 0 && !is_as_it_should_be(&mut looker, topology, present).await? {
        let ways = ways_to(present, management).await?;
        operations.extend(ways.into_iter().map(|(queue, key)| Operation::Unbind { queue, key }));
        operations.push(Operation::AwaitEmpty { shards: present });
        operations.extend((0..present).rev().map(|shard| Operation::Delete { queue: shard_queue(shard) }));
        operations.push(Operation::AwaitCancelled);
    }
    operations.extend(of_shards.into_iter().map(Operation::Declare));
    Ok(operations)
}

fn is_of_a_shard(declaration: &Declaration<'_>) -> bool {
    match declaration {
        Declaration::Exchange(_) => false,
        Declaration::Queue(queue) | Declaration::Binding(queue, _) => is_of_shard(queue),
    }
}

async fn is_as_it_should_be(looker: &mut Looker<'_>, topology: &Topology, present: u16) -> Result<bool, Unavailable> {
    if present != topology.shards {
        return Ok(false);
    }
    for queue in topology.queues.iter().filter(|queue| is_of_shard(queue)) {
        if looker.queue(queue).await? != Looked::AsItShouldBe {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Every way to the old queues that is known: queue and key.
async fn ways_to(present: u16, management: Option<&Management>) -> Result<Vec<(String, String)>, Unavailable> {
    let mut ways: Vec<(String, String)> =
        (0..present).map(|shard| (shard_queue(shard), format!("{present}.{shard}"))).collect();
    if let Some(management) = management {
        // Also those that somebody made by hand.
        for bound in management.bindings(DB_TASKS).await? {
            let is_queue = bound.is_of_queue();
            let way = (bound.destination, bound.routing_key);
            if is_queue && !ways.contains(&way) {
                ways.push(way);
            }
        }
    }
    Ok(ways)
}

impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declare(declaration) => declaration.fmt(f),
            Self::Unbind { queue, key } => write!(f, "unbind queue {queue} from exchange {DB_TASKS} by key \"{key}\""),
            Self::AwaitEmpty { shards: 1 } => write!(f, "# wait until the workers have emptied {}", shard_queue(0)),
            Self::AwaitEmpty { shards } => {
                write!(
                    f,
                    "# wait until the workers have emptied {} to {}",
                    shard_queue(0),
                    shard_queue(shards.saturating_sub(1))
                )
            }
            Self::Delete { queue } => write!(f, "delete queue {queue}"),
            Self::AwaitCancelled => write!(f, "# wait {} s", CANCELLED.as_secs()),
        }
    }
}
