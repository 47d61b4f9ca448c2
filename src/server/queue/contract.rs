//! What every [`TaskQueue`] must do, whatever is behind it. A new backend implements [`Backend`] and adds one line at
//! the end of the list.

mod consumers;
mod dead_letters;
mod handed_over;
mod model;
mod producers;
mod rabbitmq;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::timeout;

use super::{
    Confirm, Consumer, DeadLetters, Delivery, Family, Lane, LaneStats, QueueError, TaskQueue, enqueue_confirmed,
};

/// Queues under test, which several processes may have open.
#[async_trait]
pub trait Backend: Send + Sync + Sized + 'static {
    type Process: Process;

    /// Tasks beyond `max_depth` that may be taken before the rest is refused.
    const EXCESS: usize;
    /// Whether the age of tasks that nobody consumes is told.
    const TELLS_AGE: bool;

    /// Empty ones.
    async fn fresh() -> Self;

    /// One more process that has them open.
    async fn open(&self, settings: Settings) -> Result<Self::Process, QueueError>;

    /// As the next processes find them after `kill -9` of all that have them open.
    async fn after_kill(self) -> Self;
}

#[async_trait]
pub trait Process: Send + Sync {
    fn queue(&self) -> Arc<dyn TaskQueue>;

    fn dead_letters(&self) -> Arc<dyn DeadLetters>;

    /// What it does when it is killed: nothing any more. `consumers` are its own, all of them.
    async fn kill(self, consumers: Vec<Box<dyn Consumer>>);
}

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub shards: u16,
    pub max_depth: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { shards: 2, max_depth: 100_000 }
    }
}

/// One `#[tokio::test]` for each sentence of the contract, and the comparison with the model.
macro_rules! contract_of {
    ($module:ident, $backend:ty) => {
        contract_of!(@ $module, $backend, [
            producers: tasks_come_in_the_order_they_were_enqueued,
            producers: lanes_are_apart,
            producers: any_payload_comes_back_as_it_was,
            producers: a_confirmed_task_survives_a_kill,
            producers: two_processes_share_their_lanes,
            producers: two_processes_enqueue_at_once_and_nothing_is_lost,
            producers: too_many_tasks_are_refused,
            producers: there_is_room_again_when_another_process_has_acknowledged,
            producers: stats_tell_what_waits,
            consumers: a_batch_waits_for_its_first_task,
            consumers: what_was_not_acknowledged_is_delivered_again,
            consumers: what_was_acknowledged_is_not,
            consumers: tasks_are_acknowledged_in_any_order,
            consumers: no_more_than_the_prefetch_is_handed_out,
            consumers: a_dropped_call_loses_nothing,
            consumers: dead_letters_are_set_aside,
            consumers: a_lane_has_one_consumer,
            consumers: a_second_consumer_takes_over_from_a_dropped_one,
            consumers: a_second_process_takes_over_from_a_killed_one,
            consumers: whoever_gives_up_waiting_leaves_the_lane_to_others,
            dead_letters: a_walk_sees_them_in_order_and_changes_nothing,
            dead_letters: what_is_put_back_comes_at_the_end_of_its_lane_as_a_repetition,
            dead_letters: only_what_is_removed_is_gone,
            dead_letters: a_walk_ends_though_what_it_puts_back_dies_again,
            dead_letters: a_kill_while_tasks_are_put_back_loses_none,
        ]);
    };
    (@ $module:ident, $backend:ty, [$($part:ident: $test:ident),* $(,)?]) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$part::$test::<$backend>().await;
                }
            )*

            #[test]
            fn it_does_what_the_model_does() {
                super::model::compare::<$backend>();
            }
        }
    };
}

contract_of!(on_sqlite, super::sqlite::Sqlite);
contract_of!(on_rabbitmq, super::rabbitmq::Rabbitmq);

/// More than anything takes that is going to happen at all.
const PATIENCE: Duration = Duration::from_secs(10);
/// To see that something does not happen.
const A_MOMENT: Duration = Duration::from_millis(150);
const MANY: usize = 1000;

