//! How workers are started, shared out, refused and stopped.

use std::time::Duration;

use rustix::process::Signal;

use super::{END_LIMIT, WORKER_LIMIT, bounded, builder, judge, snapshot, start_worker};
use crate::client::{Client, Encoding};
use crate::http::Http;
use crate::rng::Rng;
use crate::server::{Server, Worker};
use crate::swarm::Swarm;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_split_between_two_workers() {
    bounded(120, async {
        let seed = Rng::seed_from_env();
        let mut server = builder().env("AULA_QUEUE_SHARDS", 4).arg("--no-worker").start();
        let on = server.builder_ref().clone();
        let mut low = Worker::spawn(&on, &["worker", "--queue", "db_tasks", "--shards", "0-1"]);
        let mut high = start_worker(&on, &["--shards", "2,3"]);
        low.wait_for_log("working", WORKER_LIMIT);
        let mut swarm = Swarm::start(&server, seed).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        swarm.still_well().await;
        let (status, out, err) = server.aula(&["--output", "json", "queue-stats", "--queue", "db_tasks"]);
        assert!(status.success(), "{err}");
        let lanes: serde_json::Value = serde_json::from_str(&out).unwrap();
        for (shard, worker) in [(0, &low), (1, &low), (2, &high), (3, &high)] {
            let consumer = lanes[shard]["consumer"].as_str().unwrap_or_default();
            assert!(consumer.contains(&format!("-{}-", worker.pid())), "shard {shard}: {lanes:#}");
        }
        swarm.settle();
        swarm.server_is_down();
        tokio::task::block_in_place(|| {
            high.kill9();
            high = start_worker(&on, &["--shards", "2,3"]);
            server.restart();
        });
        swarm.server_is_at(server.addr());
        judge(swarm, &server, "split shards", seed).await;

        let (status, _, err) = server.aula(&["worker", "--queue", "db_tasks", "--shards", "3-4"]);
        assert_eq!(status.code(), Some(1), "{err}");
        assert!(err.contains('4') && err.contains("shard"), "a shard that isn't there is refused: {err}");
    })
    .await;
}

#[test]
fn a_worker_before_its_server_is_refused_and_leaves_no_trace() {
    let builder = builder();
    for dir in [builder.dir().to_path_buf(), builder.dir().join("nothing")] {
        let there = dir.exists();
        let on = Server::builder().data_dir(&dir);
        let mut worker = Worker::start(&on, "db_tasks");
        let status = worker.wait(END_LIMIT).expect("it does not wait for ever");
        let said = worker.stderr();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(&*dir.to_string_lossy()) && said.contains("hint:"), "{said}");
        assert_eq!(dir.exists(), there, "a refused worker makes no data directory");
        assert!(!there || snapshot(&dir).is_empty(), "{:?}", snapshot(&dir).keys());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_number_of_shards_is_refused_while_anybody_is_at_work() {
    bounded(60, async {
        let mut server = builder().env("AULA_QUEUE_SHARDS", 2).arg("--no-worker").start();
        let refused = |who: &str| {
            let other = server.builder_ref().clone().env("AULA_QUEUE_SHARDS", 5);
            let mut worker = Worker::start(&other, "db_tasks");
            let status = worker.wait(END_LIMIT);
            let said = worker.stderr();
            assert_eq!(status.and_then(|status| status.code()), Some(1), "beside {who}: {said}");
            assert!(said.contains("queue.shards is 5 here and 2 in the data directory"), "beside {who}: {said}");
        };
        // The gateway alone already sends by its number.
        tokio::task::block_in_place(|| refused("a gateway"));
        let mut worker = start_worker(server.builder_ref(), &[]);
        tokio::task::block_in_place(|| refused("a gateway and a worker"));
        let http = Http::new(server.addr());
        let token = http.new_user("ada").await;
        http.new_user("bob").await;
        let ada = Client::connect(server.addr(), "ada", &token, Encoding::Json).await;
        let channel = ada.create_direct("bob").await;
        ada.send_persisted(&channel, "one").await;
        // With nobody there, the number may change.
        worker.kill9();
        server.kill9();
        server.builder_mut().set_env("AULA_QUEUE_SHARDS", 5);
        tokio::task::block_in_place(|| server.restart());
        let _worker = start_worker(server.builder_ref(), &[]);
        let ada = Client::connect(server.addr(), "ada", &token, Encoding::Json).await;
        assert_eq!(ada.send_persisted(&channel, "two").await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_a_worker() {
    bounded(120, async {
        let seed = Rng::seed_from_env();
        let mut server = builder().arg("--no-worker").start();
        let mut worker = start_worker(server.builder_ref(), &[]);
        let mut swarm = Swarm::start(&server, seed).await;
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            swarm.still_well().await;
            worker.signal(Signal::TERM);
            let status = tokio::task::block_in_place(|| worker.wait(END_LIMIT)).expect("SIGTERM ends a worker");
            assert_eq!(status.code(), Some(0), "{}", worker.stderr());
            // It gave its shards back: nobody has to find out that it is gone.
            let (_, out, err) = server.aula(&["--output", "json", "queue-stats"]);
            let lanes: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{err}"));
            assert!(lanes.as_array().unwrap().iter().all(|lane| lane["consumer"].is_null()), "{lanes:#}");
            worker = tokio::task::block_in_place(|| start_worker(server.builder_ref(), &[]));
        }
        super::settle_and_judge(swarm, &mut server, "drained workers", seed).await;
    })
    .await;
}

/// The gateway hears of acknowledgements in other processes only by looking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_workers_does_not_count_finished_tasks_as_waiting() {
    bounded(60, async {
        let limits = builder().env("AULA_QUEUE_PREFETCH", 16).env("AULA_QUEUE_MAX_DEPTH", 64);
        let server = limits.arg("--no-worker").start();
        let _worker = start_worker(server.builder_ref(), &[]);
        let http = Http::new(server.addr());
        let token = http.new_user("ada").await;
        http.new_user("bob").await;
        let ada = Client::connect(server.addr(), "ada", &token, Encoding::Json).await;
        let channel = ada.create_direct("bob").await;
        for number in 0..200 {
            ada.send_persisted(&channel, &format!("message {number}")).await;
        }
    })
    .await;
}
