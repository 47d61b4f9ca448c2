//! Gateway and workers as processes of their own on one data directory, each killed at random moments under load.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{bounded, builder, judge, start_worker};
use crate::client::{Client, Encoding, is_status};
use crate::http::Http;
use crate::rng::Rng;
use crate::server::{Builder, Server, Worker};
use crate::swarm::Swarm;

const KILLS: u64 = 32;
/// A process lives this long before it is killed, in milliseconds.
const LIFE: (u64, u64) = (10, 150);
/// Under load each point is passed many times a second.
const DEATH_LIMIT: Duration = Duration::from_secs(60);
/// Short, so that a worker that stands still is overtaken within the test.
const LEASE: Duration = Duration::from_millis(400);

/// A gateway, its workers, and the load on both.
struct Site {
    server: Server,
    workers: Vec<Worker>,
    swarm: Swarm,
    rng: Rng,
    seed: u64,
}

impl Site {
    async fn start(workers: usize) -> Self {
        let seed = Rng::seed_from_env();
        println!("AULA_TEST_SEED={seed}");
        let server = builder().env("AULA_QUEUE_LEASE", format!("{}ms", LEASE.as_millis()));
        let server = server.arg("--no-worker").start();
        let on = server_builder(&server);
        let workers = (0..workers).map(|_| start_worker(&on, &[])).collect();
        let swarm = Swarm::start(&server, seed).await;
        Self { server, workers, swarm, rng: Rng::new(seed), seed }
    }

    async fn go_on_for_a_moment(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.rng.between(LIFE.0, LIFE.1))).await;
        self.swarm.still_well().await;
    }

    /// Kills a worker and puts another in its place, which comes last.
    fn replace_worker(&mut self, index: usize) {
        self.workers.remove(index).kill9();
        self.workers.push(start_worker(&server_builder(&self.server), &[]));
    }

    fn restart_gateway(&mut self) {
        self.server.kill9();
        self.swarm.server_is_down();
        self.server.restart();
        self.swarm.server_is_at(self.server.addr());
    }

    /// The worker dies at this passage of a named point, and another comes in its place.
    fn worker_dies_at(&mut self, point: &str, passage: u32) {
        self.workers.remove(0).kill9();
        let on = server_builder(&self.server).env("AULA_CRASH_AT", format!("{point}:{passage}"));
        let mut dying = Worker::spawn(&on, &["worker", "--queue", "db_tasks", "--queue", "index_tasks"]);
        let status = dying.wait(DEATH_LIMIT).unwrap_or_else(|| panic!("{point}:{passage} is not reached"));
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{point}:{passage}: {status}\n{}", dying.stderr());
        assert!(dying.stderr().contains(&format!("crash point {point}")), "{}", dying.stderr());
        self.workers.push(start_worker(&server_builder(&self.server), &[]));
    }

    /// The gateway dies at this passage, and starts again.
    fn gateway_dies_at(&mut self, point: &str, passage: u32) {
        self.server.builder_mut().set_env("AULA_CRASH_AT", format!("{point}:{passage}"));
        self.restart_gateway();
        let status = self.server.wait(DEATH_LIMIT).unwrap_or_else(|| panic!("{point}:{passage} is not reached"));
        assert_eq!(
            status.signal(),
            Some(Signal::KILL.as_raw()),
            "{point}:{passage}: {status}\n{}",
            self.server.stderr()
        );
        assert!(self.server.stderr().contains(&format!("crash point {point}")), "{}", self.server.stderr());
        self.swarm.server_is_down();
        self.server.builder_mut().unset_env("AULA_CRASH_AT");
        self.server.restart();
        self.swarm.server_is_at(self.server.addr());
    }

    /// The last kill is the gateway's: after it, everything that is open is repeated.
    async fn end(mut self, what: &str) {
        self.swarm.settle();
        tokio::task::block_in_place(|| self.restart_gateway());
        judge(self.swarm, &self.server, what, self.seed).await;
    }
}

