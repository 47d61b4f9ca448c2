//! The measurement, for the benchmarks that report it.

mod bare;
#[path = "../../load/mod.rs"]
pub mod load;

use std::time::Duration;

use load::BODY_BYTES;
use load::client::Client;
use load::proof::Judged;
use load::server::Server;
use load::witness::{self, Person};

pub const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(6);
const OPEN_LOOP: Duration = Duration::from_secs(10);
pub const OPEN_LOOP_RATE: u64 = 1_000;
/// Once more for the oracle, which keeps all that is seen.
const WITNESSED: Duration = Duration::from_secs(3);
/// For what is still on its way after a round.
const DRAIN: Duration = Duration::from_secs(10);

/// What came of it; throughput is the median of the rounds.
pub struct Durable {
    pub persisted_per_second: f64,
    /// The server's CPU time for a message at that rate.
    pub persisted_cpu_us: f64,
    #[allow(dead_code, reason = "not every benchmark reports it")]
    pub bare_rows_per_second: f64,
    pub ratio_to_bare_loop: f64,
    /// From the scheduled send to the other member at [`OPEN_LOOP_RATE`]: p50, p99, p99.9, max.
    pub latency_ms: [f64; 4],
    pub cpu_us_at_open_loop: f64,
    pub resident_at_rest_mib: f64,
    pub resident_after_load_mib: f64,
    /// By the oracle, of the same load once more.
    pub judged: Judged,
}

/// Starts a server, measures, has the same load judged by the oracle, and ends it. Takes somewhat over a minute. Panics
/// if a promise was broken.
pub async fn measure() -> Durable {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let at_rest = server.resident_kib();
    let clients = connect_pairs(&server).await;
    load::throughput(&clients, Duration::from_millis(500), DRAIN).await;

    // First, because after the rounds the index has much to catch up with; after this moment, little.
    server.wait_until_indexed(DRAIN).await;
    let cpu = server.cpu();
    let latency = load::latency(&clients, OPEN_LOOP_RATE, OPEN_LOOP).await;
    let cpu_us_at_open_loop = (server.cpu() - cpu).as_secs_f64() * 1e6 / latency.len() as f64;

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

    let resident_after_load_mib = server.resident_kib() as f64 / 1024.0;
    drop(clients);
    let witness = |name: String| Person { address: server.address(), token: server.mint(&name), name };
    let witnesses = load::witnesses().into_iter().map(witness).collect();
    let judged = witness::judge(witnesses, WITNESSED, DRAIN).await;

    let median = |pick: fn(&(f64, f64, f64)) -> f64| load::median(rounds.iter().map(pick).collect());
    Durable {
        persisted_per_second: median(|round| round.0),
        persisted_cpu_us: median(|round| round.2),
        bare_rows_per_second: median(|round| round.1),
        ratio_to_bare_loop: median(|round| round.0 / round.1),
        latency_ms: [0.5, 0.99, 0.999, 1.0].map(|quantile| latency.value_at_quantile(quantile) as f64 / 1000.0),
        cpu_us_at_open_loop,
        resident_at_rest_mib: at_rest as f64 / 1024.0,
        resident_after_load_mib,
        judged,
    }
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
