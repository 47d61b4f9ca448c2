use super::*;

pub async fn a_batch_waits_for_its_first_task<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let queue = process.queue();
    let mut consumer = consume(&*queue, LANE).await;
    expect_nothing(&mut *consumer).await;
    let waiting = tokio::spawn(async move {
        let batch = timeout(PATIENCE, consumer.next_batch(10)).await.unwrap().unwrap();
        (texts(&batch), batch[0].redelivered)
    });
    tokio::time::sleep(A_MOMENT).await;
    enqueue_all(&*queue, LANE, ["first".into()]).await;
    assert_eq!(waiting.await.unwrap(), (vec!["first".to_owned()], false));
}

pub async fn what_was_not_acknowledged_is_delivered_again<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let queue = process.queue();
    let mut consumer = consume(&*queue, LANE).await;
    enqueue_all(&*queue, LANE, numbered(0..10)).await;
    let taken = expect(&mut *consumer, numbered(0..8)).await;
    assert!(taken.iter().all(|delivery| !delivery.redelivered), "nobody had them before");
    consumer.acknowledge(&tags(&taken)[..3]);
    drop(consumer);
    enqueue_all(&*queue, LANE, numbered(10..12)).await;

    let mut consumer = consume(&*queue, LANE).await;
    enqueue_all(&*queue, LANE, numbered(12..14)).await;
    let taken = expect(&mut *consumer, numbered(3..14)).await;
    for delivery in &taken[..5] {
        assert!(delivery.redelivered, "{delivery:?}");
    }
    for delivery in &taken[9..] {
        assert!(!delivery.redelivered, "{delivery:?}");
    }
}

pub async fn what_was_acknowledged_is_not<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let queue = process.queue();
    enqueue_all(&*queue, LANE, numbered(0..10)).await;
    let mut consumer = consume(&*queue, LANE).await;
    consumer.acknowledge(&[]);
    let taken = expect(&mut *consumer, numbered(0..10)).await;
    consumer.acknowledge(&tags(&taken));
    drop(consumer);
    let mut consumer = consume(&*queue, LANE).await;
    expect_nothing(&mut *consumer).await;
    until_depth(&*queue, LANE, 0).await;
    drop((consumer, queue, process));
    let backend = backend.after_kill().await;
    let process = backend.open(Settings::default()).await.unwrap();
    expect_nothing(&mut *consume(&*process.queue(), LANE).await).await;
}

pub async fn tasks_are_acknowledged_in_any_order<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let queue = process.queue();
    enqueue_all(&*queue, LANE, numbered(0..10)).await;
    let mut consumer = consume(&*queue, LANE).await;
    let tags = tags(&take(&mut *consumer, 10).await);
    consumer.acknowledge(&[tags[9], tags[2]]);
    consumer.acknowledge(&[tags[5]]);
    consumer.acknowledge(&[tags[0], tags[6]]);
    drop(consumer);
    let mut consumer = consume(&*queue, LANE).await;
    expect(&mut *consumer, [1, 3, 4, 7, 8].map(|n| n.to_string())).await;
}

pub async fn no_more_than_the_prefetch_is_handed_out<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let queue = process.queue();
    enqueue_all(&*queue, LANE, numbered(0..20)).await;
    let mut consumer = queue.consume(LANE, 5).await.unwrap();
    let taken = expect(&mut *consumer, numbered(0..5)).await;
    expect_nothing(&mut *consumer).await;
    consumer.acknowledge(&tags(&taken)[1..3]);
    let more = expect(&mut *consumer, numbered(5..7)).await;
    expect_nothing(&mut *consumer).await;
    consumer.dead_letter(more[0].tag, "no good").await.unwrap();
    expect(&mut *consumer, numbered(7..8)).await;
    expect_nothing(&mut *consumer).await;
}

/// Calls are dropped at every moment of theirs, while tasks come from here and from another process.
pub async fn a_dropped_call_loses_nothing<B: Backend>() {
    const TASKS: usize = 400;
    let backend = B::fresh().await;
    let ours = backend.open(Settings::default()).await.unwrap();
    let theirs = backend.open(Settings::default()).await.unwrap();
    let mut consumer = consume(&*ours.queue(), LANE).await;
    let queues = [ours.queue(), theirs.queue()];
    let producer = tokio::spawn(async move {
        for n in 0..TASKS {
            enqueue_all(&*queues[n / 7 % 2], LANE, [n.to_string()]).await;
        }
    });
    let (mut next, mut dropped) = (0, 0_u64);
    let all = async {
        while next < TASKS {
            let call = timeout(Duration::from_micros(dropped % 40 * 25), consumer.next_batch(3));
            let Ok(batch) = call.await else {
                dropped += 1;
                continue;
            };
            let batch = batch.unwrap();
            assert_eq!(texts(&batch), numbered(next..next + batch.len()).collect::<Vec<_>>());
            next += batch.len();
            consumer.acknowledge(&tags(&batch));
        }
    };
    timeout(PATIENCE * 3, all).await.unwrap();
    producer.await.unwrap();
    assert!(dropped > 0);
}

