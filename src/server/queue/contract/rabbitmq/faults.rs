//! What breaks between us and the broker.

use tokio::sync::oneshot;

use super::*;

async fn opened(settings: Settings) -> (Rabbitmq, RabbitProcess) {
    let backend = Rabbitmq::fresh().await;
    let process = backend.open(settings).await.unwrap();
    (backend, process)
}

/// Enqueues without waiting for the confirms.
fn enqueue_each(queue: &dyn TaskQueue, lane: Lane, count: usize) -> Vec<oneshot::Receiver<Result<(), QueueError>>> {
    let begun = numbered(0..count).map(|text| {
        let (confirm, confirmed) = oneshot::channel();
        queue.enqueue(lane, payload(text), Box::new(move |outcome| confirm.send(outcome).unwrap())).unwrap();
        confirmed
    });
    begun.collect()
}

async fn outcomes(begun: Vec<oneshot::Receiver<Result<(), QueueError>>>) -> Vec<Result<(), QueueError>> {
    let answered = futures_util::future::join_all(begun);
    let answered = timeout(PATIENCE * 2, answered).await.unwrap();
    answered.into_iter().map(|answer| answer.expect("each is answered once")).collect()
}

/// Until the broker is back.
async fn enqueue_at_last(queue: &dyn TaskQueue, text: &str) {
    let enqueued = async {
        while let Err(error) = enqueue_confirmed(queue, LANE, payload(text)).await {
            assert!(matches!(error, QueueError::Unavailable(_)), "{error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE * 2, enqueued).await.unwrap();
}

fn is_unknown(outcome: &Result<(), QueueError>) -> bool {
    matches!(outcome, Err(QueueError::Unavailable(_)))
}

#[tokio::test]
async fn a_cut_leaves_nobody_without_an_answer() {
    let (_backend, process) = opened(Settings::default()).await;
    let queue = process.queue();
    enqueue_all(&*queue, LANE, ["before".into()]).await;
    process.proxy.silence(true);
    let begun = enqueue_each(&*queue, LANE, 300);
    tokio::time::sleep(A_MOMENT).await;
    process.proxy.cut();
    assert!(outcomes(begun).await.iter().all(is_unknown));
    process.proxy.silence(false);
    enqueue_at_last(&*queue, "after").await;
    let mut consumer = timeout(PATIENCE, queue.consume(LANE, MANY)).await.unwrap().unwrap();
    expect(&mut *consumer, ["before", "after"].map(str::to_owned)).await;
}

#[tokio::test]
async fn without_a_connection_the_answer_comes_at_once() {
    let (_backend, process) = opened(Settings::default()).await;
    let queue = process.queue();
    process.proxy.accept(false);
    process.proxy.cut();
    let refused = async {
        while queue.enqueue(LANE, payload("no"), Box::new(|_| {})).is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
    assert!(matches!(
        queue.enqueue(LANE, payload("no"), Box::new(|_| unreachable!())),
        Err(QueueError::Unavailable(_))
    ));
    assert!(matches!(queue.probe().await, Err(QueueError::Unavailable(_))));
    process.proxy.accept(true);
    enqueue_at_last(&*queue, "yes").await;
    queue.probe().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_has_gone_silent_is_given_up() {
    let backend = Rabbitmq::fresh().await;
    let topology = topology(Settings::default());
    migrate_to(&backend.vhost, &topology).await;
    let proxy = backend.vhost.proxy().await;
    let mut config = backend.vhost.config_through(&proxy);
    config.heartbeat = Duration::from_secs(1);
    let link = async |role| Link::open(&config, role).await.unwrap();
    let options = RabbitQueueOptions {
        publishing: link("test, publishing").await,
        consuming: link("test, consuming").await,
        management: None,
        publish_window: 100,
    };
    let queue = RabbitQueue::open(&topology, options).await.unwrap();
    enqueue_all(&queue, LANE, numbered(0..3)).await;
    let mut consumer = consume(&queue, LANE).await;
    expect(&mut *consumer, numbered(0..1)).await;

    proxy.silence(true);
    let begun = enqueue_each(&queue, LANE, 5);
    assert!(outcomes(begun).await.iter().all(is_unknown));
    // Two tasks are here already. They are another consumer's by now, for all that can be known.
    let lost = async {
        while let Ok(batch) = consumer.next_batch(1).await {
            assert!(batch.len() < 2);
        }
    };
    timeout(PATIENCE, lost).await.unwrap();
    assert!(matches!(consumer.next_batch(1).await, Err(QueueError::Unavailable(_))));
    proxy.silence(false);
    enqueue_at_last(&queue, "again").await;
}

#[tokio::test]
async fn a_consumer_that_lost_its_connection_does_nothing_any_more() {
    let (backend, doomed) = opened(Settings::default()).await;
    let heir = backend.open(Settings::default()).await.unwrap();
    let queue = heir.queue();
    enqueue_all(&*queue, LANE, numbered(0..10)).await;
    let mut consumer = consume(&*doomed.queue(), LANE).await;
    let taken = expect(&mut *consumer, numbered(0..4)).await;
    doomed.proxy.cut();
    let mut next = timeout(PATIENCE, queue.consume(LANE, MANY)).await.unwrap().unwrap();
    consumer.acknowledge(&tags(&taken));
    let lost = timeout(PATIENCE, consumer.next_batch(10)).await.unwrap();
    assert!(matches!(lost, Err(QueueError::Unavailable(_))), "{lost:?}");
    consumer.acknowledge(&tags(&taken));
    assert!(consumer.dead_letter(taken[0].tag, "late").await.is_err());
    drop(consumer);
    let again = expect(&mut *next, numbered(0..10)).await;
    assert!(again[..4].iter().all(|delivery| delivery.redelivered));
}

/// Tasks that no queue takes come back, and their confirms with them, mixed with others.
#[tokio::test]
async fn what_comes_back_is_never_accepted() {
    let (backend, process) = opened(Settings::default()).await;
    let queue = process.queue();
    let channel = backend.vhost.link().await.channel().await.unwrap();
    let unbound = channel.queue_unbind("db_tasks.1".into(), "db_tasks".into(), "2.1".into(), Default::default());
    unbound.await.unwrap();
    let mut kept = 0;
    for _ in 0..30 {
        let mut begun = (Vec::new(), Vec::new());
        for _ in 0..100 {
            begun.0.extend(enqueue_each(&*queue, lane(0), 3));
            begun.1.extend(enqueue_each(&*queue, lane(1), 1));
        }
        let (taken, returned) = (outcomes(begun.0).await, outcomes(begun.1).await);
        assert!(returned.iter().all(is_unknown), "accepted, and in no queue");
        kept += taken.iter().filter(|outcome| outcome.is_ok()).count();
    }
    assert!(kept > 0);
    let depth = stats_of(&*queue, lane(0)).await.depth;
    assert!(depth >= kept as u64, "{depth} of {kept}");
}

#[tokio::test]
async fn standbys_take_over_in_the_order_in_which_they_came_and_keep_the_order_of_the_lane() {
    const STANDBYS: usize = 5;
    let (backend, process) = opened(Settings::default()).await;
    let queue = process.queue();
    enqueue_all(&*queue, LANE, numbered(0..60)).await;
    let mut others = Vec::new();
    for _ in 0..2 {
        others.push(backend.open(Settings::default()).await.unwrap());
    }
    let mut active = consume_with(&*queue, LANE, 7).await;
    let mut standbys = std::collections::VecDeque::new();
    for n in 0..STANDBYS {
        let queue = others[n % 2].queue();
        standbys.push_back(tokio::spawn(async move { queue.consume(LANE, 7).await.unwrap() }));
        tokio::time::sleep(A_MOMENT).await;
    }
    let mut next = 0;
    while let Some(standby) = standbys.pop_front() {
        let taken = expect(&mut *active, numbered(next..next + 6)).await;
        // Out of order, and with some left.
        active.acknowledge(&[taken[0].tag, taken[2].tag, taken[1].tag]);
        next += 3;
        assert!(standbys.iter().chain([&standby]).all(|standby| !standby.is_finished()));
        drop(active);
        active = timeout(Duration::from_secs(2), standby).await.expect("the first in the line").unwrap();
    }
    expect(&mut *active, numbered(next..next + 7)).await;
}
