//! Tasks of the embedded queue that go to a consumer of the same process without a row.

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::super::{SqliteQueue, SqliteQueueOptions};
use super::*;
use crate::server::sqlite::holder::Holder;
use crate::server::sqlite::testing::TempDatabase;

const MAX_DEPTH: usize = 1000;

type Answer = oneshot::Receiver<Result<(), QueueError>>;

async fn open(database: &TempDatabase, hand_over: bool) -> SqliteQueue {
    let data_dir = database.directory().to_owned();
    let holder = Arc::new(Holder::register(&data_dir, "test").unwrap());
    let lease = Duration::from_secs(3600);
    let options = SqliteQueueOptions { data_dir, shards: 1, max_depth: MAX_DEPTH, lease, hand_over };
    SqliteQueue::open(database.open_again(), options, holder).await.unwrap()
}

fn enqueue(queue: &SqliteQueue, text: &str) -> Answer {
    let (confirm, answer) = oneshot::channel();
    queue.enqueue(LANE, payload(text), Box::new(move |outcome| confirm.send(outcome).unwrap())).unwrap();
    answer
}

fn enqueue_many(queue: &SqliteQueue, range: std::ops::Range<usize>) -> Vec<Answer> {
    numbered(range).map(|text| enqueue(queue, &text)).collect()
}

async fn confirmed(answer: Answer) {
    timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap();
}

/// Whoever takes them does what the worker does.
fn done(consumer: &mut dyn Consumer, deliveries: Vec<Delivery>) {
    consumer.acknowledge(&tags(&deliveries));
    deliveries.into_iter().filter_map(|delivery| delivery.unconfirmed).for_each(super::super::Unconfirmed::confirm);
}

/// A consumer that has looked into the table.
async fn ready(queue: &SqliteQueue) -> Box<dyn Consumer> {
    let mut consumer = queue.consume(LANE, MAX_DEPTH).await.unwrap();
    expect_nothing(&mut *consumer).await;
    consumer
}

#[tokio::test]
async fn the_one_who_works_on_it_confirms_it() {
    let database = TempDatabase::new();
    let queue = open(&database, true).await;
    let mut consumer = ready(&queue).await;
    let mut answer = enqueue(&queue, "now");
    let deliveries = expect(&mut *consumer, ["now".to_owned()]).await;
    assert!(deliveries[0].unconfirmed.is_some() && !deliveries[0].redelivered);
    let looker = SqliteQueue::look(database.open_again(), database.directory().to_owned()).await.unwrap();
    let depths = (stats_of(&queue, LANE).await.depth, stats_of(&looker, LANE).await.depth);
    assert_eq!(depths, (1, 0), "it has no row");
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty), "nobody has kept it");
    done(&mut *consumer, deliveries);
    assert_eq!(answer.try_recv(), Ok(Ok(())));
}

#[tokio::test]
async fn without_a_consumer_here_it_gets_a_row() {
    let database = TempDatabase::new();
    let queue = open(&database, true).await;
    confirmed(enqueue(&queue, "before")).await;
    let mut consumer = queue.consume(LANE, MANY).await.unwrap();
    let deliveries = expect(&mut *consumer, ["before".to_owned()]).await;
    assert!(deliveries[0].unconfirmed.is_none());
    drop((deliveries, consumer));
    confirmed(enqueue(&queue, "after")).await;
    assert_eq!(stats_of(&queue, LANE).await.depth, 2);
}

#[tokio::test]
async fn what_was_written_before_comes_first() {
    let database = TempDatabase::new();
    let queue = open(&database, true).await;
    let before = enqueue_many(&queue, 0..100);
    let mut consumer = queue.consume(LANE, MANY).await.unwrap();
    let meanwhile = enqueue_many(&queue, 100..200);
    let deliveries = expect(&mut *consumer, numbered(0..200)).await;
    let has_row: Vec<bool> = deliveries.iter().map(|delivery| delivery.unconfirmed.is_none()).collect();
    assert_eq!(has_row, [[true; 100], [false; 100]].concat());
    done(&mut *consumer, deliveries);
    for answer in before.into_iter().chain(meanwhile) {
        confirmed(answer).await;
    }
    expect_nothing(&mut *consumer).await;
    let at_last = enqueue(&queue, "at last");
    let deliveries = expect(&mut *consumer, ["at last".to_owned()]).await;
    assert!(deliveries[0].unconfirmed.is_some(), "the short way is open");
    done(&mut *consumer, deliveries);
    confirmed(at_last).await;
    until_depth(&queue, LANE, 0).await;
}

