//! The distributed deployment on real servers: two gateways and two workers on RabbitMQ, Cassandra and Elasticsearch.
//!
//! Measured are sends persisted per second, as a ratio to a bare loop of the same work on the same servers (`bare.rs`
//! says what it does); the time from a send on one gateway to its receipt on the other at a fixed rate; documents
//! indexed per second, as a ratio to bare bulks; and how long a shard stands still when its worker is killed.
//! Measurement and bare loop alternate, so that a machine whose speed drifts slows both.
//!
//! `scripts/bench distributed` runs it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints its results and fails by panicking"
)]

mod bare;
#[path = "../durable/client.rs"]
mod client;
mod site;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;
use tokio::sync::Semaphore;

use client::{Client, Event};
use site::{Gateway, Site};

const CLIENTS: usize = 50;
/// Sends of one client on their way to `persisted`.
const WINDOW: usize = 64;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(6);
const OPEN_LOOP: Duration = Duration::from_secs(20);
const OPEN_LOOP_RATE: u64 = 500;
const BODY_BYTES: usize = 100;
const KILLS: usize = 10;

#[tokio::main]
async fn main() {
    let site = Arc::new(Site::make().await);
    let outcome = tokio::spawn(measure(Arc::clone(&site))).await;
    // However it ended.
    site.remove().await;
    outcome.unwrap();
}

async fn measure(site: Arc<Site>) {
    let gateways = [site.gateway(0), site.gateway(1)];
    let mut workers = vec![site.worker(&["db_tasks"]), site.worker(&["db_tasks"])];
    let clients = connect_pairs(&site, &gateways).await;
    throughput(&clients, Duration::from_secs(2)).await;

    // The indexer has no work beside it, as on a host of its own: here all share two processors.
    let indexer = site.worker(&["index_tasks"]);
    let latency = latency(&clients).await;
    indexer.kill();

    let mut persisted_in_all = 0;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let cpu = cpu(&gateways, &workers);
        let (count, took) = throughput(&clients, ROUND).await;
        let cpu = self::cpu(&gateways, &workers) - cpu;
        persisted_in_all += count;
        let bare = bare::stored_per_second(&site, BODY_BYTES, CLIENTS * WINDOW, ROUND).await;
        rounds.push((count as f64 / took.as_secs_f64(), bare, cpu.as_secs_f64() * 1e6 / count as f64));
    }
    let stored = site.stored().await;
    assert!(stored >= persisted_in_all + latency.len(), "{stored} stored, {persisted_in_all} said to be persisted");

    let (indexed, bulks) = indexing(&site, stored).await;
    let takeovers = takeovers(&site, &clients, &mut workers).await;
    drop((gateways, workers));

    let median = |pick: fn(&(f64, f64, f64)) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let millis = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1000.0;
    let thousandths = |value: f64| (value * 1000.0).round() / 1000.0;
    let ratio = median(|round| round.0 / round.1);
    let (takeover, longest) = (takeovers[takeovers.len() / 2].as_millis(), takeovers[takeovers.len() - 1].as_millis());
    let report = json!({
        "persisted_per_second": median(|round| round.0).round(),
        "bare_stored_per_second": median(|round| round.1).round(),
        "ratio_to_bare_loop": thousandths(ratio),
        "cpu_us_per_persisted": median(|round| round.2).round(),
        "send_to_other_gateway_ms": {"p50": millis(0.5), "p99": millis(0.99), "p999": millis(0.999), "max": millis(1.0)},
        "indexed_per_second": indexed.round(),
        "bare_bulk_per_second": bulks.round(),
        "indexing_ratio": thousandths(indexed / bulks),
        "takeover_ms": {"median": takeover, "max": longest, "kills": KILLS},
    });
    if std::env::args().any(|argument| argument == "--json") {
        println!("{report}");
        return;
    }
    println!("two gateways, two workers; {CLIENTS} clients in pairs, {BODY_BYTES}-byte bodies, window {WINDOW}:");
    println!("  persisted per second       {:>10.0}   (median of {ROUNDS} rounds)", median(|round| round.0));
    println!("  bare loop, per second      {:>10.0}   (confirmed publish, consume, insert)", median(|round| round.1));
    println!("  ratio to the bare loop     {ratio:>10.3}");
    println!("  CPU of aula per message    {:>10.0} us", median(|round| round.2));
    println!("at {OPEN_LOOP_RATE} sends/s, from the scheduled send to the other member on the other gateway:");
    println!(
        "  p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
        millis(0.5),
        millis(0.99),
        millis(0.999),
        millis(1.0)
    );
    println!("indexed per second           {indexed:>10.0}");
    println!("bare bulks, per second       {bulks:>10.0}");
    println!("ratio to bare bulks          {:>10.3}", indexed / bulks);
    println!(
        "from a worker's death to the next persisted message: median {takeover} ms, longest {longest} ms ({KILLS} kills)"
    );
    println!("{report}");
}

fn cpu(gateways: &[Gateway], workers: &[site::Process]) -> Duration {
    gateways.iter().map(|gateway| gateway.process.cpu()).chain(workers.iter().map(site::Process::cpu)).sum()
}

