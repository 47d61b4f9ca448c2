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
#[path = "../load/mod.rs"]
mod load;
mod server;

use std::time::Duration;

use serde_json::json;

use load::client::Client;
use load::{BODY_BYTES, CLIENTS, WINDOW};
use server::Server;

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(6);
const OPEN_LOOP: Duration = Duration::from_secs(10);
const OPEN_LOOP_RATE: u64 = 1_000;
/// For what is still on its way after a round.
const DRAIN: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let at_rest = server.resident_kib();
    let clients = connect_pairs(&server).await;
    load::throughput(&clients, Duration::from_millis(500), DRAIN).await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    // First, because after the rounds the index has much to catch up with.
    let cpu = server.cpu();
    let latency = load::latency(&clients, OPEN_LOOP_RATE, OPEN_LOOP).await;
    let cpu_at_1000 = (server.cpu() - cpu).as_secs_f64() * 1e6 / latency.len() as f64;

    let mut rounds = Vec::new();
    let mut persisted_in_all = 0;
    for _ in 0..ROUNDS {
        let cpu = server.cpu();
        let (count, took) = load::throughput(&clients, ROUND, DRAIN).await;
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

async fn connect_pairs(server: &Server) -> Vec<Client> {
    let names = load::names();
    let mut clients = Vec::new();
    for name in &names {
        let token = server.mint(name);
        clients.push(Client::connect(server.address(), &token).await);
    }
    load::pair_up(&mut clients, &names).await;
    clients
}