pub async fn dead_letters_are_set_aside<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let queue = process.queue();
    enqueue_all(&*queue, LANE, numbered(0..3)).await;
    let mut consumer = consume(&*queue, LANE).await;
    let taken = expect(&mut *consumer, numbered(0..3)).await;
    consumer.dead_letter(taken[1].tag, "it's \0 no \"good\"").await.unwrap();
    let stats = stats_of(&*queue, LANE).await;
    assert_eq!((stats.depth, stats.dead_letters), (2, 1), "durable when it returns");
    drop((consumer, queue, process));
    let backend = backend.after_kill().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let mut consumer = consume(&*process.queue(), LANE).await;
    expect(&mut *consumer, ["0", "2"].map(str::to_owned)).await;
    expect_nothing(&mut *consumer).await;
}

pub async fn a_lane_has_one_consumer<B: Backend>() {
    let backend = B::fresh().await;
    let ours = backend.open(Settings::default()).await.unwrap();
    let theirs = backend.open(Settings::default()).await.unwrap();
    let _first = consume(&*ours.queue(), LANE).await;
    for queue in [ours.queue(), theirs.queue()] {
        assert!(timeout(A_MOMENT * 2, queue.consume(LANE, 1)).await.is_err(), "the lane is taken");
        // Other lanes are not.
        consume(&*queue, lane(1)).await;
    }
}

pub async fn a_second_consumer_takes_over_from_a_dropped_one<B: Backend>() {
    let backend = B::fresh().await;
    let ours = backend.open(Settings::default()).await.unwrap();
    let theirs = backend.open(Settings::default()).await.unwrap();
    enqueue_all(&*ours.queue(), LANE, numbered(0..5)).await;
    let mut first = consume(&*ours.queue(), LANE).await;
    for queue in [theirs.queue(), ours.queue(), theirs.queue()] {
        let waiting = tokio::spawn(async move { queue.consume(LANE, MANY).await.unwrap() });
        tokio::time::sleep(A_MOMENT).await;
        assert!(!waiting.is_finished());
        expect(&mut *first, numbered(0..5)).await;
        drop(first);
        first = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    }
    let taken = expect(&mut *first, numbered(0..5)).await;
    assert!(taken.iter().all(|delivery| delivery.redelivered));
}

pub async fn a_second_process_takes_over_from_a_killed_one<B: Backend>() {
    let backend = B::fresh().await;
    let doomed = backend.open(Settings::default()).await.unwrap();
    let heir = backend.open(Settings::default()).await.unwrap();
    enqueue_all(&*heir.queue(), LANE, numbered(0..5)).await;
    let mut first = consume(&*doomed.queue(), LANE).await;
    let taken = expect(&mut *first, numbered(0..4)).await;
    first.acknowledge(&tags(&taken)[..2]);
    until_depth(&*heir.queue(), LANE, 3).await;
    let queue = heir.queue();
    let waiting = tokio::spawn(async move { queue.consume(LANE, MANY).await.unwrap() });
    tokio::time::sleep(A_MOMENT).await;
    assert!(!waiting.is_finished());
    doomed.kill(vec![first]).await;
    let mut second = timeout(Duration::from_secs(2), waiting).await.unwrap().unwrap();
    let taken = expect(&mut *second, numbered(2..5)).await;
    assert!(taken[..2].iter().all(|delivery| delivery.redelivered));
}

pub async fn whoever_gives_up_waiting_leaves_the_lane_to_others<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let other = backend.open(Settings::default()).await.unwrap();
    let mut given_up = 0;
    for n in 0..60 {
        let queue = if n % 2 == 0 { process.queue() } else { other.queue() };
        if timeout(Duration::from_micros(n * 50), queue.consume(LANE, 1)).await.is_err() {
            given_up += 1;
        }
    }
    assert!(given_up > 0);
    drop(consume(&*process.queue(), LANE).await);
    drop(consume(&*other.queue(), LANE).await);
}
