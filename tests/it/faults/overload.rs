//! Far more than a server takes, for some seconds: what is refused is counted, what is accepted is kept, memory has a
//! bound, and afterwards all is as before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aula::oracle;
use serde_json::json;

use super::{bounded, builder, metric, rss_kib};
use crate::client::{Client, Encoding, is_status, recorder, send_request};
use crate::http::Http;

const PAIRS: usize = 8;
const OVERLOAD: Duration = Duration::from_secs(8);
/// What each client sends at once, and how often: all together many times what may wait.
const AT_ONCE: usize = 32;
const EVERY: Duration = Duration::from_millis(40);
const MAX_DEPTH: usize = 64;
/// Until a message that is sent after the overload is stored.
const RECOVERY: Duration = Duration::from_secs(5);
/// More than the server had before; far less than what it is sent.
const GROWTH_KIB: u64 = 64 << 10;

/// Two people with a channel of their own.
struct Pair {
    one: Arc<Client>,
    other: Arc<Client>,
    tokens: [String; 2],
    channel: String,
}

impl Pair {
    async fn connect(server: std::net::SocketAddr, number: usize) -> Self {
        let http = Http::new(server);
        let names = [format!("one{number}"), format!("other{number}")];
        let tokens = [http.new_user(&names[0]).await, http.new_user(&names[1]).await];
        let encoding = Encoding::BOTH[number % 2];
        let one = Arc::new(Client::connect(server, &names[0], &tokens[0], encoding).await);
        let other = Arc::new(Client::connect(server, &names[1], &tokens[1], encoding).await);
        let channel = one.create_direct(&names[1]).await;
        other.wait_for(|frame| frame["op"] == "channel_created").await;
        Self { one, other, tokens, channel }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_is_refused_and_counted_and_passes() {
    bounded(180, async {
        let server = builder()
            .env("AULA_AUTH_LOGINS_PER_MINUTE", 1000)
            .env("AULA_QUEUE_PREFETCH", MAX_DEPTH / 2)
            .env("AULA_QUEUE_MAX_DEPTH", MAX_DEPTH)
            .start();
        let bystanders = Pair::connect(server.addr(), PAIRS).await;
        let mut pairs = Vec::new();
        for number in 0..PAIRS {
            pairs.push(Pair::connect(server.addr(), number).await);
        }
        let before = rss_kib(server.pid());
        let end = Instant::now() + OVERLOAD;
        let mut senders = tokio::task::JoinSet::new();
        for pair in &pairs {
            for client in [&pair.one, &pair.other] {
                senders.spawn(flood(Arc::clone(client), pair.channel.clone(), end));
            }
        }
        let mut peak = before;
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(250)).await;
            peak = peak.max(rss_kib(server.pid()));
        }
        let sent: usize = senders.join_all().await.into_iter().sum();
        persist(&bystanders.one, &bystanders.channel, RECOVERY).await;

        // Behind a message that is stored now, nothing accepted is on its way any more.
        let mut readers = Vec::new();
        for pair in pairs.iter().chain([&bystanders]) {
            for (client, token) in [&pair.one, &pair.other].into_iter().zip(&pair.tokens) {
                let reader = Client::connect(server.addr(), &client.username, token, client.encoding).await;
                persist(&reader, &pair.channel, RECOVERY).await;
                readers.push((reader, &pair.channel));
            }
        }
        let mut recorder = recorder();
        for (reader, channel) in &readers {
            reader.record_history(channel, &mut recorder).await;
            reader.record(&mut recorder);
        }
        let clients = pairs.iter().flat_map(|pair| [&pair.one, &pair.other]);
        let clients: Vec<_> = clients.chain([&bystanders.one, &bystanders.other]).collect();
        let refused = clients.iter().flat_map(|client| client.received());
        let refused = refused.filter(|frame| frame["op"] == "error" && frame["code"] == "overloaded").count();
        clients.iter().for_each(|client| client.record(&mut recorder));
        let counted = metric(&server, "aula_refused_total").await;
        let verdict = oracle::check(&recorder.into_record().unwrap());
        let found: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
        println!("{sent} sent, {refused} refused, {counted} counted; RSS {before} KiB before, {peak} KiB at most");
        assert!(found.is_empty(), "{found:#?}\n{}", server.stderr());
        assert!(refused > sent / 10, "{refused} of {sent} sends are refused: that was no overload");
        assert!(counted >= refused as f64, "{counted} refusals are counted, and clients have heard of {refused}");
        assert!(verdict.counts.acknowledged > 100, "{:?}", verdict.counts);
        assert!(peak < before + GROWTH_KIB, "{before} KiB before the overload, {peak} KiB in it");
    })
    .await;
}

/// Sends at its times, whatever becomes of it; how much.
async fn flood(client: Arc<Client>, channel: String, end: Instant) -> usize {
    let mut turn = tokio::time::interval(EVERY);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut sent = 0;
    while Instant::now() < end {
        turn.tick().await;
        for _ in 0..AT_ONCE {
            let request = send_request(&channel, &format!("number {sent}"), &uuid::Uuid::now_v7().to_string(), false);
            // It reads too slowly for all that it causes, and has been sent away.
            let Ok(_reference) = client.post(request).await else { return sent };
            sent += 1;
        }
    }
    sent
}

/// Sends until it is not refused any more, and waits until that is stored.
async fn persist(client: &Client, channel: &str, limit: Duration) {
    let sent = async {
        loop {
            let (client_id, reply) = client.send(channel, "and now").await;
            if reply["status"] == "accepted" {
                break client.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == client_id).await;
            }
            assert_eq!(reply["code"], json!("overloaded"), "{reply}");
            tokio::time::sleep(Duration::from_millis(reply["retry_after_ms"].as_u64().unwrap())).await;
        }
    };
    let stored = tokio::time::timeout(limit, sent).await;
    assert!(stored.is_ok(), "{} has nothing stored within {limit:?}", client.username);
}