const LANE: Lane = Lane { family: Family::DbTasks, shard: 0 };

fn lane(shard: u16) -> Lane {
    Lane { family: Family::DbTasks, shard }
}

fn payload(text: impl AsRef<str>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref().as_bytes())
}

/// Enqueues without waiting in between, then waits for all confirms.
async fn enqueue_all(queue: &dyn TaskQueue, lane: Lane, texts: impl IntoIterator<Item = String>) {
    let mut confirms = Vec::new();
    for text in texts {
        let (confirm, confirmed) = tokio::sync::oneshot::channel();
        queue.enqueue(lane, payload(text), Box::new(move |result| confirm.send(result).unwrap())).unwrap();
        confirms.push(confirmed);
    }
    for confirmed in confirms {
        timeout(PATIENCE, confirmed).await.unwrap().unwrap().unwrap();
    }
}

fn numbered(range: std::ops::Range<usize>) -> impl Iterator<Item = String> + Clone {
    range.map(|n| n.to_string())
}

/// Takes a lane that nobody has.
async fn consume(queue: &dyn TaskQueue, lane: Lane) -> Box<dyn Consumer> {
    consume_with(queue, lane, MANY).await
}

/// A backend may hand over an empty lane only with its first task: then there is one for that, which leaves no trace.
async fn consume_with(queue: &dyn TaskQueue, lane: Lane, prefetch: usize) -> Box<dyn Consumer> {
    // What an earlier consumer had in hand counts again when that has gone.
    let free = async {
        loop {
            let stats = stats_of(queue, lane).await;
            if stats.consumer.is_none() {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let is_empty = timeout(PATIENCE, free).await.unwrap().depth == 0;
    let mut consume = queue.consume(lane, prefetch);
    let patience = if is_empty { A_MOMENT } else { PATIENCE };
    if let Ok(consumer) = timeout(patience, &mut consume).await {
        return consumer.unwrap();
    }
    assert!(is_empty, "a lane that nobody has is there to be taken");
    const FIRST: &str = "the first task of an empty lane";
    let consume_first = async {
        let mut consumer = consume.await.unwrap();
        let first = take(&mut *consumer, 1).await;
        assert_eq!(texts(&first), [FIRST]);
        consumer.acknowledge(&tags(&first));
        consumer
    };
    let (consumer, ()) =
        futures_util::future::join(timeout(PATIENCE, consume_first), enqueue_all(queue, lane, [FIRST.into()])).await;
    consumer.unwrap()
}

/// Exactly the next `count` tasks, in whatever batches they come.
async fn take(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let max = count - taken.len();
        let batch = timeout(PATIENCE, consumer.next_batch(max)).await.unwrap().unwrap();
        assert!(!batch.is_empty() && batch.len() <= max, "{} of at most {max}", batch.len());
        taken.extend(batch);
    }
    taken
}

fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| String::from_utf8(delivery.payload.to_vec()).unwrap()).collect()
}

fn tags(deliveries: &[Delivery]) -> Vec<super::Tag> {
    deliveries.iter().map(|delivery| delivery.tag).collect()
}

async fn expect(consumer: &mut dyn Consumer, expected: impl IntoIterator<Item = String>) -> Vec<Delivery> {
    let expected: Vec<String> = expected.into_iter().collect();
    let taken = take(consumer, expected.len()).await;
    assert_eq!(texts(&taken), expected);
    taken
}

async fn expect_nothing(consumer: &mut dyn Consumer) {
    let got = timeout(A_MOMENT, consumer.next_batch(MANY)).await;
    assert!(got.is_err(), "{got:?}");
}

async fn stats_of(queue: &dyn TaskQueue, lane: Lane) -> LaneStats {
    let stats = queue.stats().await.unwrap();
    stats.into_iter().find(|stats| stats.queue == lane.family.as_str() && stats.shard == lane.shard).unwrap()
}

/// Acknowledgements are not waited for; a test that goes on to a kill has to.
async fn until_depth(queue: &dyn TaskQueue, lane: Lane, depth: u64) {
    let reached = async {
        while stats_of(queue, lane).await.depth != depth {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap();
}