/// A row would outlive what was handed over before it.
#[tokio::test]
async fn nothing_gets_a_row_while_something_before_it_is_in_memory_alone() {
    let database = TempDatabase::new();
    let queue = open(&database, true).await;
    let mut consumer = ready(&queue).await;
    let first = enqueue(&queue, "first");
    let in_hand = expect(&mut *consumer, ["first".to_owned()]).await;
    drop(consumer);
    let refused = queue.enqueue(LANE, payload("second"), Box::new(|_| ()));
    assert!(matches!(refused, Err(QueueError::Unavailable(_))), "{refused:?}");
    for delivery in in_hand {
        delivery.unconfirmed.unwrap().confirm();
    }
    confirmed(first).await;
    confirmed(enqueue(&queue, "second")).await;
    assert_eq!(stats_of(&queue, LANE).await.depth, 1);
}

#[tokio::test]
async fn what_waits_in_memory_is_bounded_by_number_and_by_bytes() {
    let database = TempDatabase::new();
    let queue = open(&database, true).await;
    let mut consumer = ready(&queue).await;
    let large = "x".repeat(1 << 20);
    let answers: Vec<Answer> = (0..16).map(|_| enqueue(&queue, &large)).collect();
    assert_eq!(queue.enqueue(LANE, payload("more"), Box::new(|_| ())), Err(QueueError::Overloaded));
    let deliveries = take(&mut *consumer, 16).await;
    let small = enqueue_many(&queue, 0..MAX_DEPTH - 16);
    assert_eq!(queue.enqueue(LANE, payload("more"), Box::new(|_| ())), Err(QueueError::Overloaded));
    done(&mut *consumer, deliveries);
    let deliveries = expect(&mut *consumer, numbered(0..MAX_DEPTH - 16)).await;
    done(&mut *consumer, deliveries);
    for answer in answers.into_iter().chain(small) {
        confirmed(answer).await;
    }
}

#[tokio::test]
async fn a_consumer_that_ends_refuses_what_it_was_handed() {
    let database = TempDatabase::new();
    let queue = open(&database, true).await;
    let mut consumer = ready(&queue).await;
    let answers = enqueue_many(&queue, 0..4);
    let taken = expect(&mut *consumer, numbered(0..2)).await;
    drop((taken, consumer));
    for answer in answers {
        let outcome = timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert!(matches!(outcome, Err(QueueError::Unavailable(_))), "{outcome:?}");
    }
    expect_nothing(&mut *queue.consume(LANE, MANY).await.unwrap()).await;
}

#[tokio::test]
async fn who_stops_takes_along_what_only_it_knows_of() {
    let database = TempDatabase::new();
    let queue = open(&database, true).await;
    let mut consumer = ready(&queue).await;
    let answers = enqueue_many(&queue, 0..4);
    let taken = expect(&mut *consumer, numbered(0..2)).await;
    let left = consumer.take_the_unkept();
    assert_eq!(texts(&left), ["2", "3"]);
    done(&mut *consumer, taken);
    done(&mut *consumer, left);
    for answer in answers {
        confirmed(answer).await;
    }
    confirmed(enqueue(&queue, "later")).await;
    assert_eq!(stats_of(&queue, LANE).await.depth, 1, "for the next owner");
}

#[tokio::test]
async fn who_stops_takes_nothing_along_that_comes_after_rows() {
    let database = TempDatabase::new();
    // Left behind by a gateway without workers, and more than the consumer may have at once.
    for answer in enqueue_many(&open(&database, false).await, 0..4) {
        confirmed(answer).await;
    }
    let queue = open(&database, true).await;
    let mut consumer = queue.consume(LANE, 2).await.unwrap();
    let taken = take(&mut *consumer, 2).await;
    let answer = enqueue(&queue, "4");
    assert!(consumer.take_the_unkept().is_empty());
    let outcome = timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert!(matches!(outcome, Err(QueueError::Unavailable(_))), "{outcome:?}");
    done(&mut *consumer, taken);
    confirmed(enqueue(&queue, "again")).await;
    drop(consumer);
    let mut next = queue.consume(LANE, MANY).await.unwrap();
    expect(&mut *next, ["2", "3", "again"].map(str::to_owned)).await;
}

#[tokio::test]
async fn tasks_of_another_process_have_their_turn_among_them() {
    let database = TempDatabase::new();
    let (queue, other) = (open(&database, true).await, open(&database, false).await);
    let mut consumer = ready(&queue).await;
    confirmed(enqueue(&other, "from elsewhere")).await;
    let turn = async {
        loop {
            let answer = enqueue(&queue, "from here");
            let deliveries = take(&mut *consumer, 1).await;
            let is_it = texts(&deliveries) == ["from elsewhere"];
            done(&mut *consumer, deliveries);
            if is_it {
                let deliveries = expect(&mut *consumer, ["from here".to_owned()]).await;
                done(&mut *consumer, deliveries);
            }
            confirmed(answer).await;
            if is_it {
                return;
            }
        }
    };
    timeout(PATIENCE, turn).await.unwrap();
}