fn server_builder(server: &Server) -> Builder {
    server.builder_ref().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_killed_again_and_again() {
    bounded(240, async {
        let mut site = Site::start(1).await;
        for _ in 0..KILLS {
            site.go_on_for_a_moment().await;
            tokio::task::block_in_place(|| site.replace_worker(0));
        }
        site.end("kills of the only worker").await;
    })
    .await;
}

/// In one process a message is stored before it is shown. Here it is accepted by the gateway, shown by the worker, and
/// stored after that: each death falls between two of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_dies_between_accepting_showing_storing_and_acknowledging() {
    bounded(240, async {
        let mut site = Site::start(1).await;
        for passage in [1, 7, 40] {
            for point in ["after_broadcast_before_store", "after_store_before_ack"] {
                site.go_on_for_a_moment().await;
                tokio::task::block_in_place(|| site.worker_dies_at(point, passage));
            }
            site.go_on_for_a_moment().await;
            tokio::task::block_in_place(|| site.gateway_dies_at("after_accept", passage));
        }
        site.end("deaths at the named points").await;
    })
    .await;
}

/// Prints how long a shard stands still when its worker dies and another stands by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_takes_over() {
    bounded(240, async {
        let mut site = Site::start(2).await;
        let http = Http::new(site.server.addr());
        let token = http.new_user("probe").await;
        http.new_user("peer").await;
        let probe = Client::connect(site.server.addr(), "probe", &token, Encoding::Json).await;
        let channel = probe.create_direct("peer").await;
        let mut took = Vec::new();
        for kill in 0..KILLS {
            site.go_on_for_a_moment().await;
            // The one that has been there longest has taken the shards; the other stands by.
            let mut dead = site.workers.remove(0);
            tokio::task::block_in_place(|| dead.kill9());
            let killed = Instant::now();
            let (client_id, reply) = probe.send(&channel, &format!("after kill {kill}")).await;
            assert_eq!(reply["status"], "accepted", "{reply}");
            probe.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == client_id).await;
            took.push(killed.elapsed());
            let on = server_builder(&site.server);
            site.workers.push(tokio::task::block_in_place(|| start_worker(&on, &[])));
        }
        took.sort();
        let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
        println!("from a worker's death to the next persisted message: median {median:?}, longest {longest:?}");
        probe.close().await;
        site.end("kills of the active worker, one stands by").await;
        assert!(longest < Duration::from_secs(5), "a standing-by worker took over only after {longest:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_and_workers_killed_at_random() {
    bounded(300, async {
        let mut site = Site::start(2).await;
        for _ in 0..KILLS {
            site.go_on_for_a_moment().await;
            let victim = site.rng.below(4);
            tokio::task::block_in_place(|| match victim {
                0 => site.replace_worker(0),
                1 => site.replace_worker(1),
                2 => site.restart_gateway(),
                _ => {
                    site.workers.iter_mut().for_each(|worker| _ = worker.kill9());
                    site.restart_gateway();
                    site.workers = (0..2).map(|_| start_worker(&server_builder(&site.server), &[])).collect();
                }
            });
        }
        site.end("kills of gateway and workers").await;
    })
    .await;
}

/// A worker that stands still loses its shards; what it still writes when it goes on must do no harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_workers_do_no_harm() {
    bounded(240, async {
        let mut site = Site::start(2).await;
        for pause in 0..8 {
            site.go_on_for_a_moment().await;
            let worker = &site.workers[pause % 2];
            worker.signal(Signal::STOP);
            tokio::time::sleep(LEASE.mul_f64(2.5)).await;
            worker.signal(Signal::CONT);
        }
        let logs: String = site.workers.iter().map(Worker::stderr).collect();
        assert!(logs.contains("another process has taken the lease"), "no lease was lost:\n{logs}");
        site.end("paused workers").await;
    })
    .await;
}
