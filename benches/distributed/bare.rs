use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use hdrhistogram::Histogram;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use reqwest::Method;
use scylla::statement::prepared::PreparedStatement;
use serde_json::json;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::site::{SHARDS, Site};

/// As `queue.prefetch`.
const PREFETCH: u16 = 16_384;
const BULK: usize = 1000;

/// What a deployment can't do without, and nothing else: each body is published to a quorum queue (persistent,
/// mandatory, confirmed), consumed from it with the same prefetch, inserted into the same table by one statement (as
/// many at once as the prefetch allows), and acknowledged, up to the newest of which all before are inserted. One
/// connection publishes, another consumes; as many bodies are on their way as in the measured deployment. Counted is
/// what is inserted within `length`.
pub async fn stored_per_second(site: &Site, body_bytes: usize, window: usize, length: Duration) -> f64 {
    let session = Arc::new(site.session().await);
    let insert = insert(&session).await;
    let properties = ConnectionProperties::default();
    let publishing = Connection::connect(&site.amqp_url(), properties.clone()).await.unwrap();
    let consuming = Connection::connect(&site.amqp_url(), properties).await.unwrap();
    let free = Arc::new(Semaphore::new(window));
    let inserted = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut tasks = Vec::new();
    for shard in 0..SHARDS {
        let queue = format!("bare.{}.{shard}", Uuid::new_v4());
        let channel = consuming.create_channel().await.unwrap();
        let deliveries = consume(&channel, &queue, true).await;
        tasks.push(tokio::spawn(consumer(
            channel,
            deliveries,
            Arc::clone(&session),
            insert.clone(),
            Arc::clone(&inserted),
            Arc::clone(&free),
        )));
        let channel = publishing.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions { nowait: false }).await.unwrap();
        // The body in a frame of the size of a task.
        let payload = vec![b'x'; body_bytes + 150];
        let free = Arc::clone(&free);
        tasks.push(tokio::spawn(async move {
            let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let persistent = BasicProperties::default().with_delivery_mode(2);
            while began.elapsed() < length {
                free.acquire().await.unwrap().forget();
                let (key, properties) = (queue.as_str().into(), persistent.clone());
                let confirm = channel.basic_publish("".into(), key, mandatory, &payload, properties).await.unwrap();
                tokio::spawn(async move { assert!(confirm.await.unwrap().is_ack()) });
            }
            // The channel would be closed with its last handle, and confirms are still on their way.
            std::future::pending::<()>().await;
        }));
    }
    tokio::time::sleep_until((began + length).into()).await;
    let rate = inserted.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    // What is on its way must not burden what comes next.
    let all = u32::try_from(window).unwrap();
    drop(tokio::time::timeout(Duration::from_secs(20), free.acquire_many(all)).await.unwrap());
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    // An error means that it is closing already: its last channel ended with the tasks.
    let _ = publishing.close(200, "done".into()).await;
    let _ = consuming.close(200, "done".into()).await;
    rate
}

/// A new quorum queue with a single active consumer, or one of a connection's own and in memory.
async fn consume(channel: &lapin::Channel, queue: &str, durable: bool) -> lapin::Consumer {
    let mut arguments = FieldTable::default();
    if durable {
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    }
    let options = QueueDeclareOptions { durable, exclusive: !durable, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, arguments).await.unwrap();
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions { no_ack: !durable, ..BasicConsumeOptions::default() };
    channel.basic_consume(queue.into(), "bare".into(), options, FieldTable::default()).await.unwrap()
}

async fn insert(session: &scylla::client::session::Session) -> PreparedStatement {
    let text = "INSERT INTO messages_by_channel (channel_id, bucket, seq, id, sender, client_id, kind, body, at)
         VALUES (?, ?, ?, ?, 'bench-000', ?, 'bare', ?, ?) USING TIMESTAMP ?";
    let mut insert = session.prepare(text).await.unwrap();
    insert.set_is_idempotent(true);
    insert
}

