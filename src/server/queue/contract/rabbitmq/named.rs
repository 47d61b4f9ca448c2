//! Who consumes a lane, as others are told.

use lapin::Channel;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;

use super::*;

async fn subscribe(channel: &Channel, queue: &str, name: &str) -> lapin::Consumer {
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.into(), name.into(), options, FieldTable::default()).await.unwrap()
}

/// The management interface hears of it a little later.
async fn consumer_becomes(queue: &dyn TaskQueue, lane: Lane, expected: Option<&str>) {
    let mut last = None;
    let becomes = async {
        loop {
            last = stats_of(queue, lane).await.consumer;
            if last.as_deref() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = timeout(PATIENCE, becomes).await.is_ok();
    assert!(in_time, "{last:?} instead of {expected:?}");
}

#[tokio::test]
async fn the_active_consumer_is_named_and_not_those_who_stand_by() {
    let backend = Rabbitmq::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let (queue, link) = (process.queue(), backend.vhost.link().await);
    consumer_becomes(&*queue, LANE, None).await;
    let (active, standby) = (link.channel().await.unwrap(), link.channel().await.unwrap());
    let name = LANE.to_string();
    let first = subscribe(&active, &name, "host one, process 1").await;
    consumer_becomes(&*queue, LANE, Some("host one, process 1")).await;
    let _second = subscribe(&standby, &name, "host another, process 2").await;
    tokio::time::sleep(A_MOMENT).await;
    consumer_becomes(&*queue, LANE, Some("host one, process 1")).await;
    active.close(200, "done".into()).await.unwrap();
    drop(first);
    consumer_becomes(&*queue, LANE, Some("host another, process 2")).await;
}

#[tokio::test]
async fn of_several_who_share_a_queue_one_is_named() {
    let backend = Rabbitmq::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let (queue, link) = (process.queue(), backend.vhost.link().await);
    let shared = Lane { family: Family::IndexTasks, shard: 0 };
    let mut consumers = Vec::new();
    for number in [2, 1, 3] {
        let channel = link.channel().await.unwrap();
        let consumer = subscribe(&channel, "index_tasks", &format!("host one, process {number}")).await;
        consumers.push((channel, consumer));
    }
    consumer_becomes(&*queue, shared, Some("host one, process 1, and 2 more")).await;
}
