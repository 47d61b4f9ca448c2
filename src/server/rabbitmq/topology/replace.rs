//! Brings a broker to a topology, also when the queues of db_tasks have to be others than they are.
//!
//! Another number of shards sends channels to other queues, and the arguments of a queue can't be changed. In both cases
//! a channel's old tasks must be done before a new one is taken, and never may two queues hold tasks of one channel. So:
//!
//! 1. The old queues are unbound. Publishes come back from now on, and clients are told to try again.
//! 2. Workers empty them.
//! 3. They are deleted, the last one first: what is there always has the numbers 0 … n-1.
//! 4. After a pause the new ones are declared, the first one first, then all are bound.
//!
//! Each step may be repeated. Whoever is stopped in between begins again and gets to the same end; so does, with the old
//! number, whoever wants to go back. Two processes must not do this at once: `aula migrate` holds its lock meanwhile.

use std::time::Duration;

use lapin::options::QueueDeleteOptions;
use lapin::types::FieldTable;
use tokio::time::{Instant, sleep};

use super::apply::{TopologyError, bind};
use super::present::{Count, Looker};
use super::{DB_TASKS, Declaration, Difference, Operation, Topology, operations, shard_queue};
use crate::server::rabbitmq::management::COUNTS_LAG;
use crate::server::rabbitmq::management::Management;
use crate::server::rabbitmq::{Link, Unavailable};

/// The pause between two looks at queues that are being emptied.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Without the management interface: publishes that were routed before their queue was unbound have arrived by then.
const SETTLED: Duration = Duration::from_secs(2);
/// Between the deletion of a queue and the declaration of one of that name. A broker (seen with 3.10) that finds the name
/// again while it tells consumers of the deletion subscribes them to the new queue instead of cancelling them, and then
/// drops what that delivers: it counts from the beginning, and seems to have come before. The lane would stand still.
pub(super) const CANCELLED: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct ReplaceOptions {
    /// For the old queues to become empty.
    pub deadline: Duration,
}

/// What a migration is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Tasks for the old queues are refused from now on.
    Refusing {
        shards: u16,
    },
    /// A queue that is not empty yet. `ready` tasks wait; `unacknowledged` are in a worker's hands, `None` if that can't
    /// be seen; `consumers` could hold some.
    Waiting {
        queue: String,
        ready: u64,
        unacknowledged: Option<u64>,
        consumers: u64,
    },
    Deleted {
        queue: String,
    },
    /// Tasks are taken again.
    Accepting {
        shards: u16,
    },
}

/// Makes the broker's topology this one. Idempotent.
///
/// Errors: [`TopologyError::Differs`] if something other than the queues of db_tasks is there and differs;
/// [`TopologyError::NotEmpty`] if these have not become empty in time: then tasks are refused until this is called
/// again, with the same or with the old number of shards.
pub async fn migrate(
    link: &Link,
    topology: &Topology,
    management: Option<&Management>,
    options: &ReplaceOptions,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), TopologyError> {
    let operations = operations(link, topology, management).await?;
    let mut looker = Looker::new(link).await?;
    let mut differences = Vec::new();
    for operation in &operations {
        // All that differs is named at once. What is different must not be reached by publishers.
        let is_declared = matches!(operation, Operation::Declare(Declaration::Exchange(_) | Declaration::Queue(_)));
        if !is_declared && !differences.is_empty() {
            break;
        }
        match operation {
            Operation::Declare(Declaration::Exchange(exchange)) => {
                let looked = looker.declare_exchange(exchange).await?;
                differences.extend(Difference::of(format!("exchange {}", exchange.name), looked));
            }
            Operation::Declare(Declaration::Queue(queue)) => {
                let looked = looker.declare_queue(queue).await?;
                differences.extend(Difference::of(format!("queue {}", queue.name), looked));
            }
            Operation::Declare(Declaration::Binding(queue, binding)) => {
                bind(looker.channel(), queue, &binding.exchange, &binding.key).await?;
            }
            Operation::Unbind { queue, key } => unbind(&looker, queue, key).await?,
            Operation::AwaitEmpty { shards } => {
                progress(Progress::Refusing { shards: *shards });
                until_empty(&mut looker, *shards, management, options, progress).await?;
            }
            Operation::Delete { queue } => {
                // It is empty and unbound; quorum queues don't know "delete if empty".
                looker.channel().queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
                progress(Progress::Deleted { queue: queue.clone() });
            }
            Operation::AwaitCancelled => sleep(CANCELLED).await,
        }
    }
    if !differences.is_empty() {
        return Err(TopologyError::Differs(differences));
    }
    progress(Progress::Accepting { shards: topology.shards });
    Ok(())
}

