//! `aula purge-channel` and the retention: what is purged is read by nobody any more (promise P12).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aula::oracle;
use serde_json::{Value, json};

use crate::client::{Client, Encoding, recorder, send_request};
use crate::cluster::Cluster;
use crate::cluster::namespace::Namespace;
use crate::cluster::servers::Servers;
use crate::cluster::verify::cql;
use crate::people::People;
use crate::server::{Builder, Server, Worker};

const SOON: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(120);
const NOWHERE: &str = "00000000-0000-7000-8000-000000000000";

fn purge(on: &Builder, words: &[&str]) -> (Option<i32>, Value, String) {
    let (status, out, err) = on.aula(&[&["--output", "json", "purge-channel"], words].concat());
    (status.code(), serde_json::from_str(&out).unwrap_or(Value::Null), err)
}

/// Exits with 0.
fn purged(on: &Builder, words: &[&str]) -> Value {
    let (code, report, err) = purge(on, words);
    assert_eq!(code, Some(0), "{words:?}: {report} {err}");
    report
}

fn seqs(entries: &[Value]) -> Vec<u64> {
    entries.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect()
}

async fn found(client: &Client, channel: &str, word: &str) -> Vec<u64> {
    let reply = client.request(json!({"op": "search", "query": word, "channel": channel, "limit": 50})).await;
    let mut found = seqs(reply["hits"].as_array().unwrap_or_else(|| panic!("{reply}")));
    found.sort_unstable();
    found
}

