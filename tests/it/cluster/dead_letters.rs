//! Tasks that were set aside on RabbitMQ, and the commands for them.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use reqwest::Method;
use serde_json::{Value, json};

use super::Cluster;
use super::namespace::{Namespace, SHARDS};
use super::servers::Servers;
use super::trial::bounded;
use crate::client::{Client, Encoding};
use crate::http::Http;
use crate::server::{Builder, Worker};

const SOON: Duration = Duration::from_secs(30);
const SIGKILL: i32 = 9;

fn letters(on: &Builder, words: &[&str]) -> (i32, Value) {
    let (status, out, err) = on.aula(&[&["--output", "json", "dead-letters"], words].concat());
    let value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error} in {out:?}; {err}"));
    (status.code().expect("not killed"), value)
}

fn listed(on: &Builder) -> Vec<Value> {
    let (code, letters) = letters(on, &["list", "--limit", "1000"]);
    assert_eq!(code, 0);
    letters.as_array().unwrap().clone()
}

fn wait_for(on: &Builder, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let letters = listed(on);
        if wanted(&letters) {
            return letters;
        }
        assert!(begun.elapsed() < SOON, "{letters:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

async fn publish(namespace: &Namespace, exchange: &str, key: &str, payload: &str, encoding: &str, headers: Value) {
    let path = format!("exchanges/{}/{exchange}/publish", namespace.name);
    let body = json!({
        "properties": {"delivery_mode": 2, "headers": headers}, "routing_key": key,
        "payload": payload, "payload_encoding": encoding,
    });
    assert_eq!(namespace.manage(Method::POST, &path, Some(body)).await["routed"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_tried_again_until_that_is_enough() {
    bounded(120, async {
        let cluster =
            tokio::task::block_in_place(|| Cluster::of(Arc::new(Namespace::new(&Servers::shared())), 0, 1, &[]));
        let on = cluster.builder();
        publish(&cluster.namespace, "db_tasks", &format!("{SHARDS}.1"), "\u{9}secret", "string", json!({})).await;
        publish(&cluster.namespace, "index_tasks", "index_tasks", "garbage", "string", json!({})).await;
        tokio::task::block_in_place(|| {
            let found = wait_for(&on, |letters| letters.len() == 2);
            let first = &found[0];
            assert_eq!((&first["queue"], &first["shard"]), (&"db_tasks".into(), &1.into()), "{first}");
            assert_eq!(
                (&first["reason"], &first["attempts"]),
                (&"payload version 9, this binary reads up to 1: upgrade the workers first".into(), &1.into())
            );
            let id = first["id"].as_str().unwrap();
            assert_eq!(listed(&on), found, "a look changes nothing");
            let (_, shown) = letters(&on, &["show", id, "--bodies"]);
            assert_eq!(shown["task"]["payload"], "09736563726574");
            let (status, table, _) = on.aula(&["dead-letters", "list", "--queue", "db_tasks"]);
            assert!(
                status.success() && table.lines().count() == 2 && table.contains(&format!("{id}  db_tasks.1")),
                "{table}"
            );
            assert!(!table.contains("secret"), "{table}");
            for attempts in [2, 3] {
                let (code, report) = letters(&on, &["retry", "--yes"]);
                assert_eq!((code, &report["letters"]), (0, &2.into()), "{report}");
                let again = wait_for(&on, |all| all.len() == 2 && all.iter().all(|one| one["attempts"] == attempts));
                assert_eq!(again[0]["first_failed_at"], first["first_failed_at"]);
            }
            let (code, report) = letters(&on, &["retry", "--yes"]);
            assert_eq!((code, &report["letters"], &report["held_back"]), (3, &0.into(), &2.into()), "{report}");
            let (status, out, _) = on.aula(&["queue-stats", "--queue", "db_tasks", "--check", "dead<1"]);
            assert_eq!((status.code(), out.as_str()), (Some(1), "db_tasks.0: dead<1: it is 1\n"));
            let (code, report) = letters(&on, &["purge", "--queue", "db_tasks", "--yes"]);
            assert_eq!((code, &report["letters"]), (0, &1.into()), "{report}");
            let left = listed(&on);
            assert!(left.len() == 1 && left[0]["queue"] == "index_tasks", "{left:#?}");
            assert_eq!(letters(&on, &["purge", "--all", "--yes"]).0, 0);
            assert_eq!(listed(&on).len(), 0);
            let (status, out, err) = on.aula(&["queue-stats", "--check", "dead<1", "--check", "depth<1"]);
            assert!(status.success(), "{out}{err}");
        });
    })
    .await;
}

/// The tasks of all shards, as if a worker of an older release had taken them: at least `count`.
async fn set_aside(namespace: &Namespace, count: usize) -> usize {
    let connection = Connection::connect(&namespace.amqp_url(None), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut moved = 0;
    for shard in 0..SHARDS {
        let queue = format!("db_tasks.{shard}");
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let mut tasks = channel.basic_consume(queue.as_str().into(), "old".into(), options, arguments).await.unwrap();
        while let Ok(Some(task)) = tokio::time::timeout(Duration::from_secs(2), tasks.next()).await {
            let task = task.unwrap();
            let payload = base64::engine::general_purpose::STANDARD.encode(&task.data);
            let headers = json!({"reason": "version 1", "lane": queue});
            publish(namespace, "dead_letters", "db_tasks", &payload, "base64", headers).await;
            task.ack(BasicAckOptions::default()).await.unwrap();
            moved += 1;
        }
        channel.basic_cancel("old".into(), BasicCancelOptions::default()).await.unwrap();
    }
    connection.close(200, "moved".into()).await.unwrap();
    assert!(moved >= count, "{moved} of {count}");
    moved
}

/// A process that dies between the confirm and the acknowledgement leaves a task in both places; its channel has it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_is_killed_is_run_again_to_the_right_end() {
    const COUNT: usize = 40;
    bounded(180, async {
        let namespace = Arc::new(tokio::task::block_in_place(|| Namespace::new(&Servers::shared())));
        let mut cluster = tokio::task::block_in_place(|| Cluster::of(Arc::clone(&namespace), 1, 1, &[]));
        let place = cluster.gateways[0].addr();
        let http = Http::new(place);
        let (ann, _) = (http.new_user("ann").await, http.new_user("ben").await);
        let ann = Client::connect(place, "ann", &ann, Encoding::Json).await;
        let channel = ann.create_direct("ben").await;
        ann.send_persisted(&channel, "before").await;
        tokio::task::block_in_place(|| cluster.workers.remove(0).kill9());
        for number in 0..COUNT {
            let (_, reply) = ann.send(&channel, &format!("secret {number}")).await;
            assert_eq!(reply["status"], "accepted", "{reply}");
        }
        let moved = set_aside(&namespace, COUNT).await;
        let on = cluster.builder();
        tokio::task::block_in_place(|| {
            let found = wait_for(&on, |letters| letters.len() == moved);
            let sends = found.iter().filter(|letter| letter["kind"] == "send" && letter["sender"] == "ann");
            assert!(sends.count() >= COUNT, "{found:#?}");
            for point in ["before_dead_letter_put_back:3", "after_dead_letter_put_back:4"] {
                let on = on.clone().env("AULA_CRASH_AT", point);
                let (status, _, err) = on.aula(&["dead-letters", "retry", "--yes"]);
                assert_eq!(status.signal(), Some(SIGKILL), "{point}: {err}");
            }
            // Two, and three; the fourth is in both places. What was not acknowledged comes back a little later.
            wait_for(&on, |letters| letters.len() == moved - 5);
            let mut slow = Worker::spawn(&on, &["dead-letters", "retry", "--yes", "--rate", "10"]);
            std::thread::sleep(Duration::from_millis(1500));
            slow.kill9();
            let left = wait_for(&on, |letters| letters.len() < moved - 5).len();
            assert!(left > 0, "{left}");
            let begun = Instant::now();
            while !listed(&on).is_empty() {
                let (code, report) = letters(&on, &["retry", "--yes"]);
                assert!(code == 0 || code == 3, "{report}");
                assert!(begun.elapsed() < SOON, "{report}");
            }
        });
        tokio::task::block_in_place(|| cluster.add_worker());
        let begun = Instant::now();
        loop {
            let mut found: BTreeMap<String, u32> = BTreeMap::new();
            for entry in ann.history_all(&channel).await {
                let body = entry["body"].as_str().unwrap();
                if body.starts_with("secret") {
                    *found.entry(body.to_owned()).or_default() += 1;
                }
            }
            assert!(found.values().all(|times| *times == 1), "{found:?}");
            let on = &on;
            let is_empty = tokio::task::block_in_place(|| on.aula(&["queue-stats", "--check", "depth<1"]).0.success());
            if found.len() == COUNT && is_empty {
                break;
            }
            assert!(begun.elapsed() < SOON, "{found:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
}
