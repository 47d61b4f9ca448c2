//! Another number of shards, while tasks are under way.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::message::ChannelId;
use crate::server::rabbitmq::topology::{Progress, TopologyError};

const CHANNELS: usize = 24;

fn settings(shards: u16) -> Settings {
    Settings { shards, ..Settings::default() }
}

#[tokio::test]
async fn a_process_that_counts_other_shards_is_refused_in_words() {
    let backend = Rabbitmq::fresh().await;
    backend.open(settings(2)).await.unwrap();
    let Err(QueueError::Unavailable(reason)) = backend.open(settings(3)).await else { panic!() };
    assert!(reason.contains("queue db_tasks.2: is missing"), "{reason}");
    assert!(reason.contains("aula migrate"), "{reason}");
}

#[tokio::test]
async fn a_queue_that_is_not_bound_is_not_ready() {
    let backend = Rabbitmq::fresh().await;
    let process = backend.open(settings(2)).await.unwrap();
    // Its channel is open then.
    enqueue_all(&*process.queue(), lane(1), numbered(0..1)).await;
    process.queue().probe().await.unwrap();
    let link = backend.vhost.link().await;
    let channel = link.channel().await.unwrap();
    let none = lapin::types::FieldTable::default();
    channel.queue_unbind("db_tasks.1".into(), "db_tasks".into(), "2.1".into(), none).await.unwrap();
    let Err(QueueError::Unavailable(reason)) = process.queue().probe().await else { panic!() };
    assert!(reason.starts_with("db_tasks.1 is not bound"), "{reason}");
    migrate_to(&backend.vhost, &topology(settings(2))).await;
    process.queue().probe().await.unwrap();
}

/// Works on all shards there may be, slowly.
fn work(
    queue: RabbitQueue,
    done: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
) -> Vec<tokio::task::JoinHandle<()>> {
    let lanes = (0..4).map(|shard| {
        let (queue, done, stop) = (queue.clone(), Arc::clone(&done), stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                let Ok(mut consumer) = queue.consume(lane(shard), 20).await else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                while let Ok(batch) = consumer.next_batch(5).await {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    done.lock().extend(texts(&batch));
                    consumer.acknowledge(&tags(&batch));
                }
            }
        }))
    });
    lanes.map(|task| tokio::spawn(async move { drop(task.await) })).collect()
}

