//! Durable sends: how many reach `persisted` each second, how long one takes to the other member, and how both
//! compare with a bare loop that inserts the same rows.
//!
//! `scripts/bench` runs it. Everything happens on this machine, in a temporary folder, for a bounded time. Throughput
//! and the bare loop alternate, so that a machine whose speed drifts slows both. Afterwards the same load is played once
//! more, untimed, and judged by the oracle: a broken promise ends the run with an error.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints its results and fails by panicking"
)]

mod measure;

use measure::load::{BODY_BYTES, CLIENTS, WINDOW};
use measure::{OPEN_LOOP_RATE, ROUNDS, measure};
use serde_json::json;

#[tokio::main]
async fn main() {
    let durable = measure().await;
    let [p50, p99, p999, max] = durable.latency_ms;
    if std::env::args().any(|argument| argument == "--json") {
        let report = json!({
            "persisted_per_second": durable.persisted_per_second.round(),
            "persisted_cpu_us": durable.persisted_cpu_us.round(),
            "bare_rows_per_second": durable.bare_rows_per_second.round(),
            "ratio_to_bare_loop": (durable.ratio_to_bare_loop * 1000.0).round() / 1000.0,
            "send_to_receive_ms": { "p50": p50, "p99": p99, "p999": p999, "max": max },
            "cpu_us_per_message_at_1000": durable.cpu_us_at_open_loop.round(),
            "resident_at_rest_mib": durable.resident_at_rest_mib,
            "resident_after_load_mib": durable.resident_after_load_mib,
            "judged": { "sends": durable.judged.sends, "deliveries": durable.judged.deliveries },
        });
        println!("{report}");
        return;
    }
    println!("durable sends, {CLIENTS} clients in pairs, {BODY_BYTES}-byte bodies, window {WINDOW}:");
    println!("  persisted per second        {:>10.0}   (median of {ROUNDS} rounds)", durable.persisted_per_second);
    println!(
        "  bare loop, rows per second  {:>10.0}   (one transaction per 100 rows, same table and indexes)",
        durable.bare_rows_per_second
    );
    println!("  ratio to the bare loop      {:>10.3}", durable.ratio_to_bare_loop);
    println!("  server CPU per message      {:>10.0} us", durable.persisted_cpu_us);
    println!("at {OPEN_LOOP_RATE} sends/s, from the scheduled send to the other member:");
    println!("  p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms");
    println!("  server CPU per message      {:>10.0} us", durable.cpu_us_at_open_loop);
    println!(
        "resident memory: {:.1} MiB at rest, {:.1} MiB after the load",
        durable.resident_at_rest_mib, durable.resident_after_load_mib
    );
    println!("judged by the oracle: {} sends, {} deliveries", durable.judged.sends, durable.judged.deliveries);
}
