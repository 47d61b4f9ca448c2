//! `aula reindex` while people write: interrupted, killed, gone on with, and gone back from.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::namespace::Namespace;
use crate::cluster::servers::Servers;
use crate::server::{Builder, Server, Worker};

const LIMIT: Duration = Duration::from_secs(120);
/// Until the indexers have caught up.
const LAG: Duration = Duration::from_secs(30);

/// A reindex's exit status, its report, and what it complained about.
fn reindex(on: &Builder, words: &[&str]) -> (Option<i32>, Value, String) {
    let (status, out, err) = on.aula(&[&["--output", "json", "reindex"], words].concat());
    (status.code(), serde_json::from_str(&out).unwrap_or(Value::Null), err)
}

fn assert_outcome(on: &Builder, words: &[&str], code: i32, outcome: &str) -> Value {
    let (status, report, err) = reindex(on, words);
    assert_eq!((status, &report["outcome"]), (Some(code), &json!(outcome)), "{words:?}: {report} {err}");
    report
}

/// Killed at the n-th passage of a crash point.
fn assert_killed(on: &Builder, words: &[&str], at: &str) {
    let (status, _, err) = reindex(&on.clone().env("AULA_CRASH_AT", at), words);
    assert_eq!(status, None, "{words:?} {at}: {err}");
    assert!(err.contains("crash point"), "{err}");
}

/// Messages in the index in use, by this count, until they are as many as `stored`.
fn assert_all_indexed(stored: u64, indexed: impl Fn() -> u64) {
    let deadline = std::time::Instant::now() + LAG;
    while indexed() != stored {
        assert!(std::time::Instant::now() < deadline, "{} of {stored} are in the index", indexed());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// With people who write all the while; `indexed` counts what the index in use has.
fn through_kills(on: &Builder, address: &str, indexed: impl Fn() -> u64) {
    let url = format!("http://{address}");
    let words = ["--output", "json", "simulate-clients", "--url", &url, "--clients", "20", "--rate", "150"];
    let more = ["--duration", "20s", "--ramp", "1s", "--check"];
    let mut load = Worker::spawn(on, &[&words[..], &more].concat());
    std::thread::sleep(Duration::from_secs(4));

    assert_killed(on, &[], "reindex_step:1");
    let (status, _, err) = reindex(on, &[]);
    assert_eq!(status, Some(1), "{err}");
    assert!(err.contains("being built already") && err.contains("aula reindex --resume"), "{err}");
    assert_killed(on, &["--resume"], "reindex_step:1");
    assert_killed(on, &["--resume"], "reindex_before_swap:1");
    let report = assert_outcome(on, &["--resume"], 0, "replaced");
    assert!(report["entries"].as_u64() > Some(100), "{report}");
    assert_eq!((&report["compared"]["different"], &report["rejected"]), (&json!([]), &json!([])), "{report}");
    assert!(report["former"].is_string(), "{report}");
    // There and back, and anew.
    assert_outcome(on, &["--rollback"], 0, "rolled_back");
    let report = assert_outcome(on, &[], 0, "replaced");
    assert_eq!(report["compared"]["different"], json!([]));

    let (status, out) = load.finish(LIMIT);
    assert_eq!(status.code(), Some(0), "{}\n{out}", load.stderr());
    let load: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&load["verdict"]["violations"], &load["received"]), (&json!([]), &load["expected"]), "{load}");
    let stored = load["stages"]["persisted"]["count"].as_u64().unwrap();
    assert_all_indexed(stored, &indexed);
    // Each way to fill an index finds what the live writes left in it.
    let report = assert_outcome(on, &["--since", "1h"], 0, "mended");
    assert_eq!(report["entries"], json!(stored));
    assert_outcome(on, &["--rollback"], 0, "rolled_back");
    assert_all_indexed(stored, &indexed);
    assert_outcome(on, &["--drop-former"], 0, "dropped_former");
    assert_eq!(indexed(), stored);
    let (status, _, err) = reindex(on, &["--rollback"]);
    assert_eq!(status, Some(1), "{err}");
    assert!(err.contains("there is no former index"), "{err}");
}

#[test]
fn an_embedded_index_is_built_anew_through_kills_and_load() {
    let server = Server::start();
    let file = server.data_dir().join("aula.db");
    let indexed = || {
        let file = rusqlite::Connection::open(&file).unwrap();
        let count: i64 = file.query_row("SELECT count(*) FROM messages_fts_docsize", [], |row| row.get(0)).unwrap();
        count as u64
    };
    through_kills(server.builder_ref(), &server.addr().to_string(), indexed);
}

#[test]
fn on_servers_an_index_is_built_anew_through_kills_and_load() {
    let cluster = Cluster::of(Arc::new(Namespace::new(&Servers::shared())), 1, 1, &[]);
    let url = format!("{}/{}", Servers::shared().elasticsearch, cluster.namespace.alias());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let indexed = || {
        runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            client.post(format!("{url}/_refresh")).send().await.unwrap();
            let counted: Value = client.get(format!("{url}/_count")).send().await.unwrap().json().await.unwrap();
            counted["count"].as_u64().unwrap_or_else(|| panic!("{counted}"))
        })
    };
    through_kills(&cluster.builder(), &cluster.gateways[0].addr().to_string(), indexed);
}

#[test]
fn what_there_is_and_what_would_be_done_is_said_beforehand() {
    let server = Server::start();
    let on = server.builder_ref();
    let (status, out, err) = on.aula(&["reindex", "--dry-run"]);
    assert_eq!(status.code(), Some(0), "{err}");
    let expected = "0 entries in 0 channels\nin use: messages_fts; being built: none; before it: none\n";
    assert!(out.contains(expected), "{out}");
    for wrong in [
        &["reindex", "--channel", "7"][..],
        &["reindex", "--since", "yesterday"],
        &["reindex", "--resume", "--since", "1h"],
        &["reindex", "--rollback", "--abandon"],
        &["reindex", "--workers", "0"],
        &["reindex", "--channel", "00000000-0000-0000-0000-000000000000"],
    ] {
        let (status, out, err) = on.aula(wrong);
        assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{wrong:?}: {err}");
    }
    let (status, out, err) = on.aula(&["reindex"]);
    assert_eq!(status.code(), Some(0), "{err}");
    assert!(out.starts_with("messages_fts is in use: 0 entries"), "{out}");
}

#[test]
fn nothing_is_made_where_there_is_nothing() {
    let on = Server::builder();
    let (status, out, err) = on.aula(&["reindex"]);
    assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("aula migrate"), "{err}");
}
