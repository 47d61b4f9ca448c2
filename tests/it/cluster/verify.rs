//! `aula verify` on servers: damage done with CQL and to the index, beside a running gateway and worker.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use serde_json::{Value, json};

use super::Cluster;
use super::namespace::Namespace;
use super::servers::Servers;
use super::trial::bounded;
use crate::client::{Client, Encoding};
use crate::http::Http;
use crate::server::Worker;
use crate::verify::{assert_clean, assert_found, assert_repaired, talk, verify};

pub async fn cql(namespace: &Namespace) -> Session {
    let session = SessionBuilder::new().known_nodes(&namespace.servers.cassandra).build().await.unwrap();
    session.use_keyspace(&namespace.name, false).await.unwrap();
    session
}

pub async fn elasticsearch(namespace: &Namespace, method: Method, path: &str, body: Value) -> Value {
    let url = format!("{}/{}/{path}", namespace.servers.elasticsearch, namespace.alias());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.request(method, url);
    let request = if body.is_null() { request } else { request.json(&body) };
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

pub async fn people(cluster: &Cluster, names: &[&str]) -> Vec<Client> {
    let address = cluster.gateways[0].addr();
    let mut clients = Vec::new();
    for name in names {
        let token = Http::new(address).new_user(name).await;
        clients.push(Client::connect(address, name, &token, Encoding::Json).await);
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_damage_on_servers_is_found_and_repaired() {
    bounded(180, async {
        let namespace = Arc::new(tokio::task::block_in_place(|| Namespace::new(&Servers::shared())));
        let cluster = tokio::task::block_in_place(|| Cluster::of(Arc::clone(&namespace), 1, 1, &[]));
        let people = people(&cluster, &["ada", "bob", "cyd"]).await;
        let (group, direct) = talk(&people[0], &people[1]).await;
        // Receipts are gathered for a moment.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let on = cluster.builder();
        let session = cql(&namespace).await;
        let run = async |statement: String| session.query_unpaged(statement.as_str(), ()).await.map(drop).unwrap();
        let patience = ["--patience", "500ms"];
        let report = tokio::task::block_in_place(|| assert_clean(&on, &[]));
        assert_eq!((&report["channels"], &report["entries"]), (&json!(2), &json!(14 + 4)), "{report:#}");

        // Written with seqs as timestamps, as all is there: what the present time hides can't be brought back.
        let damages = [
            (
                format!(
                    "DELETE FROM channels_by_username USING TIMESTAMP 1 WHERE username = 'bob' AND channel_id = {group}"
                ),
                "not_listed",
            ),
            (
                format!(
                    "INSERT INTO channels_by_username (username, channel_id, joined_seq) VALUES ('dan', {group}, 3) \
                     USING TIMESTAMP 3"
                ),
                "listed",
            ),
            (
                format!(
                    "DELETE FROM users_by_channel USING TIMESTAMP 3 \
                     WHERE channel_id = {group} AND username = 'bob' AND joined_seq = 1"
                ),
                "member",
            ),
            (
                format!(
                    "INSERT INTO users_by_channel (channel_id, username, joined_seq, role, delivered_seq, read_seq) \
                     VALUES ({group}, 'dan', 3, 'member', 2, 2) USING TIMESTAMP 3"
                ),
                "no_member",
            ),
        ];
        for (statement, kind) in damages {
            run(statement).await;
            tokio::task::block_in_place(|| {
                assert_found(&on, &patience, json!({ kind: 1 }));
                assert_repaired(&on, &patience);
            });
        }
        // A lower number never wins here.
        let by_all = |timestamp: u32, seq: u32| {
            format!(
                "UPDATE users_by_channel USING TIMESTAMP {timestamp} SET delivered_by_all = {seq} \
                 WHERE channel_id = {direct}"
            )
        };
        run(by_all(3, 1)).await;
        let (code, report) = tokio::task::block_in_place(|| verify(&on, &[&["--repair"], &patience[..]].concat()));
        assert_eq!((code, &report["outcome"]), (1, &json!("not_repaired")), "{report:#}");
        run(by_all(4, 0)).await;

        // The index: what is missing is put back, and what is no message taken out.
        elasticsearch(&namespace, Method::PUT, "_settings", json!({"index.gc_deletes": "0s"})).await;
        for message in people[0].history_all(&group).await.iter().filter(|message| message["body"] == "from bob 2") {
            let path = format!("_doc/{}?refresh=true", message["id"].as_str().unwrap());
            elasticsearch(&namespace, Method::DELETE, &path, Value::Null).await;
        }
        let stranger = |channel: &str, seq: u64| {
            json!({"channel": channel, "seq": seq, "sender": "eve", "at": 1, "body": "x", "words": "x"})
        };
        let nobody = uuid::Uuid::new_v4();
        for (channel, seq) in [(group.as_str(), 7), (direct.as_str(), 900), (&nobody.to_string(), 1)] {
            let path = format!("_doc/{}?refresh=true", uuid::Uuid::new_v4());
            elasticsearch(&namespace, Method::PUT, &path, stranger(channel, seq)).await;
        }
        tokio::task::block_in_place(|| {
            assert_found(&on, &patience, json!({"not_indexed": 1, "stray_in_index": 3}));
            assert_found(&on, &[&["--channel", &direct], &patience[..]].concat(), json!({"stray_in_index": 1}));
            assert_repaired(&on, &patience);
        });

        // A worker that died between the entry and the head.
        let ids = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
        run(format!(
            "INSERT INTO messages_by_channel (channel_id, bucket, seq, id, sender, client_id, kind, body, at) VALUES \
             ({direct}, 0, 5, {}, 'ada', {}, 'text', 'unheard', 1795376753000) USING TIMESTAMP 5",
            ids.0, ids.1
        ))
        .await;
        tokio::task::block_in_place(|| {
            assert_found(&on, &patience, json!({"head_behind": 1}));
            let (code, report) = verify(&on, &[&["--repair"], &patience[..]].concat());
            assert_eq!((code, &report["outcome"]), (0, &json!("repaired")), "{report:#}");
            // Nobody had asked for it to be indexed.
            assert_found(&on, &patience, json!({"not_indexed": 1}));
            assert_repaired(&on, &patience);
        });

        // A log whose beginning was purged is whole; and one of which nothing is left.
        tokio::task::block_in_place(|| {
            for before in ["4", "6"] {
                let (status, _, err) = on.aula(&["purge-channel", &direct, "--before-seq", before, "--yes"]);
                assert!(status.success(), "{err}");
                assert_clean(&on, &patience);
            }
        });
        // What is gone stays gone.
        run(format!(
            "DELETE FROM messages_by_channel USING TIMESTAMP 6 WHERE channel_id = {group} AND bucket = 0 AND seq = 6"
        ))
        .await;
        tokio::task::block_in_place(|| {
            let report = assert_found(&on, &patience, json!({"hole": 1, "stray_in_index": 1}));
            let hole = report["findings"].as_array().unwrap().iter().find(|one| one["kind"] == "hole").unwrap();
            assert_eq!((&hole["first"], &hole["last"]), (&json!(6), &json!(6)));
            let (code, report) = verify(&on, &[&["--repair"], &patience[..]].concat());
            assert_eq!((code, &report["outcome"]), (3, &json!("partly_repaired")), "{report:#}");
        });
    })
    .await;
}

#[test]
fn under_load_on_servers_nothing_is_accused_that_is_under_way() {
    let cluster = Cluster::of(Arc::new(Namespace::new(&Servers::shared())), 1, 2, &[]);
    let on = cluster.builder();
    let url = format!("http://{}", cluster.gateways[0].addr());
    let load =
        ["simulate-clients", "--url", &url, "--clients", "30", "--rate", "100", "--duration", "7s", "--ramp", "1s"];
    let mut load = Worker::spawn(&on, &load);
    std::thread::sleep(Duration::from_secs(2));
    let (began, mut entries) = (std::time::Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(6) {
        entries = assert_clean(&on, &[])["entries"].as_u64().unwrap();
    }
    assert!(entries > 100, "{entries}");
    assert_eq!(load.finish(Duration::from_secs(60)).0.code(), Some(0), "{}", load.stderr());
    assert_clean(&on, &["--repair"]);
}