/// Binds the queues, which have to be there. Idempotent.
pub async fn bind_all(link: &Link, topology: &Topology) -> Result<(), TopologyError> {
    let channel = link.channel().await?;
    for queue in &topology.queues {
        for binding in &queue.bindings {
            bind(&channel, queue, &binding.exchange, &binding.key).await?;
        }
    }
    Ok(())
}

/// The number of shards that the broker has queues for.
pub async fn present_shards(looker: &mut Looker<'_>) -> Result<u16, Unavailable> {
    let mut shards = 0;
    while looker.count(&shard_queue(shards)).await?.is_some() {
        shards += 1;
    }
    Ok(shards)
}

async fn unbind(looker: &Looker<'_>, queue: &str, key: &str) -> Result<(), Unavailable> {
    let unbound = looker.channel().queue_unbind(queue.into(), DB_TASKS.into(), key.into(), FieldTable::default());
    Ok(unbound.await?)
}

/// Until no task waits in the old queues and none is in a worker's hands.
async fn until_empty(
    looker: &mut Looker<'_>,
    present: u16,
    management: Option<&Management>,
    options: &ReplaceOptions,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), TopologyError> {
    let begun = Instant::now();
    let settled = if management.is_some() { COUNTS_LAG } else { SETTLED };
    let mut told = None;
    loop {
        let full = first_not_empty(looker, present, management, begun.elapsed() >= settled).await?;
        // Nothing comes any more, but what came last may not have been counted when we looked.
        let Some(waiting) = full else { return Ok(()) };
        if begun.elapsed() >= options.deadline {
            return Err(TopologyError::NotEmpty(how_to_go_on(&waiting, present, options)));
        }
        if told.as_ref() != Some(&waiting) {
            progress(waiting.clone());
            told = Some(waiting);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// AMQP tells how many tasks are ready, and of a queue without consumers that is all. What consumers have in hand is
/// told by the management interface alone, some seconds late.
async fn first_not_empty(
    looker: &mut Looker<'_>,
    present: u16,
    management: Option<&Management>,
    is_settled: bool,
) -> Result<Option<Progress>, Unavailable> {
    // Asked first: with the counts that follow, an old zero alone doesn't pass for empty.
    let counts = match management {
        Some(management) => Some(management.queues().await?),
        None => None,
    };
    for shard in 0..present {
        let queue = shard_queue(shard);
        let Some(Count { ready, consumers }) = looker.count(&queue).await? else { continue };
        let counted = counts.as_ref().and_then(|counts| counts.get(&queue));
        let is_empty = match counted {
            Some(counted) => counted.messages == 0 && counted.messages_unacknowledged == 0,
            None => consumers == 0,
        };
        if ready > 0 || !is_empty || !is_settled {
            let unacknowledged = counted.map(|counted| counted.messages_unacknowledged);
            return Ok(Some(Progress::Waiting { queue, ready, unacknowledged, consumers }));
        }
    }
    Ok(None)
}

fn how_to_go_on(waiting: &Progress, present: u16, options: &ReplaceOptions) -> String {
    let Progress::Waiting { queue, ready, unacknowledged, consumers } = waiting else { return String::new() };
    let state = match (*ready, *unacknowledged, *consumers) {
        (0, None, _) => format!(
            "{queue} is empty, but its {consumers} consumers may have tasks in hand, which only the management \
             interface could tell: set rabbitmq.management_url, or stop the workers"
        ),
        (_, _, 0) => format!("{queue} holds {ready} tasks and nobody consumes it: start the workers"),
        (_, unacknowledged, _) => {
            let in_hand = unacknowledged.map_or_else(|| "some".to_owned(), |number| number.to_string());
            format!("{queue} holds {ready} tasks that wait and {in_hand} in the workers' hands: give them more time")
        }
    };
    format!(
        "after {} s {state}. Then run `aula migrate` again; or set queue.shards to {present} and what belongs to it back \
         and run it, to leave everything as it was. Until then sends are refused as unavailable",
        options.deadline.as_secs()
    )
}
