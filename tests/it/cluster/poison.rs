//! Tasks that nobody can work on.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::namespace::{Namespace, SHARDS};
use super::servers::Servers;
use super::trial::{Trial, bounded};

const FOUND_LIMIT: Duration = Duration::from_secs(20);

/// They go to the dead letters of their family, with the reason; the rest flows on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_to_the_dead_letters() {
    bounded(120, async {
        let namespace = tokio::task::block_in_place(|| Namespace::new(&Servers::shared()));
        let mut trial = Trial::start(namespace, &[]).await;
        let namespace = std::sync::Arc::clone(&trial.cluster.namespace);
        let vhost = &namespace.name;
        // Not a task; a task of a version to come; nothing at all.
        let garbage = ["garbage", "\u{0}\u{1}\u{2}", ""];
        let mut published = Vec::new();
        for (index, payload) in garbage.iter().enumerate() {
            trial.go_on(Duration::from_millis(200)).await;
            let shard = index % usize::from(SHARDS);
            let (exchange, key) = ("db_tasks", format!("{SHARDS}.{shard}"));
            published.push((exchange, key, *payload));
        }
        published.push(("index_tasks", "index_tasks".to_owned(), "garbage"));
        for (exchange, key, payload) in &published {
            let body = json!({
                "properties": {"delivery_mode": 2}, "routing_key": key, "payload": payload, "payload_encoding": "string",
            });
            let path = format!("exchanges/{vhost}/{exchange}/publish");
            let reply = namespace.manage(Method::POST, &path, Some(body)).await;
            assert_eq!(reply["routed"], true, "{exchange} {key}: {reply}");
        }
        for (queue, expected) in [("db_tasks.dead", garbage.len()), ("index_tasks.dead", 1)] {
            let mut found: Vec<Value> = Vec::new();
            let all = async {
                while found.len() < expected {
                    let path = format!("queues/{vhost}/{queue}/get");
                    let take = json!({"count": 10, "ackmode": "ack_requeue_false", "encoding": "base64"});
                    let taken = namespace.manage(Method::POST, &path, Some(take)).await;
                    found.extend(taken.as_array().unwrap().iter().cloned());
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            let in_time = tokio::time::timeout(FOUND_LIMIT, all).await;
            assert!(in_time.is_ok(), "{queue} has {} of {expected}: {found:#?}", found.len());
            for letter in &found {
                println!("{queue}: {letter}");
                let headers = letter["properties"]["headers"].to_string();
                assert!(headers.contains("reason"), "{letter:#}");
            }
        }
        trial.go_on(Duration::from_secs(1)).await;
        trial.end("poison among the tasks").await;
    })
    .await;
}