/// The way of a message through the servers alone, in microseconds: published to a quorum queue at its scheduled moment,
/// consumed, published to a queue in memory, consumed; beside it, each is inserted as above. So this is what the
/// servers take on this machine at this rate.
pub async fn two_hops(site: &Site, rate: u64, length: Duration) -> Histogram<u64> {
    let session = Arc::new(site.session().await);
    let insert = insert(&session).await;
    let url = site.amqp_url();
    let connect = || Connection::connect(&url, ConnectionProperties::default());
    let [publishing, working, receiving] = [connect().await, connect().await, connect().await].map(Result::unwrap);
    let (first, second) = (format!("bare.{}", Uuid::new_v4()), format!("bare.{}", Uuid::new_v4()));
    let channel = receiving.create_channel().await.unwrap();
    let mut received = consume(&channel, &second, false).await;
    let work = working.create_channel().await.unwrap();
    let mut taken = consume(&work, &first, true).await;
    let worker = tokio::spawn(async move {
        let (id, mut seq) = (Uuid::now_v7(), 0_i64);
        while let Some(Ok(delivery)) = taken.next().await {
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            let key = second.as_str().into();
            drop(work.basic_publish("".into(), key, options, &delivery.data, properties).await.unwrap());
            seq += 1;
            let (session, insert, body) = (Arc::clone(&session), insert.clone(), "x".repeat(delivery.data.len()));
            tokio::spawn(async move {
                let at = scylla::value::CqlTimestamp(seq);
                let row = (id, seq / 10_000, seq, Uuid::now_v7(), Uuid::now_v7(), body, at, seq);
                session.execute_unpaged(&insert, row).await.unwrap();
                // Of the last ones, the channel may have ended.
                let _ = delivery.ack(BasicAckOptions::default()).await;
            });
        }
    });
    let (began, total) = (Instant::now(), rate * length.as_secs());
    let receiver = tokio::spawn(async move {
        let mut histogram = Histogram::new(3).unwrap();
        for _ in 0..total {
            let delivery = received.next().await.unwrap().unwrap();
            let scheduled = u64::from_le_bytes(delivery.data[..8].try_into().unwrap());
            histogram.record((began.elapsed().as_micros() as u64).saturating_sub(scheduled)).unwrap();
        }
        histogram
    });
    let publish = publishing.create_channel().await.unwrap();
    publish.confirm_select(ConfirmSelectOptions { nowait: false }).await.unwrap();
    let persistent = BasicProperties::default().with_delivery_mode(2);
    for n in 0..total {
        let scheduled = Duration::from_micros(n * 1_000_000 / rate);
        tokio::time::sleep_until((began + scheduled).into()).await;
        let mut body = (scheduled.as_micros() as u64).to_le_bytes().to_vec();
        body.resize(250, b'x');
        let (options, key) = (BasicPublishOptions::default(), first.as_str().into());
        let confirm = publish.basic_publish("".into(), key, options, &body, persistent.clone()).await.unwrap();
        tokio::spawn(async move { assert!(confirm.await.unwrap().is_ack()) });
    }
    let histogram = tokio::time::timeout(Duration::from_secs(20), receiver).await.expect("all arrive").unwrap();
    worker.abort();
    for connection in [publishing, working, receiving] {
        // An error means that it is closing already.
        let _ = connection.close(200, "done".into()).await;
    }
    histogram
}

async fn consumer(
    channel: lapin::Channel,
    mut deliveries: lapin::Consumer,
    session: Arc<scylla::client::session::Session>,
    insert: PreparedStatement,
    inserted: Arc<AtomicU64>,
    free: Arc<Semaphore>,
) {
    // 25 channels, as in the measured deployment.
    let ids: Vec<Uuid> = (0..25).map(|_| Uuid::now_v7()).collect();
    let mut under_way = FuturesOrdered::new();
    let mut number = 0_i64;
    loop {
        tokio::select! {
            delivery = deliveries.next() => {
                let delivery = delivery.unwrap().unwrap();
                let body = String::from_utf8_lossy(&delivery.data[150..]).into_owned();
                let (id, seq) = (ids[usize::try_from(number).unwrap() % ids.len()], number / 25 + 1);
                number += 1;
                let (session, insert) = (Arc::clone(&session), insert.clone());
                under_way.push_back(async move {
                    let at = scylla::value::CqlTimestamp(seq);
                    let row = (id, seq / 10_000, seq, Uuid::now_v7(), Uuid::now_v7(), body, at, seq);
                    session.execute_unpaged(&insert, row).await.unwrap();
                    delivery.delivery_tag
                });
            }
            Some(mut tag) = under_way.next(), if !under_way.is_empty() => {
                let mut count = 1;
                while let Some(Some(next)) = futures_util::FutureExt::now_or_never(under_way.next()) {
                    tag = next;
                    count += 1;
                }
                channel.basic_ack(tag, BasicAckOptions { multiple: true }).await.unwrap();
                inserted.fetch_add(count, Ordering::Relaxed);
                free.add_permits(usize::try_from(count).unwrap());
            }
        }
    }
}

/// The same documents in the same kind of index by bulks of a thousand, two under way.
pub async fn indexed_per_second(site: &Site, index: &str, body: &str, documents: usize) -> f64 {
    let bare = format!("{}-099999", site.alias());
    site.elastic(Method::PUT, &bare, String::new()).await;
    let found = site.elastic(Method::GET, &format!("{index}/_search?size=1"), String::new()).await;
    let mut document = found["hits"]["hits"][0]["_source"].clone();
    assert!(document.is_object(), "{found}");
    document["body"] = json!(body);
    document["words"] = json!(body);
    let began = Instant::now();
    let bulks = futures_util::stream::iter((0..documents).step_by(BULK)).map(|first| {
        let mut text = String::new();
        for seq in first..(first + BULK).min(documents) {
            document["seq"] = json!(seq);
            let action = json!({"index": {"_id": Uuid::now_v7(), "version": 1, "version_type": "external"}});
            text.push_str(&format!("{action}\n{document}\n"));
        }
        let path = format!("{bare}/_bulk");
        async move {
            let reply = site.elastic(Method::POST, &path, text).await;
            assert_eq!(reply["errors"], false, "{reply}");
        }
    });
    bulks.buffer_unordered(2).for_each(|()| std::future::ready(())).await;
    let rate = documents as f64 / began.elapsed().as_secs_f64();
    site.elastic(Method::DELETE, &bare, String::new()).await;
    rate
}
