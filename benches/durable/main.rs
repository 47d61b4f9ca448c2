//! Durable sends: how many reach `persisted` each second, how long one takes to the other member, and how both
//! compare with a bare loop that inserts the same rows.
//!
//! `scripts/bench` runs it. Everything happens on this machine, in a temporary folder, for a bounded time. Throughput
//! and the bare loop alternate, so that a machine whose speed drifts slows both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints its results and fails by panicking"
)]

mod bare;
mod client;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;
use tokio::sync::Semaphore;

use client::{Client, Event};
use server::Server;

const CLIENTS: usize = 50;
/// Sends of one client on their way to `persisted`.
const WINDOW: usize = 64;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(6);
const OPEN_LOOP: Duration = Duration::from_secs(10);
const OPEN_LOOP_RATE: u64 = 1_000;
const BODY_BYTES: usize = 100;

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let at_rest = server.resident_kib();
    let clients = connect_pairs(&server).await;
    throughput(&clients, Duration::from_millis(500)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    // First, because after the rounds the index has much to catch up with.
    let cpu = server.cpu();
    let latency = latency(&clients).await;
    let cpu_at_1000 = (server.cpu() - cpu).as_secs_f64() * 1e6 / latency.len() as f64;

    let mut rounds = Vec::new();
    let mut persisted_in_all = 0;
    for _ in 0..ROUNDS {
        let cpu = server.cpu();
        let (count, took) = throughput(&clients, ROUND).await;
        let cpu = server.cpu() - cpu;
        persisted_in_all += count;
        let bare = bare::rows_per_second(folder.path(), BODY_BYTES, Duration::from_secs(3));
        rounds.push((count as f64 / took.as_secs_f64(), bare, cpu.as_secs_f64() * 1e6 / count as f64));
    }

    let stored = server.stored_messages();
    assert!(stored >= persisted_in_all + latency.len(), "{stored} stored, {persisted_in_all} said to be persisted");

    let median = |pick: fn(&(f64, f64, f64)) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let millis = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1000.0;
    let persisted = median(|round| round.0);
    let bare = median(|round| round.1);
    let ratio = median(|round| round.0 / round.1);
    let report = json!({
        "persisted_per_second": persisted.round(),
        "persisted_cpu_us": median(|round| round.2).round(),
        "bare_rows_per_second": bare.round(),
        "ratio_to_bare_loop": (ratio * 1000.0).round() / 1000.0,
        "send_to_receive_ms": { "p50": millis(0.5), "p99": millis(0.99), "p999": millis(0.999), "max": millis(1.0) },
        "cpu_us_per_message_at_1000": cpu_at_1000.round(),
        "resident_at_rest_mib": at_rest as f64 / 1024.0,
        "resident_after_load_mib": server.resident_kib() as f64 / 1024.0,
    });
    if std::env::args().any(|argument| argument == "--json") {
        println!("{report}");
        return;
    }
    println!("durable sends, {CLIENTS} clients in pairs, {BODY_BYTES}-byte bodies, window {WINDOW}:");
    println!("  persisted per second        {persisted:>10.0}   (median of {ROUNDS} rounds)");
    println!("  bare loop, rows per second  {bare:>10.0}   (one transaction per 100 rows, same table and indexes)");
    println!("  ratio to the bare loop      {ratio:>10.3}");
    println!("  server CPU per message      {:>10.0} us", median(|round| round.2));
    println!("at {OPEN_LOOP_RATE} sends/s, from the scheduled send to the other member:");
    println!(
        "  p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
        millis(0.5),
        millis(0.99),
        millis(0.999),
        millis(1.0)
    );
    println!("  server CPU per message      {cpu_at_1000:>10.0} us");
    println!(
        "resident memory: {:.1} MiB at rest, {:.1} MiB after the load",
        at_rest as f64 / 1024.0,
        server.resident_kib() as f64 / 1024.0
    );
}

/// Clients 2n and 2n+1 share a direct channel.
async fn connect_pairs(server: &Server) -> Vec<Client> {
    let names: Vec<String> = (0..CLIENTS).map(|n| format!("bench-{n:03}")).collect();
    let mut clients = Vec::new();
    for name in &names {
        let token = server.mint(name);
        clients.push(Client::connect(server.address(), &token).await);
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
            let _all = tokio::time::timeout(Duration::from_secs(10), window.acquire_many(WINDOW as u32)).await.unwrap();
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
