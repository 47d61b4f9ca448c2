//! What a run leaves in its log, at every level: neither what people wrote nor what opens doors.

use std::time::Duration;

use serde_json::{Value, json};

use super::{END_LIMIT, bounded, builder, start_worker};
use crate::client::{Client, Encoding};
use crate::http::Http;
use crate::server::Server;

const SECRET_WORD: &str = "xylophonequartz";
const SECRET_PASSWORD: &str = "umbrella-zeppelin-9";

/// A run with a bit of everything, refusals too; returns its whole log and the tokens that were in play.
async fn run(format: &str, level: &str, split: bool) -> (String, Vec<String>) {
    let on = builder().global_arg("--log-format").global_arg(format).env("AULA_LOG_LEVEL", level);
    let mut server = if split { on.arg("--no-worker").start() } else { on.start() };
    let mut worker = split.then(|| start_worker(server.builder_ref(), &[]));
    let http = Http::new(server.addr());
    assert_eq!(http.sign_up("ada", SECRET_PASSWORD).await.0, 201);
    http.new_user("bob").await;
    let tokens = http.log_in("ada", SECRET_PASSWORD).await;
    let wrong = json!({"username": "ada", "password": format!("{SECRET_PASSWORD}-not")});
    assert_eq!(http.post("/api/v1/sessions", None, &wrong).await.0, 401);
    let ada = Client::connect(server.addr(), "ada", &tokens.access, Encoding::Json).await;
    let channel = ada.create_direct("bob").await;
    ada.send_persisted(&channel, &format!("{SECRET_WORD} one")).await;
    let id = uuid::Uuid::now_v7().to_string();
    for retry in [false, true] {
        ada.send_with(&channel, &format!("{SECRET_WORD} two"), &id, retry).await;
    }
    // Refused, in every way that quotes what it refuses.
    ada.send_with(&channel, &format!("{SECRET_WORD} {}", "long".repeat(5000)), &id, false).await;
    for request in [
        json!({"op": "search", "query": SECRET_WORD, "limit": 5}),
        json!({"op": "send", "channel": channel, "client_id": SECRET_WORD, "kind": "text", "body": SECRET_WORD}),
        json!({"op": "send", "channel": channel, "client_id": id, "kind": SECRET_WORD, "body": {"$ne": SECRET_WORD}}),
        json!({"op": SECRET_WORD, "body": SECRET_WORD}),
        json!({"op": "history", "channel": channel, "limit": 5}),
    ] {
        ada.request(request).await;
    }
    http.get(&format!("/api/v1/search?q={SECRET_WORD}"), Some(&tokens.access)).await;
    http.get(&format!("/api/v1/{SECRET_WORD}"), Some(&format!("{}x", tokens.access))).await;
    let refresh = json!({"refresh_token": tokens.refresh});
    let (_, renewed) = http.post("/api/v1/sessions/refresh", None, &refresh).await;
    // A used refresh token ends the session.
    assert_eq!(http.post("/api/v1/sessions/refresh", None, &refresh).await.0, 401);
    ada.wait_closed().await;
    let broken = http.new_user("eve").await;
    let eve = Client::connect(server.addr(), "eve", &broken, Encoding::Json).await;
    let garbage = format!("{{\"op\": \"send\", \"body\": \"{SECRET_WORD}");
    eve.send_raw(tokio_tungstenite::tungstenite::Message::text(garbage)).await.unwrap();
    eve.wait_closed().await;
    server.sigterm();
    tokio::task::block_in_place(|| server.wait(END_LIMIT)).expect("it drains");
    let mut log = server.stderr();
    if let Some(worker) = &mut worker {
        worker.signal(rustix::process::Signal::TERM);
        tokio::task::block_in_place(|| worker.wait(END_LIMIT)).expect("it drains");
        log += &worker.stderr();
    }
    let renewed = ["access_token", "refresh_token"].map(|name| renewed[name].as_str().unwrap().to_owned());
    let mut secrets = vec![tokens.access, tokens.refresh, broken];
    secrets.extend(renewed);
    (log, secrets)
}

fn assert_discreet(log: &str, secrets: &[String]) {
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.len() > 5, "too little is logged to judge: {log}");
    for word in [SECRET_WORD, SECRET_PASSWORD] {
        let told: Vec<_> = lines.iter().filter(|line| line.contains(word)).collect();
        assert!(told.is_empty(), "the log tells {word}: {told:#?}");
    }
    for secret in secrets {
        // A signature alone, too, would be enough to go on with.
        let parts = secret.split('.').filter(|part| part.len() > 20);
        for part in parts.chain([secret.as_str()]) {
            assert!(!log.contains(part), "the log holds a part of a token");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_logs_are_discreet() {
    bounded(60, async {
        for (level, split) in [("info", true), ("trace", false)] {
            let (log, secrets) = run("text", level, split).await;
            assert_discreet(&log, &secrets);
            assert!(!log.contains('\u{1b}'), "no colours for files");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_logs_are_discreet_and_parse() {
    bounded(60, async {
        let (log, secrets) = run("json", "trace", true).await;
        assert_discreet(&log, &secrets);
        for line in log.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            for field in ["timestamp", "level", "message", "target"] {
                assert!(line[field].is_string(), "no {field}: {line}");
            }
        }
    })
    .await;
}

/// Errors on the way to the log's start keep to the format's promise: JSON or nothing that a collector can't read.
#[test]
fn an_idle_server_logs_nothing() {
    let server = Server::start();
    std::thread::sleep(Duration::from_millis(500));
    let before = server.stderr().lines().count();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(server.stderr().lines().count(), before, "{}", server.stderr());
}