/// Clients 2n and 2n+1 share a direct channel, on two gateways.
async fn connect_pairs(site: &Site, gateways: &[Gateway; 2]) -> Vec<Client> {
    let names: Vec<String> = (0..CLIENTS).map(|n| format!("bench-{n:03}")).collect();
    let mut clients = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let address = gateways[index % 2].address;
        let token = site.sign_up(address, name).await;
        clients.push(Client::connect(address, &token).await);
    }
    for pair in 0..CLIENTS / 2 {
        let (first, second) = (2 * pair, 2 * pair + 1);
        let channel = clients[first].create_direct(&names[second]).await;
        clients[first].channel = channel.clone();
        clients[second].joined(&channel).await;
        clients[second].channel = channel;
    }
    clients
}

/// Keeps every client's window full; the number of sends persisted in `length`.
async fn throughput(clients: &[Client], length: Duration) -> (u64, Duration) {
    let persisted = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut senders = Vec::new();
    for client in clients {
        let window = Arc::new(Semaphore::new(WINDOW));
        let (mut events, sender) = (client.listen(), client.sender());
        let body = "x".repeat(BODY_BYTES);
        let (free, counted) = (Arc::clone(&window), Arc::clone(&persisted));
        let listener = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Event::Persisted = event {
                    free.add_permits(1);
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        senders.push(tokio::spawn(async move {
            while began.elapsed() < length {
                window.acquire().await.unwrap().forget();
                sender.send(&body).await;
            }
            // What is on its way must not count for the next round.
            let _all = tokio::time::timeout(Duration::from_secs(20), window.acquire_many(WINDOW as u32)).await.unwrap();
            listener.abort();
        }));
    }
    tokio::time::sleep_until((began + length).into()).await;
    let (count, took) = (persisted.load(Ordering::Relaxed), began.elapsed());
    for sender in senders {
        sender.await.unwrap();
    }
    (count, took)
}

/// Open loop: each send has its moment, and what waits for a late one counts as latency. In microseconds.
async fn latency(clients: &[Client]) -> Histogram<u64> {
    let (results, mut samples) = tokio::sync::mpsc::channel(100_000);
    let began = Instant::now();
    let mut tasks = Vec::new();
    for client in clients {
        let (mut events, results) = (client.listen(), results.clone());
        tasks.push(tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Event::Received { scheduled_us } = event {
                    let now = began.elapsed().as_micros() as u64;
                    results.send(now.saturating_sub(scheduled_us)).await.unwrap();
                }
            }
        }));
    }
    let total = OPEN_LOOP_RATE * OPEN_LOOP.as_secs();
    for n in 0..total {
        let scheduled = Duration::from_micros(n * 1_000_000 / OPEN_LOOP_RATE);
        tokio::time::sleep_until((began + scheduled).into()).await;
        let body = format!("{:>12}{}", scheduled.as_micros(), "x".repeat(BODY_BYTES - 12));
        clients[n as usize % clients.len()].sender().send(&body).await;
    }
    let mut histogram = Histogram::new(3).unwrap();
    for _ in 0..total {
        let sample = tokio::time::timeout(Duration::from_secs(10), samples.recv()).await.expect("all arrive").unwrap();
        histogram.record(sample).unwrap();
    }
    for task in tasks {
        task.abort();
    }
    histogram
}

/// Two indexers work off what the rounds have left; then the same number of documents by bare bulks.
async fn indexing(site: &Site, stored: u64) -> (f64, f64) {
    let index = site.index().await;
    let before = site.indexed(&index).await;
    let began = Instant::now();
    let indexer = site.worker(&["index_tasks"]);
    let mut indexed = before;
    while indexed < stored {
        tokio::time::sleep(Duration::from_millis(100)).await;
        indexed = site.indexed(&index).await;
        assert!(began.elapsed() < Duration::from_secs(300), "{indexed} of {stored} indexed");
    }
    let count = indexed - before;
    let rate = count as f64 / began.elapsed().as_secs_f64();
    indexer.kill();
    site.elastic(reqwest::Method::POST, &format!("{index}/_refresh"), String::new()).await;
    let body = "x".repeat(BODY_BYTES);
    (rate, bare::indexed_per_second(site, &index, &body, usize::try_from(count.min(100_000)).unwrap()).await)
}

/// From the death of the worker that has the shards to the next message that is persisted; sorted.
async fn takeovers(site: &Site, clients: &[Client], workers: &mut Vec<site::Process>) -> Vec<Duration> {
    let (mut events, sender) = (clients[0].listen(), clients[0].sender());
    let mut took = Vec::new();
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(700)).await;
        workers.remove(0).kill();
        let killed = Instant::now();
        sender.send("anybody there?").await;
        let persisted = async { while !matches!(events.recv().await, Some(Event::Persisted)) {} };
        tokio::time::timeout(Duration::from_secs(60), persisted).await.expect("a standby takes over");
        took.push(killed.elapsed());
        workers.push(site.worker(&["db_tasks"]));
    }
    took.sort();
    took
}
