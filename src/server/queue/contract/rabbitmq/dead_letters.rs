//! Tasks that are set aside, by us or by the broker.

use lapin::options::BasicGetOptions;
use lapin::types::AMQPValue;

use super::*;
use crate::message::Millis;

async fn dead_letter_of(backend: &Rabbitmq) -> lapin::message::Delivery {
    let channel = backend.vhost.link().await.channel().await.unwrap();
    let came = async {
        loop {
            let got = channel.basic_get("db_tasks.dead".into(), BasicGetOptions { no_ack: true }).await.unwrap();
            if let Some(message) = got {
                return message.delivery;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, came).await.unwrap()
}

fn header(message: &lapin::message::Delivery, name: &str) -> AMQPValue {
    message.properties.headers().as_ref().unwrap().inner()[name].clone()
}

#[tokio::test]
async fn a_dead_letter_tells_why_it_is_one() {
    let backend = Rabbitmq::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let queue = process.queue();
    enqueue_all(&*queue, LANE, numbered(0..2)).await;
    let mut consumer = consume(&*queue, LANE).await;
    let taken = expect(&mut *consumer, numbered(0..2)).await;
    consumer.dead_letter(taken[1].tag, "no \0 \"good\"").await.unwrap();
    let dead = dead_letter_of(&backend).await;
    assert_eq!(dead.data, b"1");
    assert_eq!(header(&dead, "reason"), AMQPValue::LongString("no \0 \"good\"".into()));
    assert_eq!(header(&dead, "lane"), AMQPValue::LongString("db_tasks.0".into()));
    let AMQPValue::LongLongInt(died) = header(&dead, "died-at-ms") else { panic!() };
    assert!((0..60_000).contains(&(Millis::now().0 - died)));
    assert!(matches!(header(&dead, "enqueued-at-ms"), AMQPValue::LongLongInt(at) if at <= died));
}

#[tokio::test]
async fn a_task_that_ends_its_workers_is_set_aside_and_the_rest_flows_on() {
    let backend = Rabbitmq::fresh().await;
    let mut topology = topology(Settings::default());
    for queue in &mut topology.queues {
        if let Some(limit) = queue.arguments.get_mut("x-delivery-limit") {
            *limit = crate::server::rabbitmq::topology::Argument::Number(3);
        }
    }
    migrate_to(&backend.vhost, &topology).await;
    let proxy = backend.vhost.proxy().await;
    let queue = RabbitQueue::open(&topology, options(&backend.vhost, &proxy).await).await.unwrap();
    enqueue_all(&queue, LANE, ["poison".into()]).await;
    for _ in 0..4 {
        let mut consumer = timeout(PATIENCE, queue.consume(LANE, 1)).await.unwrap().unwrap();
        expect(&mut *consumer, ["poison".into()]).await;
    }
    let dead = dead_letter_of(&backend).await;
    assert_eq!(dead.data, b"poison");
    assert!(dead.properties.headers().as_ref().unwrap().contains_key("x-death"));
    enqueue_all(&queue, LANE, ["the rest".into()]).await;
    let mut consumer = timeout(PATIENCE, queue.consume(LANE, 1)).await.unwrap().unwrap();
    expect(&mut *consumer, ["the rest".into()]).await;
}
