use uuid::Uuid;

use super::super::{SendTask, Task};
use super::*;
use crate::message::{ChannelId, Kind, Millis, Username};

const INDEX: Lane = Lane { family: Family::IndexTasks, shard: 0 };

pub async fn tasks_come_in_the_order_they_were_enqueued<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let queue = process.queue();
    // Some are there before the consumer, some come while it works, more than any buffer holds.
    enqueue_all(&*queue, LANE, numbered(0..500)).await;
    let mut consumer = queue.consume(LANE, 20_000).await.unwrap();
    let producer = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move {
            for start in (500..10_500).step_by(5000) {
                enqueue_all(&*queue, LANE, numbered(start..start + 5000)).await;
            }
        }
    });
    let mut expected = 0;
    while expected < 10_500 {
        let batch = take(&mut *consumer, 1 + expected % 37 % (10_500 - expected)).await;
        assert_eq!(texts(&batch), numbered(expected..expected + batch.len()).collect::<Vec<_>>());
        expected += batch.len();
        consumer.acknowledge(&tags(&batch));
    }
    producer.await.unwrap();
    expect_nothing(&mut *consumer).await;
}

pub async fn lanes_are_apart<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings { shards: 3, ..Settings::default() }).await.unwrap();
    let queue = process.queue();
    assert_eq!((queue.shards(Family::DbTasks), queue.shards(Family::IndexTasks)), (3, 1));
    let lanes = [lane(0), lane(1), lane(2), INDEX];
    let mut consumers = Vec::new();
    for lane in lanes {
        consumers.push(consume(&*queue, lane).await);
    }
    for n in 0..50 {
        for lane in lanes {
            enqueue_all(&*queue, lane, [format!("{lane} {n}")]).await;
        }
    }
    for (consumer, lane) in consumers.iter_mut().zip(lanes) {
        expect(&mut **consumer, (0..50).map(|n| format!("{lane} {n}"))).await;
        expect_nothing(&mut **consumer).await;
    }
}

pub async fn any_payload_comes_back_as_it_was<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let queue = process.queue();
    let payloads = [vec![], vec![0], vec![0xff; 3], (0..=255).collect(), vec![7; 1 << 20]].map(Bytes::from);
    for payload in &payloads {
        enqueue_confirmed(&*queue, LANE, payload.clone()).await.unwrap();
    }
    // Once from memory or disk, and once from disk.
    for _ in 0..2 {
        let mut consumer = consume(&*queue, LANE).await;
        let taken = take(&mut *consumer, payloads.len()).await;
        assert!(taken.iter().map(|delivery| &delivery.payload).eq(&payloads));
    }
}

pub async fn a_confirmed_task_survives_a_kill<B: Backend>() {
    let mut backend = B::fresh().await;
    for start in [0, 100, 200] {
        let process = backend.open(Settings::default()).await.unwrap();
        enqueue_all(&*process.queue(), LANE, numbered(start..start + 100)).await;
        backend = backend.after_kill().await;
    }
    let process = backend.open(Settings::default()).await.unwrap();
    expect(&mut *consume(&*process.queue(), LANE).await, numbered(0..300)).await;
}

pub async fn two_processes_share_their_lanes<B: Backend>() {
    let backend = B::fresh().await;
    let ours = backend.open(Settings::default()).await.unwrap();
    let theirs = backend.open(Settings::default()).await.unwrap();
    let mut consumer = consume(&*ours.queue(), LANE).await;
    // Each task is confirmed before the next is enqueued: there is one order, whoever enqueues.
    for n in 0..60 {
        let queue = if n % 3 == 0 { ours.queue() } else { theirs.queue() };
        enqueue_all(&*queue, LANE, [n.to_string()]).await;
    }
    expect(&mut *consumer, numbered(0..60)).await;
    // One at a time, from the process that doesn't consume.
    for n in 60..65 {
        enqueue_all(&*theirs.queue(), LANE, [n.to_string()]).await;
        let taken = expect(&mut *consumer, [n.to_string()]).await;
        assert!(!taken[0].redelivered);
    }
}

