//! Gateways and workers that die, stand still, or are told to end, under load.

use std::time::{Duration, Instant};

use super::trial::{Trial, bounded};
use super::{namespace::Namespace, servers::Servers};
use crate::client::{Client, Encoding, is_status};
use crate::http::Http;

/// A process lives this long before it is killed, in milliseconds.
const LIFE: (u64, u64) = (100, 800);
const KILLS: u64 = 12;
/// So that a process that stands still is noticed within the test: after two of these.
const HEARTBEAT: (&str, &str) = ("AULA_RABBITMQ_HEARTBEAT", "2s");
const PAUSE: Duration = Duration::from_secs(7);

fn namespace() -> Namespace {
    tokio::task::block_in_place(|| Namespace::new(&Servers::shared()))
}

/// Prints how long a shard stands still when its worker dies and another stands by. Its order is the same for all who
/// saw it live, before and after, and for history: that is what the oracle checks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over() {
    bounded(180, async {
        let mut trial = Trial::start(namespace(), &[]).await;
        let place = trial.cluster.gateways[0].addr();
        let token = Http::new(place).new_user("probe").await;
        Http::new(place).new_user("peer").await;
        let probe = Client::connect(place, "probe", &token, Encoding::Json).await;
        let channel = probe.create_direct("peer").await;
        let mut took = Vec::new();
        for kill in 0..KILLS {
            trial.go_on_ms(300, 800).await;
            // The one that has been there longest consumes all shards; the other stands by.
            let mut dead = trial.cluster.workers.remove(0);
            tokio::task::block_in_place(|| dead.kill9());
            let killed = Instant::now();
            let (client_id, reply) = probe.send(&channel, &format!("after kill {kill}")).await;
            assert_eq!(reply["status"], "accepted", "{reply}");
            probe.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == client_id).await;
            took.push(killed.elapsed());
            trial.block(super::Cluster::add_worker);
        }
        took.sort();
        let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
        println!("from a worker's death to the next persisted message: median {median:?}, longest {longest:?}");
        probe.close().await;
        trial.end("kills of the active worker, one stands by").await;
        assert!(longest < Duration::from_secs(5), "the one that stood by took over only after {longest:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_and_workers_killed_at_random() {
    bounded(240, async {
        let mut trial = Trial::start(namespace(), &[]).await;
        for _ in 0..KILLS {
            trial.go_on_ms(LIFE.0, LIFE.1).await;
            match trial.rng.below(5) {
                index @ 0..=1 => trial.replace_worker(usize::try_from(index).unwrap()),
                index @ 2..=3 => trial.restart_gateway(usize::try_from(index - 2).unwrap()),
                _ => {
                    // All at once.
                    trial.swarm.server_is_down();
                    trial.block(|cluster| {
                        cluster.workers.iter_mut().for_each(|worker| _ = worker.kill9());
                        cluster.gateways.iter_mut().for_each(|gateway| _ = gateway.kill9());
                        cluster.workers.clear();
                        cluster.gateways.iter_mut().for_each(crate::server::Server::restart);
                        cluster.add_worker();
                        cluster.add_worker();
                    });
                    trial.swarm.servers_are_at(&trial.cluster.addrs());
                }
            }
        }
        trial.end("kills of gateways and workers").await;
    })
    .await;
}

/// A worker that stood still has lost its shards when it goes on: what it still does must do no harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stood_still_does_no_harm() {
    bounded(180, async {
        let mut trial = Trial::start(namespace(), &[HEARTBEAT]).await;
        for round in 0..4 {
            trial.go_on_ms(500, 1000).await;
            // Long enough to lose the connection, and too short for that.
            let pause = if round % 2 == 0 { PAUSE } else { Duration::from_millis(800) };
            trial.pause_worker(round / 2, pause).await;
        }
        trial.end("paused workers").await;
    })
    .await;
}

/// Its clients' connections hold; what they missed comes when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stood_still_catches_up() {
    bounded(180, async {
        let mut trial = Trial::start(namespace(), &[HEARTBEAT]).await;
        trial.go_on_ms(500, 1000).await;
        trial.pause_gateway(0, PAUSE).await;
        trial.go_on_ms(500, 1000).await;
        trial.pause_gateway(1, Duration::from_secs(20)).await;
        trial.go_on(Duration::from_secs(1)).await;
        trial.end("paused gateways").await;
    })
    .await;
}

/// As a new version is rolled out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_restarted_one_after_the_other() {
    bounded(180, async {
        let mut trial = Trial::start(namespace(), &[("AULA_SERVER_RECONNECT_JITTER", "300ms")]).await;
        for round in 0..6 {
            trial.go_on_ms(300, 900).await;
            trial.roll_gateway(round % 2);
        }
        for _ in 0..2 {
            trial.block(|cluster| {
                let mut worker = cluster.workers.remove(0);
                worker.signal(rustix::process::Signal::TERM);
                let status = worker.wait(Duration::from_secs(20)).expect("SIGTERM ends a worker");
                assert_eq!(status.code(), Some(0), "{}", worker.stderr());
                cluster.add_worker();
            });
            trial.go_on_ms(300, 900).await;
        }
        trial.end("a rolling restart").await;
    })
    .await;
}