/// Until a search finds these.
async fn finds(client: &Client, channel: &str, word: &str, wanted: &[u64]) {
    let begun = Instant::now();
    loop {
        let found = found(client, channel, word).await;
        if found == wanted {
            return;
        }
        assert!(begun.elapsed() < SOON, "{found:?} are found, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn is_told(client: &Client, channel: &str, seq: u64) {
    client.wait_for(|frame| frame["op"] == "purged" && frame["channel"] == channel && frame["seq"] == seq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_purged_is_gone_everywhere() {
    let people = People::new(&["ada", "bob", "cyd"]).await;
    let ada = people.client("ada", Encoding::Json).await;
    let bob = people.client("bob", Encoding::Msgpack).await;
    let cyd = people.client("cyd", Encoding::Json).await;
    let channel = ada.create_group("orchard", &["bob", "cyd"]).await;
    let other = ada.create_group("lane", &["bob"]).await;
    ada.send_persisted(&other, "apple elsewhere").await;
    let (client_id, _) = ada.send(&channel, "apple 2").await;
    let mut last = 0;
    for n in 3..=12 {
        last = ada.send_persisted(&channel, &format!("apple {n}")).await;
    }
    assert_eq!(last, 12);
    bob.post(json!({"op": "read", "channel": channel, "seq": 4})).await.unwrap();
    finds(&bob, &channel, "apple", &(2..=12).collect::<Vec<_>>()).await;
    cyd.close().await;

    let plan = purged(people.server.builder_ref(), &[&channel, "--before-seq", "8", "--dry-run"]);
    assert_eq!((&plan["messages"], &plan["through"], &plan["left"]), (&json!(7), &json!(7), &json!(5)), "{plan}");
    assert_eq!(
        (&plan["indexed"], &plan["members"], &plan["name"]),
        (&json!(6), &json!(3), &json!("orchard")),
        "{plan}"
    );
    assert_eq!(ada.history_all(&channel).await.len(), 12, "nothing was done");
    let (code, _, err) = purge(people.server.builder_ref(), &[&channel, "--before-seq", "8"]);
    assert_eq!(code, Some(2), "nobody is there to say yes");
    assert!(err.contains("--yes"), "{err}");

    let report = purged(people.server.builder_ref(), &[&channel, "--before-seq", "8", "--yes"]);
    assert_eq!((&report["entries"], &report["indexed"]), (&json!(7), &json!(6)), "{report}");
    for client in [&ada, &bob] {
        is_told(client, &channel, 7).await;
        assert_eq!(seqs(&client.history_all(&channel).await), [8, 9, 10, 11, 12]);
        finds(client, &channel, "apple", &[8, 9, 10, 11, 12]).await;
    }
    assert_eq!(ada.history_all(&other).await.len(), 2, "the other channel is as it was");
    finds(&ada, &other, "apple", &[2]).await;
    // What was sent once is not sent anew.
    let repeated = ada.request(send_request(&channel, "apple 2", &client_id, true)).await;
    assert_eq!(repeated["status"], "accepted", "{repeated}");
    let told = |frame: &Value| frame["status"] == "persisted" && frame["client_id"] == *client_id && frame["seq"] == 2;
    ada.wait_for_after(0, told).await;
    assert_eq!(ada.send_persisted(&channel, "pear").await, 13);

    // Who was away is told when it comes back: in the welcome, and by a resume.
    let cyd = people.client("cyd", Encoding::Msgpack).await;
    let welcome = cyd.welcome().await;
    let summary = welcome["channels"].as_array().unwrap().iter().find(|summary| summary["id"] == *channel).unwrap();
    assert_eq!((&summary["purged_seq"], &summary["unread"]), (&json!(7), &json!(6)), "{summary}");
    assert_eq!(seqs(summary["messages"].as_array().unwrap()), [8, 9, 10, 11, 12, 13]);
    let mark = cyd.mark();
    let reply = cyd.resume(&[(&channel, 3)]).await;
    assert_eq!(reply["channels"][&channel], json!({"complete": true, "last_seq": 13}), "{reply}");
    let mut cursor = mark;
    let shown = cyd.received_since(&mut cursor);
    let shown: Vec<Value> =
        shown.iter().filter(|frame| frame["op"] == "message").map(|frame| (**frame).clone()).collect();
    assert_eq!(seqs(&shown), [8, 9, 10, 11, 12, 13]);
    is_told(&cyd, &channel, 7).await;

    // All of it; and a gateway that knows nothing of the time before.
    let report = purged(people.server.builder_ref(), &[&channel, "--yes"]);
    assert_eq!((&report["entries"], &report["through"]), (&json!(6), &json!(13)), "{report}");
    is_told(&ada, &channel, 13).await;
    assert!(ada.history_all(&channel).await.is_empty());
    let mut people = people;
    people.server.restart();
    let ada = people.client("ada", Encoding::Json).await;
    assert!(ada.history_all(&channel).await.is_empty());
    finds(&ada, &channel, "apple", &[]).await;
    let reply = ada.resume(&[(&channel, 2)]).await;
    assert_eq!(reply["channels"][&channel], json!({"complete": true, "last_seq": 13}), "{reply}");
    assert_eq!(ada.send_persisted(&channel, "plum").await, 14);
    assert_eq!(seqs(&ada.history_all(&channel).await), [14]);

    let (status, out, err) = people.server.aula(&["--output", "json", "purge-channel", "--records", &channel]);
    assert_eq!(status.code(), Some(0), "{err}");
    let records: Value = serde_json::from_str(&out).unwrap();
    let records = records.as_array().unwrap();
    assert_eq!(records.len(), 2, "{out}");
    assert_eq!(
        (&records[0]["after"], &records[0]["through"], &records[0]["cause"]),
        (&json!(7), &json!(13), &json!("command"))
    );
    assert!(records.iter().all(|record| record["ended_at"].is_string()), "{out}");
    assert!(!out.contains("apple"), "it says nothing of what was said");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_was_killed_is_finished_by_the_next() {
    let people = People::new(&["ada", "bob"]).await;
    let (ada, bob) = (people.client("ada", Encoding::Json).await, people.client("bob", Encoding::Json).await);
    let channel = ada.create_group("orchard", &["bob"]).await;
    for n in 2..=12 {
        ada.send_persisted(&channel, &format!("apple {n}")).await;
    }
    finds(&bob, &channel, "apple", &(2..=12).collect::<Vec<_>>()).await;
    let killed = |at: &str| {
        let on = people.server.builder_ref().clone().env("AULA_CRASH_AT", at);
        let (status, _, err) = on.aula(&["purge-channel", &channel, "--before-seq", "10", "--rate", "4", "--yes"]);
        assert_eq!(status.code(), None, "{err}");
        assert!(err.contains("crash point"), "{err}");
    };
    killed("purge_step:1");
    let left = ada.history_all(&channel).await;
    assert_eq!(*seqs(&left).last().unwrap(), 12);
    assert!(left.len() < 12, "the first step is done");
    killed("purge_before_index:1");
    assert_eq!(seqs(&ada.history_all(&channel).await), [10, 11, 12]);
    let report = purged(people.server.builder_ref(), &[&channel, "--before-seq", "10", "--yes"]);
    assert_eq!(report["through"], json!(9), "{report}");
    for client in [&ada, &bob] {
        is_told(client, &channel, 9).await;
        finds(client, &channel, "apple", &[10, 11, 12]).await;
    }
    // An index that is built anew has nothing more.
    let (status, _, err) = people.server.aula(&["reindex"]);
    assert_eq!(status.code(), Some(0), "{err}");
    finds(&ada, &channel, "apple", &[10, 11, 12]).await;
    let (_, out, _) = people.server.aula(&["--output", "json", "purge-channel", "--records"]);
    let records: Value = serde_json::from_str(&out).unwrap();
    let ended: Vec<bool> = records.as_array().unwrap().iter().map(|record| record["ended_at"].is_string()).collect();
    assert_eq!(ended, [true, false, false], "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_during_a_purge_stays_and_no_promise_is_broken() {
    let people = People::new(&["ada", "bob"]).await;
    let (ada, bob) = (people.client("ada", Encoding::Json).await, people.client("bob", Encoding::Msgpack).await);
    let channel = ada.create_group("orchard", &["bob"]).await;
    let mut last = 1;
    for n in 0..4 {
        for m in 0..40 {
            let sender = if m % 2 == 0 { &ada } else { &bob };
            last = sender.send_persisted(&channel, &format!("apple {n} {m}")).await;
            if m == 20 && n > 0 {
                let through = (last - 15).to_string();
                let server = &people.server;
                tokio::task::block_in_place(|| {
                    purged(server.builder_ref(), &[&channel, "--before-seq", &through, "--yes"])
                });
            }
        }
    }
    assert_eq!(last, 161);
    let mut recorder = recorder();
    for client in [&ada, &bob] {
        client.record_history(&channel, &mut recorder).await;
    }
    [&ada, &bob].iter().for_each(|client| client.record(&mut recorder));
    let verdict = oracle::check(&recorder.into_record().unwrap());
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert_eq!(seqs(&ada.history_all(&channel).await), (127..=161).collect::<Vec<_>>());
}

crate::on_servers![
    what_is_purged_is_gone_everywhere,
    a_purge_that_was_killed_is_finished_by_the_next,
    what_is_sent_during_a_purge_stays_and_no_promise_is_broken,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_retention_is_kept_to() {
    let builder = Server::builder().env("AULA_RETENTION_EVERY", "1s");
    let mut people = People::on(builder, &["ada"]).await;
    let ada = people.client("ada", Encoding::Json).await;
    let (kept, short) = (ada.create_group("kept", &[]).await, ada.create_group("short", &[]).await);
    for channel in [&kept, &short] {
        ada.send_persisted(channel, "early").await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(ada.history_all(&short).await.len(), 2, "everything is kept unless it is said otherwise");
    let on = people.server.builder_mut();
    on.set_env("AULA_RETENTION_KEEP", "2s");
    on.set_env("AULA_RETENTION_CHANNELS", format!("{kept}=0s"));
    people.server.restart();
    let ada = people.client("ada", Encoding::Json).await;
    let begun = Instant::now();
    while !ada.history_all(&short).await.is_empty() {
        assert!(begun.elapsed() < SOON, "it is still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    is_told(&ada, &short, 2).await;
    assert_eq!(ada.history_all(&kept).await.len(), 2);
    assert_eq!(ada.send_persisted(&short, "late").await, 3);
    assert_eq!(seqs(&ada.history_all(&short).await), [3]);
    let (_, out, _) = people.server.aula(&["--output", "json", "purge-channel", "--records"]);
    let records: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&records[0]["channel"], &records[0]["cause"]), (&json!(short), &json!("retention")), "{out}");
}

/// Purges while people write; `busiest` finds a channel that has something to purge, and its last seq.
fn under_load(on: &Builder, address: SocketAddr, busiest: impl Fn() -> Option<(String, i64)>) {
    let url = format!("http://{address}");
    let words = ["--output", "json", "simulate-clients", "--url", &url, "--clients", "20", "--rate", "200"];
    let more = ["--duration", "12s", "--ramp", "1s", "--check"];
    let mut load = Worker::spawn(on, &[&words[..], &more].concat());
    let (mut purges, begun) = (0, Instant::now());
    while begun.elapsed() < Duration::from_secs(11) {
        match busiest() {
            Some((channel, last)) => {
                let seq = (last - 20).to_string();
                purged(on, &[&channel, "--before-seq", &seq, "--yes"]);
                purges += 1;
            }
            None => std::thread::sleep(Duration::from_millis(200)),
        }
    }
    let (status, out) = load.finish(LIMIT);
    assert_eq!(status.code(), Some(0), "{}\n{out}", load.stderr());
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["verdict"]["violations"], json!([]), "{report}");
    assert!(purges >= 3, "{purges} purges");
    crate::verify::assert_clean(on, &[]);
}

#[test]
fn under_load_a_purge_breaks_no_promise() {
    let server = Server::start();
    let file = server.data_dir().join("aula.db");
    let busiest = || {
        let file = rusqlite::Connection::open(&file).unwrap();
        let sql =
            "SELECT channel_id, last_seq FROM channels WHERE last_seq > purged_seq + 60 ORDER BY last_seq DESC LIMIT 1";
        let found = file.query_row(sql, [], |row| Ok((row.get::<_, uuid::Uuid>(0)?, row.get(1)?)));
        found.ok().map(|(id, last)| (id.to_string(), last))
    };
    under_load(server.builder_ref(), server.addr(), busiest);
}

#[test]
fn on_servers_under_load_a_purge_breaks_no_promise() {
    let cluster = Cluster::of(Arc::new(Namespace::new(&Servers::shared())), 1, 1, &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let session = runtime.block_on(cql(&cluster.namespace));
    let busiest = || {
        let heads = "SELECT DISTINCT channel_id, last_seq, purged_seq FROM users_by_channel";
        let rows = runtime.block_on(session.query_unpaged(heads, ())).unwrap().into_rows_result().unwrap();
        let heads = rows.rows::<(uuid::Uuid, Option<i64>, Option<i64>)>().unwrap().map(Result::unwrap);
        let long = heads.filter_map(|(id, last, purged)| Some((id, last?, purged.unwrap_or(0))));
        let long = long.filter(|(_, last, purged)| *last > purged + 60);
        long.max_by_key(|(_, last, _)| *last).map(|(id, last, _)| (id.to_string(), last))
    };
    under_load(&cluster.builder(), cluster.gateways[0].addr(), busiest);
}

#[test]
fn what_cannot_be_purged_is_said() {
    let server = Server::start();
    for (words, code, says) in [
        (&["purge-channel"][..], 2, "ID"),
        (&["purge-channel", "7"], 2, "7"),
        (&["purge-channel", NOWHERE, "--yes"], 2, "there is no channel"),
        (&["purge-channel", NOWHERE, "--before-seq", "0"], 2, "--before-seq"),
        (&["purge-channel", NOWHERE, "--before", "yesterday"], 2, "2026-11-22T19:45:53Z"),
        (&["purge-channel", NOWHERE, "--before-seq", "2", "--before", "2h"], 2, "cannot be used with"),
        (&["purge-channel", NOWHERE, "--rate", "0"], 2, "--rate"),
        (&["purge-channel", "--records", "--yes"], 2, "cannot be used with"),
    ] {
        let (status, out, err) = server.aula(words);
        assert_eq!((status.code(), out.as_str()), (Some(code), ""), "{words:?}: {err}");
        assert!(err.contains(says), "{words:?}: {err}");
    }
    let (status, _, err) = Server::builder().aula(&["purge-channel", NOWHERE]);
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.contains("aula migrate"), "{err}");
}