#[tokio::test]
async fn another_number_of_shards_loses_nothing_and_keeps_each_channels_order() {
    let backend = Rabbitmq::fresh().await;
    let first = backend.open(settings(2)).await.unwrap();
    let (done, stop) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
    let enough = CancellationToken::new();
    // Workers don't care how many shards there are.
    work(first.queue.clone(), Arc::clone(&done), stop.clone());
    let current = watch::Sender::new((2, first.queue.clone()));
    let channels: Vec<ChannelId> = (0..CHANNELS).map(|_| ChannelId::new_group()).collect();
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let producer = tokio::spawn({
        let (mut current, accepted, enough) = (current.subscribe(), Arc::clone(&accepted), enough.clone());
        let channels = channels.clone();
        async move {
            let mut number = 0;
            while !enough.is_cancelled() {
                let (shards, queue) = current.borrow_and_update().clone();
                let place = number % CHANNELS;
                let text = format!("{place} {number}");
                let outcome = enqueue_confirmed(&queue, lane(channels[place].shard(shards)), payload(&text)).await;
                match outcome {
                    Ok(()) => {
                        accepted.lock().push(text);
                        number += 1;
                    }
                    Err(QueueError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    let link = backend.vhost.link().await;
    let mut processes = Vec::new();
    for shards in [4, 1] {
        tokio::time::sleep(A_MOMENT * 4).await;
        let topology = topology(settings(shards));
        let options = ReplaceOptions { deadline: Duration::from_secs(40) };
        let mut steps = Vec::new();
        let management = backend.vhost.management();
        migrate(&link, &topology, Some(&management), &options, &mut |step| steps.push(step)).await.unwrap();
        assert!(matches!(steps[0], Progress::Refusing { .. }), "{steps:?}");
        assert_eq!(steps.last(), Some(&Progress::Accepting { shards }));
        let before = accepted.lock().len();
        let process = backend.open(settings(shards)).await.unwrap();
        assert_eq!(accepted.lock().len(), before, "those who count other shards are refused");
        current.send_replace((shards, process.queue.clone()));
        processes.push(process);
    }
    tokio::time::sleep(A_MOMENT * 4).await;
    enough.cancel();
    producer.await.unwrap();
    let mut missing: HashSet<String> = accepted.lock().iter().cloned().collect();
    let all_done = async {
        while !missing.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            for text in done.lock().iter() {
                missing.remove(text);
            }
        }
    };
    timeout(PATIENCE, all_done).await.unwrap();
    stop.cancel();

    // A task may be worked on again, when its queue went with it in hand: but not after a later one of its channel.
    let mut last: HashMap<String, usize> = HashMap::new();
    for text in done.lock().iter() {
        let (channel, number) = text.split_once(' ').unwrap();
        let number = number.parse().unwrap();
        let before = last.insert(channel.to_owned(), number);
        assert!(before < Some(number), "{text} after {before:?}");
    }
}

#[tokio::test]
async fn full_queues_are_not_replaced_and_the_way_back_is_open() {
    let backend = Rabbitmq::fresh().await;
    let process = backend.open(settings(2)).await.unwrap();
    let queue = process.queue();
    enqueue_all(&*queue, LANE, numbered(0..3)).await;
    let link = backend.vhost.link().await;
    let options = ReplaceOptions { deadline: Duration::from_millis(600) };
    let refused = migrate(&link, &topology(settings(3)), None, &options, &mut |_| {}).await.unwrap_err();
    assert!(matches!(refused, TopologyError::NotEmpty(_)));
    for words in ["db_tasks.0 holds 3 tasks and nobody consumes it", "`aula migrate` again", "queue.shards to 2"] {
        assert!(refused.to_string().contains(words), "{refused}");
    }
    assert!(matches!(enqueue_confirmed(&*queue, LANE, payload("no")).await, Err(QueueError::Unavailable(_))));
    // Consumers may have tasks in hand, and without the management interface nobody knows.
    let mut consumer = consume(&*queue, LANE).await;
    expect(&mut *consumer, numbered(0..3)).await;
    let refused = migrate(&link, &topology(settings(3)), None, &options, &mut |_| {}).await.unwrap_err();
    assert!(refused.to_string().contains("set rabbitmq.management_url, or stop the workers"), "{refused}");

    migrate_to(&backend.vhost, &topology(settings(2))).await;
    enqueue_all(&*queue, LANE, ["yes".into()]).await;
    drop(consumer);
    let mut consumer = consume(&*queue, LANE).await;
    expect(&mut *consumer, ["0", "1", "2", "yes"].map(str::to_owned)).await;
}

/// Whatever step a migration was stopped at.
#[tokio::test]
async fn a_migration_that_was_stopped_is_finished_by_the_next() {
    let backend = Rabbitmq::fresh().await;
    let link = backend.vhost.link().await;
    for (from, to) in [(3, 2), (2, 4)] {
        for steps in 0..=4 {
            migrate_to(&backend.vhost, &topology(settings(from))).await;
            let (options, target) = (ReplaceOptions { deadline: PATIENCE }, topology(settings(to)));
            let (mut count, stop) = (0, CancellationToken::new());
            let mut progress = |_| {
                count += 1;
                if count == steps {
                    stop.cancel();
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                finished = migrate(&link, &target, None, &options, &mut progress) => finished.unwrap(),
            }
            migrate_to(&backend.vhost, &target).await;
            let process = backend.open(settings(to)).await.unwrap();
            for shard in 0..to {
                enqueue_all(&*process.queue(), lane(shard), numbered(0..1)).await;
                let mut consumer = consume(&*process.queue(), lane(shard)).await;
                let taken = expect(&mut *consumer, numbered(0..1)).await;
                consumer.acknowledge(&tags(&taken));
                until_depth(&*process.queue(), lane(shard), 0).await;
            }
        }
    }
}
