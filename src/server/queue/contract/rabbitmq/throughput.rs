//! How fast it is; not a test of anything. `cargo test --release --lib throughput -- --ignored --nocapture`

use std::time::Instant;

use super::*;

const TASKS: usize = 200_000;
const WINDOW: usize = 4096;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn confirmed_publishes_and_consumes_a_second() {
    let backend = Rabbitmq::fresh().await;
    let settings = Settings { shards: 1, max_depth: 10_000_000 };
    migrate_to(&backend.vhost, &topology(settings)).await;
    let config = backend.vhost.config();
    let options = RabbitQueueOptions {
        publishing: Link::open(&config, "test, publishing").await.unwrap(),
        consuming: Link::open(&config, "test, consuming").await.unwrap(),
        management: None,
        publish_window: WINDOW,
    };
    let queue = RabbitQueue::open(&topology(settings), options).await.unwrap();
    let body = Bytes::from(vec![7; 200]);

    let begun = Instant::now();
    let (confirmed, mut outcomes) = tokio::sync::mpsc::channel(WINDOW);
    let mut under_way = 0;
    for _ in 0..TASKS {
        if under_way == WINDOW {
            let outcome: Result<(), QueueError> = outcomes.recv().await.unwrap();
            outcome.unwrap();
            under_way -= 1;
        }
        let confirmed = confirmed.clone();
        let confirm: Confirm = Box::new(move |outcome| confirmed.try_send(outcome).unwrap());
        queue.enqueue(LANE, body.clone(), confirm).unwrap();
        under_way += 1;
    }
    for _ in 0..under_way {
        outcomes.recv().await.unwrap().unwrap();
    }
    report("confirmed publishes", begun);

    let begun = Instant::now();
    let mut consumer = queue.consume(LANE, 1024).await.unwrap();
    let mut count = 0;
    while count < TASKS {
        let batch = consumer.next_batch(256).await.unwrap();
        count += batch.len();
        consumer.acknowledge(&tags(&batch));
    }
    report("consumed and acknowledged", begun);
}

fn report(what: &str, begun: Instant) {
    println!("{what}: {:.0}/s", TASKS as f64 / begun.elapsed().as_secs_f64());
}