pub async fn two_processes_enqueue_at_once_and_nothing_is_lost<B: Backend>() {
    const EACH: usize = 1500;
    let backend = B::fresh().await;
    let mut processes = Vec::new();
    for _ in 0..2 {
        processes.push(backend.open(Settings::default()).await.unwrap());
    }
    let mut consumer = consume(&*processes[0].queue(), LANE).await;
    let mut producers = Vec::new();
    for (name, process) in ["ours", "theirs"].into_iter().zip(&processes) {
        let queue = process.queue();
        producers.push(tokio::spawn(async move {
            for start in (0..EACH).step_by(10) {
                enqueue_all(&*queue, LANE, (start..start + 10).map(|n| format!("{name} {n}"))).await;
            }
        }));
    }
    let mut next = [("ours", 0), ("theirs", 0)];
    for _ in 0..2 * EACH {
        let taken = take(&mut *consumer, 1).await;
        let text = texts(&taken).remove(0);
        let (_, n) =
            next.iter_mut().find(|(name, n)| text == format!("{name} {n}")).unwrap_or_else(|| panic!("{text}"));
        *n += 1;
        consumer.acknowledge(&tags(&taken));
    }
    assert_eq!(next, [("ours", EACH), ("theirs", EACH)]);
    for producer in producers {
        producer.await.unwrap();
    }
}

