//! Every error code, on the socket.

use std::collections::BTreeSet;
use std::time::Duration;

use aula::wire::ErrorCode;
use serde_json::{Value, json};

use super::{in_channel, named, refused, three};
use crate::client::{Client, Encoding, send_request};
use crate::people::People;
use crate::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_has_its_cause() {
    let builder = Server::builder().env("AULA_FEATURES_TYPING", "false").env("AULA_SESSION_REQUEST_BURST", 50);
    let mut people = three(builder).await;
    for encoding in Encoding::BOTH {
        let mut seen = BTreeSet::new();
        let ada = people.one("ada", encoding).await;
        let bob = named("bob", encoding);
        let channel = ada.create_direct(&bob).await;
        for (code, request) in simple(&channel) {
            refused(ada.request(request).await, code);
            seen.insert(code);
        }
        seen.insert(unauthorized(&people, encoding).await);
        seen.insert(rate_limited(&people.one("bob", encoding).await).await);
        seen.insert(unavailable(&people, &ada, &channel).await);
        seen.insert(overloaded(&mut people, encoding, &channel).await);
        let all: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(seen, all);
    }
}

fn simple(channel: &str) -> Vec<(&'static str, Value)> {
    let id = uuid::Uuid::now_v7().to_string();
    // A client_id of 2020.
    let stale = send_request(channel, "b", "016f5e66-e800-7000-8000-000000000000", true);
    vec![
        ("forbidden", in_channel("typing", channel)),
        ("not_a_member", send_request(&id, "b", &id, false)),
        ("not_found", json!({"op": "create_channel", "kind": "direct", "members": ["nobody"]})),
        ("invalid", json!({"op": "send", "channel": {"$ne": null}, "client_id": id, "body": "b"})),
        ("too_large", send_request(channel, &"b".repeat(16 * 1024 + 1), &id, false)),
        ("conflict", in_channel("leave", channel)),
        ("unknown_op", json!({"op": "dance"})),
        ("stale_retry", stale),
    ]
}

async fn unauthorized(people: &People, encoding: Encoding) -> &'static str {
    let stranger = people.stranger(encoding).await;
    stranger.post(json!({"op": "auth", "token": "none"})).await.unwrap();
    refused(stranger.wait_for(|frame| frame["op"] == "error").await, "unauthorized");
    "unauthorized"
}

async fn rate_limited(client: &Client) -> &'static str {
    for _ in 0..60 {
        client.post(json!({"op": "ping"})).await.unwrap();
    }
    refused(client.wait_for(|frame| frame["op"] == "error").await, "rate_limited");
    "rate_limited"
}

/// The log can't be read for a while.
async fn unavailable(people: &People, client: &Client, channel: &str) -> &'static str {
    let database = rusqlite::Connection::open(people.server.data_dir().join("aula.db")).unwrap();
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    database.execute_batch("PRAGMA legacy_alter_table = ON; ALTER TABLE messages RENAME TO away").unwrap();
    let error = refused(client.request(in_channel("history", channel)).await, "unavailable");
    assert!(error["retry"] == true && error["retry_after_ms"].is_u64(), "{error}");
    let path = format!("/api/v1/channels/{channel}/messages");
    let (status, problem) = people.http.get(&path, Some(people.token(&client.username))).await;
    assert_eq!((status, &problem["code"]), (503, &json!("unavailable")), "{problem}");
    database.execute_batch("ALTER TABLE away RENAME TO messages").unwrap();
    assert_eq!(client.request(in_channel("history", channel)).await["op"], "ok");
    "unavailable"
}

/// An index task that the process before left counts too: there must be room beside it.
const MAX_DEPTH: usize = 60;

/// More tasks than may wait, because nobody works on them.
async fn overloaded(people: &mut People, encoding: Encoding, channel: &str) -> &'static str {
    let usual = people.server.builder_mut().clone();
    let builder = usual
        .clone()
        .arg("--no-worker")
        .env("AULA_SESSION_REQUEST_BURST", 500)
        .env("AULA_QUEUE_MAX_DEPTH", MAX_DEPTH)
        .env("AULA_QUEUE_PREFETCH", 1);
    *people.server.builder_mut() = builder;
    tokio::task::block_in_place(|| {
        // A kill would leave what was done in the last moment to be done again, in the room of the sends below.
        people.server.sigterm();
        let status = people.server.wait(Duration::from_secs(10));
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        people.server.restart();
    });
    let ada = people.one("ada", encoding).await;
    let mut accepted = 0;
    for _ in 0..MAX_DEPTH + 5 {
        let (_, reply) = ada.send(channel, "waits").await;
        if reply["status"] == "accepted" {
            accepted += 1;
        } else {
            refused(reply, "overloaded");
        }
    }
    assert!((1..=MAX_DEPTH).contains(&accepted), "{accepted}");
    let group = json!({"op": "create_channel", "kind": "direct", "members": [named("bob", encoding)]});
    refused(ada.request(group).await, "overloaded");
    *people.server.builder_mut() = usual;
    tokio::task::block_in_place(|| people.server.restart());
    people.http = crate::http::Http::new(people.server.addr());
    let ada = people.one("ada", encoding).await;
    ada.send_persisted(channel, "goes again").await;
    // The channel's own entry, and the one just sent.
    assert_eq!(ada.history_all(channel).await.len(), accepted + 2, "the accepted are there, the refused are not");
    "overloaded"
}
