//! The load that the benchmarks share: clients in pairs, each with a full window of sends, or at a fixed rate.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

pub mod client;
pub mod process;
pub mod proof;
#[allow(dead_code, reason = "the distributed deployment has several, and others need a part of it")]
pub mod server;
pub mod witness;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Semaphore;

use client::{Client, Event};

pub const CLIENTS: usize = 50;
/// Sends of one client on their way to `persisted`.
pub const WINDOW: usize = 64;
pub const BODY_BYTES: usize = 100;

/// 0 of nothing.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

pub fn names() -> Vec<String> {
    (0..CLIENTS).map(|n| format!("bench-{n:03}")).collect()
}

/// Those who do the same once more, for the oracle.
pub fn witnesses() -> Vec<String> {
    (0..CLIENTS).map(|n| format!("witness-{n:03}")).collect()
}

/// Clients 2n and 2n+1 share a direct channel.
pub async fn pair_up(clients: &mut [Client], names: &[String]) {
    for pair in 0..CLIENTS / 2 {
        let (first, second) = (2 * pair, 2 * pair + 1);
        let channel = clients[first].create_direct(&names[second]).await;
        clients[first].channel = channel.clone();
        clients[second].joined(&channel).await;
        clients[second].channel = channel;
    }
}

/// Keeps every client's window full; the number of sends persisted in `length`. What is on its way then has `drain` to
/// arrive.
pub async fn throughput(clients: &[Client], length: Duration, drain: Duration) -> (u64, Duration) {
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
            let _all = tokio::time::timeout(drain, window.acquire_many(WINDOW as u32)).await.unwrap();
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

/// Open loop: each of `rate` sends a second has its moment, and what waits for a late one counts as latency. In
/// microseconds.
pub async fn latency(clients: &[Client], rate: u64, length: Duration) -> Histogram<u64> {
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
    let total = rate * length.as_secs();
    for n in 0..total {
        let scheduled = Duration::from_micros(n * 1_000_000 / rate);
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

/// The users' messages in the embedded deployment's file.
#[allow(dead_code, reason = "the distributed deployment has none")]
pub fn stored_messages(data_dir: &Path) -> u64 {
    count(data_dir, "SELECT count(*) FROM messages WHERE kind = 'text'")
}

/// What waits to be indexed there.
#[allow(dead_code, reason = "only the durable sends wait for it")]
pub fn index_tasks(data_dir: &Path) -> u64 {
    count(data_dir, "SELECT count(*) FROM tasks WHERE family = 'index_tasks'")
}

fn count(data_dir: &Path, query: &str) -> u64 {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let file = rusqlite::Connection::open_with_flags(data_dir.join("aula.db"), flags).unwrap();
    let count: i64 = file.query_row(query, [], |row| row.get(0)).unwrap();
    count as u64
}