pub async fn too_many_tasks_are_refused<B: Backend>() {
    const DEPTH: usize = 10;
    let backend = B::fresh().await;
    let process = backend.open(Settings { shards: 1, max_depth: DEPTH }).await.unwrap();
    let queue = process.queue();
    let mut taken = 0;
    let refused = loop {
        match enqueue_confirmed(&*queue, LANE, payload(taken.to_string())).await {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
        assert!(taken <= DEPTH + B::EXCESS);
    };
    assert!(taken >= DEPTH);
    assert_eq!(refused, QueueError::Overloaded);
    // What follows from work that was taken is not refused.
    enqueue_all(&*queue, INDEX, ["index".into()]).await;

    let mut consumer = consume(&*queue, LANE).await;
    let deliveries = expect(&mut *consumer, numbered(0..taken)).await;
    consumer.acknowledge(&tags(&deliveries)[..taken - DEPTH / 2]);
    until_depth(&*queue, LANE, DEPTH as u64 / 2).await;
    enqueue_all(&*queue, LANE, ["fits again".into()]).await;
    expect(&mut *consumer, ["fits again".into()]).await;
}

pub async fn there_is_room_again_when_another_process_has_acknowledged<B: Backend>() {
    let backend = B::fresh().await;
    let settings = Settings { max_depth: 20, ..Settings::default() };
    let gateway = backend.open(settings).await.unwrap();
    let worker = backend.open(settings).await.unwrap();
    let mut consumer = consume(&*worker.queue(), LANE).await;
    let queue = gateway.queue();
    let all_taken = async {
        for n in 0..100 {
            while let Err(refused) = enqueue_confirmed(&*queue, LANE, payload(n.to_string())).await {
                assert_eq!(refused, QueueError::Overloaded);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let all_done = async {
        for n in 0..100 {
            let taken = expect(&mut *consumer, [n.to_string()]).await;
            consumer.acknowledge(&tags(&taken));
        }
    };
    timeout(PATIENCE, futures_util::future::join(all_taken, all_done)).await.unwrap();
}

fn send(channel: ChannelId, number: usize) -> Bytes {
    let task = SendTask {
        channel,
        id: Uuid::new_v4(),
        sender: Username::new("ada").unwrap(),
        client_id: Uuid::new_v4(),
        kind: Kind::Text,
        body: number.to_string(),
        at: Millis(0),
        retry: false,
    };
    Task::Send(task).encode().unwrap()
}

pub async fn another_number_of_shards_takes_the_tasks_along<B: Backend>() {
    let mut backend = B::fresh().await;
    let channels: Vec<ChannelId> = (0..12).map(|_| ChannelId::new_group()).collect();
    let mut numbers = 0..;
    for shards in [2, 5, 3] {
        let process = backend.open(Settings { shards, ..Settings::default() }).await.unwrap();
        let queue = process.queue();
        for number in numbers.by_ref().take(60) {
            let channel = channels[number % channels.len()];
            enqueue_confirmed(&*queue, lane(channel.shard(shards)), send(channel, number)).await.unwrap();
        }
        enqueue_all(&*queue, lane(shards - 1), ["no task at all".into()]).await;
        backend = backend.after_kill().await;
    }
    let process = backend.open(Settings { shards: 1, ..Settings::default() }).await.unwrap();
    drop(process);
    let process = backend.open(Settings { shards: 4, ..Settings::default() }).await.unwrap();
    let mut unreadable = 0;
    let mut next: Vec<usize> = (0..channels.len()).collect();
    for shard in 0..4 {
        let depth = stats_of(&*process.queue(), lane(shard)).await.depth;
        let mut consumer = consume(&*process.queue(), lane(shard)).await;
        for delivery in take(&mut *consumer, depth as usize).await {
            let Ok(Task::Send(task)) = Task::decode(&delivery.payload) else {
                unreadable += 1;
                continue;
            };
            assert_eq!(task.channel.shard(4), shard);
            let index = channels.iter().position(|channel| *channel == task.channel).unwrap();
            assert_eq!(task.body, next[index].to_string(), "in the order of its channel");
            next[index] += channels.len();
        }
    }
    assert_eq!(unreadable, 3, "kept, for a consumer to set aside");
    assert_eq!(next, (180..192).collect::<Vec<_>>());
}

pub async fn another_number_of_shards_beside_a_living_process_is_refused<B: Backend>() {
    let backend = B::fresh().await;
    let living = backend.open(Settings::default()).await.unwrap();
    let refused = backend.open(Settings { shards: 3, ..Settings::default() }).await;
    assert!(matches!(refused, Err(QueueError::Unavailable(_))), "a producer would go on with the old number");
    let consumer = consume(&*living.queue(), LANE).await;
    let refused = backend.open(Settings { shards: 3, ..Settings::default() }).await;
    assert!(matches!(refused, Err(QueueError::Unavailable(_))));
    backend.open(Settings::default()).await.unwrap();
    living.kill(vec![consumer]).await;
    backend.open(Settings { shards: 3, ..Settings::default() }).await.unwrap();
}

pub async fn stats_tell_what_waits<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    let queue = process.queue();
    let of_all: Vec<_> = queue.stats().await.unwrap().into_iter().map(|lane| (lane.queue, lane.shard)).collect();
    let lanes = Family::ALL
        .into_iter()
        .flat_map(|family| (0..queue.shards(family)).map(move |shard| (family.as_str().to_owned(), shard)));
    assert_eq!(of_all, lanes.collect::<Vec<_>>());
    assert!(of_all.len() >= 3 && of_all[..2] == [("db_tasks".to_owned(), 0), ("db_tasks".to_owned(), 1)]);

    let empty = stats_of(&*queue, LANE).await;
    let nothing = LaneStats { depth: 0, oldest_ms: None, dead_letters: 0, consumer: None, ..empty.clone() };
    assert_eq!(empty, nothing);

    enqueue_all(&*queue, LANE, numbered(0..3)).await;
    tokio::time::sleep(A_MOMENT).await;
    enqueue_all(&*queue, LANE, numbered(3..5)).await;
    let waiting = stats_of(&*queue, LANE).await;
    assert_eq!((waiting.depth, waiting.dead_letters, &waiting.consumer), (5, 0, &None));
    let is_old = |oldest: Option<u64>| oldest.unwrap() >= A_MOMENT.as_millis() as u64 - 20;
    assert!(!B::TELLS_AGE || is_old(waiting.oldest_ms), "{waiting:?}");

    let mut consumer = consume(&*queue, LANE).await;
    let taken = take(&mut *consumer, 4).await;
    let handed_out = stats_of(&*queue, LANE).await;
    assert_eq!(handed_out.depth, 5, "handed out is not acknowledged");
    assert!(handed_out.consumer.is_some());
    assert!(is_old(handed_out.oldest_ms), "{handed_out:?}");
    consumer.acknowledge(&tags(&taken)[..3]);
    consumer.dead_letter(taken[3].tag, "no good").await.unwrap();
    until_depth(&*queue, LANE, 1).await;
    let later = stats_of(&*queue, LANE).await;
    assert_eq!(later.dead_letters, 1);
    assert_eq!(stats_of(&*queue, lane(1)).await, LaneStats { shard: 1, ..nothing });

    process.kill(vec![consumer]).await;
    let next = backend.open(Settings::default()).await.unwrap();
    let queue = next.queue();
    let of_the_dead = async {
        loop {
            let after = stats_of(&*queue, LANE).await;
            if after.consumer.is_none() {
                return after;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let after = timeout(PATIENCE, of_the_dead).await.expect("the dead consume nothing");
    assert_eq!((after.depth, after.dead_letters), (1, 1));
}
