//! The operator's commands on the distributed deployment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Cluster;
use super::namespace::{Namespace, SHARDS};
use super::servers::Servers;
use super::trial::bounded;
use crate::client::{Client, Encoding};
use crate::http::Http;
use crate::server::{Builder, Worker};

const SOON: Duration = Duration::from_secs(30);

fn namespace(make: fn(&Servers) -> Namespace) -> Arc<Namespace> {
    tokio::task::block_in_place(|| Arc::new(make(&Servers::shared())))
}

fn queue_stats(on: &Builder) -> Value {
    let (status, out, err) = on.aula(&["--output", "json", "queue-stats", "--queue", "db_tasks"]);
    assert!(status.success(), "{err}");
    serde_json::from_str(&out).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_stats_names_the_worker_of_each_shard() {
    bounded(90, async {
        let namespace = namespace(Namespace::new);
        let cluster = tokio::task::block_in_place(|| Cluster::of(namespace, 1, 2, &[]));
        let place = cluster.gateways[0].addr();
        let http = Http::new(place);
        let (ann, _) = (http.new_user("ann").await, http.new_user("ben").await);
        let ann = Client::connect(place, "ann", &ann, Encoding::Json).await;
        let channel = ann.create_direct("ben").await;
        ann.send_persisted(&channel, "so that somebody has worked").await;
        let pids: Vec<u32> = cluster.workers.iter().map(Worker::pid).collect();
        let is_named = |shard: &Value| {
            let consumer = shard["consumer"].as_str().unwrap_or_default();
            pids.iter().any(|pid| consumer.starts_with("host ") && consumer.ends_with(&format!("process {pid}")))
        };
        let begun = Instant::now();
        loop {
            let shards = tokio::task::block_in_place(|| queue_stats(&cluster.builder()));
            let shards = shards.as_array().unwrap();
            assert_eq!(shards.len(), usize::from(SHARDS));
            if shards.iter().all(is_named) {
                break;
            }
            assert!(begun.elapsed() < SOON, "of {pids:?}: {shards:#?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
}

fn wait_for_table(watch: &Worker) {
    let begun = Instant::now();
    while !watch.stdout().contains("db_tasks") {
        assert!(begun.elapsed() < SOON, "no table: {}", watch.stderr());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_stats_watches_a_broker_that_goes_and_comes_back() {
    bounded(120, async {
        let namespace = namespace(Namespace::behind_proxies);
        let cable = &namespace.proxies.as_ref().unwrap().rabbitmq;
        let builder = Builder::on_servers(&namespace);
        tokio::task::block_in_place(|| {
            let mut watch = Worker::spawn(&builder, &["queue-stats", "--watch"]);
            wait_for_table(&watch);
            let broker = format!("RabbitMQ at {}", cable.addr());
            for _ in 0..2 {
                let said_before = watch.stderr().len();
                cable.refuse();
                cable.cut();
                let begun = Instant::now();
                loop {
                    let said = watch.stderr().split_off(said_before);
                    if said.contains(&broker) && said.contains("can't be read now") {
                        break;
                    }
                    assert!(begun.elapsed() < SOON && watch.wait(Duration::ZERO).is_none(), "{}", watch.stderr());
                    std::thread::sleep(Duration::from_millis(50));
                }
                watch.stdout();
                cable.heal();
                wait_for_table(&watch);
            }
            let said = watch.stderr();
            assert!(!said.contains("can't be written") && !said.contains("aula.db"), "{said}");
        });
    })
    .await;
}

/// What is missing is not a data directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_commands_name_it() {
    bounded(120, async {
        let namespace = namespace(Namespace::behind_proxies);
        let cable = &namespace.proxies.as_ref().unwrap().rabbitmq;
        cable.refuse();
        let builder = Builder::on_servers(&namespace);
        tokio::task::block_in_place(|| {
            let commands = [
                &["queue-stats"][..],
                &["queue-stats", "--watch"],
                &["queue-stats", "--check", "depth<1"],
                &["dead-letters", "list"],
                &["dead-letters", "retry", "--yes"],
                &["worker", "--queue", "db_tasks"],
            ];
            for words in commands {
                let (status, _, said) = builder.aula(words);
                assert_eq!(status.code(), Some(1), "{words:?}: {said}");
                assert!(said.contains(&cable.addr().to_string()), "{words:?}: {said}");
                assert!(!said.contains("data directory") && !said.contains("aula.db"), "{words:?}: {said}");
            }
        });
    })
    .await;
}
