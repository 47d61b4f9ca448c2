//! The distributed deployment on real servers: two gateways and two workers on RabbitMQ, Cassandra and Elasticsearch.
//!
//! Measured are sends persisted per second, as a ratio to a bare loop of the same work on the same servers (`bare.rs`
//! says what it does); the time from a send on one gateway to its receipt on the other at a fixed rate; documents
//! indexed and reindexed per second, as ratios to bare bulks; and how long a shard stands still when its worker is killed.
//! Measurement and bare loop alternate, so that a machine whose speed drifts slows both. At the end the same pairs talk
//! once more, untimed, and what they see is judged by the oracle: a broken promise ends the run with an error.
//!
//! `scripts/bench distributed` runs it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints its results and fails by panicking"
)]

mod bare;
#[path = "../load/mod.rs"]
mod load;
mod site;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;

use load::client::{Client, Event};
use load::proof::Judged;
use load::witness::{self, Person};
use load::{BODY_BYTES, CLIENTS, WINDOW};
use site::{Gateway, Site};

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(6);
const OPEN_LOOP: Duration = Duration::from_secs(20);
/// For so long after it took a shard over, a worker looks every send up in the store.
const TAKEOVER: Duration = Duration::from_secs(60);
const OPEN_LOOP_RATE: u64 = 500;
/// For what is still on its way after a round.
const DRAIN: Duration = Duration::from_secs(20);
const KILLS: usize = 10;
/// Once more for the oracle, which keeps all that is seen.
const WITNESSED: Duration = Duration::from_secs(5);

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
    let taken_over = Instant::now();
    let clients = connect_pairs(&site, &gateways).await;
    load::throughput(&clients, Duration::from_secs(2), DRAIN).await;

    // The indexer has no work beside it, as on a host of its own: here all share two processors.
    let indexer = site.worker(&["index_tasks"]);
    let after_takeover = load::latency(&clients, OPEN_LOOP_RATE, OPEN_LOOP).await;
    tokio::time::sleep_until((taken_over + TAKEOVER + DRAIN).into()).await;
    let latency = load::latency(&clients, OPEN_LOOP_RATE, OPEN_LOOP).await;
    indexer.kill();
    let bare_latency = bare::two_hops(&site, OPEN_LOOP_RATE, OPEN_LOOP).await;

    let mut persisted_in_all = 0;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let cpu = cpu(&gateways, &workers);
        let (count, took) = load::throughput(&clients, ROUND, DRAIN).await;
        let cpu = self::cpu(&gateways, &workers) - cpu;
        persisted_in_all += count;
        let bare = bare::stored_per_second(&site, BODY_BYTES, CLIENTS * WINDOW, ROUND).await;
        rounds.push((count as f64 / took.as_secs_f64(), bare, cpu.as_secs_f64() * 1e6 / count as f64));
    }
    let stored = site.stored().await;
    assert!(
        stored >= persisted_in_all + latency.len() + after_takeover.len(),
        "{stored} stored, {persisted_in_all} said to be persisted"
    );

    let (indexed, bulks) = indexing(&site, stored).await;
    let (entries, took) = tokio::task::block_in_place(|| site.reindex());
    assert!(entries >= stored, "{entries} of {stored} in the new index");
    let reindexed = entries as f64 / took.as_secs_f64();
    let takeovers = takeovers(&site, &clients, &mut workers).await;
    let judged = judge(&site, &gateways).await;
    drop((gateways, workers));

    let median = |pick: fn(&(f64, f64, f64)) -> f64| load::median(rounds.iter().map(pick).collect());
    let millis = |latency: &Histogram<u64>, quantile: f64| latency.value_at_quantile(quantile) as f64 / 1000.0;
    let quantiles = |latency: &Histogram<u64>| {
        let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|quantile| millis(latency, quantile));
        json!({"p50": p50, "p99": p99, "p999": p999, "max": max})
    };
    let thousandths = |value: f64| (value * 1000.0).round() / 1000.0;
    let ratio = median(|round| round.0 / round.1);
    let (takeover, longest) = (takeovers[takeovers.len() / 2].as_millis(), takeovers[takeovers.len() - 1].as_millis());
    let report = json!({
        "persisted_per_second": median(|round| round.0).round(),
        "bare_stored_per_second": median(|round| round.1).round(),
        "ratio_to_bare_loop": thousandths(ratio),
        "cpu_us_per_persisted": median(|round| round.2).round(),
        "send_to_other_gateway_ms": quantiles(&latency),
        "bare_two_hops_ms": quantiles(&bare_latency),
        "send_to_other_gateway_after_takeover_ms": quantiles(&after_takeover),
        "indexed_per_second": indexed.round(),
        "bare_bulk_per_second": bulks.round(),
        "indexing_ratio": thousandths(indexed / bulks),
        "reindexed_per_second": reindexed.round(),
        "reindexing_ratio": thousandths(reindexed / bulks),
        "takeover_ms": {"median": takeover, "max": longest, "kills": KILLS},
        "judged": {"sends": judged.sends, "deliveries": judged.deliveries},
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
    let named = [
        (&latency, ""),
        (&after_takeover, ", in the first minute of a shard's owner"),
        (&bare_latency, ", the servers alone: two hops and an insert beside"),
    ];
    for (latency, when) in named {
        let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|quantile| millis(latency, quantile));
        println!("  p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms{when}");
    }
    println!("indexed per second           {indexed:>10.0}");
    println!("bare bulks, per second       {bulks:>10.0}");
    println!("ratio to bare bulks          {:>10.3}", indexed / bulks);
    println!("reindexed per second         {reindexed:>10.0}   (read from the store, compared and swapped)");
    println!("ratio to bare bulks          {:>10.3}", reindexed / bulks);
    println!(
        "from a worker's death to the next persisted message: median {takeover} ms, longest {longest} ms ({KILLS} kills)"
    );
    println!("judged by the oracle         {:>10} sends, {} deliveries", judged.sends, judged.deliveries);
    println!("{report}");
}

fn cpu(gateways: &[Gateway], workers: &[site::Process]) -> Duration {
    gateways.iter().map(|gateway| gateway.process.cpu()).chain(workers.iter().map(site::Process::cpu)).sum()
}

/// The members of each pair are on two gateways.
async fn connect_pairs(site: &Site, gateways: &[Gateway; 2]) -> Vec<Client> {
    let names = load::names();
    let mut clients = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let address = gateways[index % 2].address;
        let token = site.sign_up(address, name).await;
        clients.push(Client::connect(address, &token).await);
    }
    load::pair_up(&mut clients, &names).await;
    clients
}

/// The same pairs once more, of new people: what is accepted on one gateway is shown on the other.
async fn judge(site: &Site, gateways: &[Gateway; 2]) -> Judged {
    let mut people = Vec::new();
    for (index, name) in load::witnesses().into_iter().enumerate() {
        let address = gateways[index % 2].address;
        let token = site.sign_up(address, &name).await;
        people.push(Person { address, name, token });
    }
    witness::judge(people, WITNESSED, DRAIN).await
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
