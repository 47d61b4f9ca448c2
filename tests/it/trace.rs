//! `aula trace`: a message is followed to where it is, and to whom it got.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, Encoding};
use crate::cluster::Cluster;
use crate::cluster::namespace::Namespace;
use crate::cluster::servers::Servers;
use crate::cluster::trial::bounded;
use crate::http::Http;
use crate::people::People;
use crate::server::Builder;

fn trace(on: &Builder, words: &[&str]) -> Value {
    let (status, out, err) = on.aula(&[&["--output", "json", "trace"], words].concat());
    assert!(status.success(), "{words:?}: {err}");
    serde_json::from_str(&out).unwrap()
}

fn assert_refused(on: &Builder, words: &[&str], code: i32, says: &str) {
    let (status, out, err) = on.aula(&[&["trace"], words].concat());
    assert_eq!((status.code(), out.as_str()), (Some(code), ""), "{words:?}: {err}");
    assert!(err.contains(says), "{words:?}: {err}");
}

/// Ada writes, bob reads, cyd never comes, dan is added afterwards.
async fn follow(on: &Builder, ada: &Client, bob: &Client, index: &str, place: &str) {
    let group = ada.create_group("all", &["bob", "cyd"]).await;
    let seq = ada.send_persisted(&group, "a secret").await;
    bob.post(json!({"op": "read", "channel": group, "seq": seq})).await.unwrap();
    ada.send_persisted(&group, "another").await;
    ada.request(json!({"op": "add_members", "channel": group, "members": ["dan"]})).await;
    let message = ada.history_all(&group).await.into_iter().find(|one| one["body"] == "a secret").unwrap();
    let id = message["id"].as_str().unwrap();
    // Marks are gathered for a moment, and an index lags.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    tokio::task::block_in_place(|| {
        let life = trace(on, &[id]);
        for (key, value) in [
            ("id", json!(id)),
            ("channel", json!(group)),
            ("channel_name", json!("all")),
            ("seq", json!(seq)),
            ("sender", json!("ada")),
            ("accepted_at", message["at"].clone()),
            ("bytes", json!(8)),
            ("delivered_to_all", json!(false)),
        ] {
            assert_eq!(life[key], value, "{key}: {life:#}");
        }
        assert!(life["body"].is_null() && life["stored"].as_str().unwrap().contains(place), "{life:#}");
        assert_eq!(life["index"]["state"], "indexed", "{life:#}");
        assert!(life["index"]["index"].as_str().unwrap().contains(index), "{life:#}");
        let state = |user: &str| {
            let members = life["members"].as_array().unwrap();
            members.iter().find(|member| member["user"] == user).unwrap()["state"].as_str().unwrap().to_owned()
        };
        let states = ["ada", "bob", "cyd", "dan"].map(state);
        assert_eq!(states, ["read", "read", "not_delivered", "joined_later"], "{life:#}");
        for same in [[format!("{group}:{seq}").as_str(), "--quiet"], [id, "--quiet"]] {
            assert_eq!(trace(on, &same), life, "{same:?}");
        }
        assert_eq!(trace(on, &[id, "--channel", &group]), life);
        assert_eq!(trace(on, &[id, "--body"])["body"], "a secret");
        // What is no text is in no index: its id leads to it all the same.
        let added = trace(on, &[&format!("{group}:4")]);
        assert_eq!((&added["kind"], &added["index"]["state"]), (&json!("system"), &json!("not_meant_to_be")));
        assert_eq!(trace(on, &[added["id"].as_str().unwrap()]), added);

        let (status, text, _) = on.aula(&["trace", id]);
        assert!(status.success() && !text.contains("secret"), "{text}");
        assert!(
            text.contains("read         by 2 of 3 members\n") && text.contains("cyd     not delivered yet  1\n"),
            "{text}"
        );
        assert_refused(on, &[&format!("{group}:99")], 1, "its last is 4");
        assert_refused(on, &[&uuid::Uuid::now_v7().to_string()], 1, "it is in no log");
        assert_refused(on, &[&uuid::Uuid::new_v4().to_string()], 1, "it is in no log");
        assert_refused(on, &["41"], 2, "CHANNEL:SEQ");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_followed_on_an_embedded_server() {
    let people = People::new(&["ada", "bob", "cyd", "dan"]).await;
    let (ada, bob) = (people.client("ada", Encoding::Json).await, people.client("bob", Encoding::Json).await);
    follow(people.server.builder_ref(), &ada, &bob, "messages_fts", "aula.db, table messages").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_followed_on_servers() {
    bounded(90, async {
        let namespace = Arc::new(tokio::task::block_in_place(|| Namespace::new(&Servers::shared())));
        let cluster = tokio::task::block_in_place(|| Cluster::of(Arc::clone(&namespace), 1, 1, &[]));
        let address = cluster.gateways[0].addr();
        let http = Http::new(address);
        let mut tokens = Vec::new();
        for name in ["ada", "bob", "cyd", "dan"] {
            tokens.push(http.new_user(name).await);
        }
        let ada = Client::connect(address, "ada", &tokens[0], Encoding::Json).await;
        let bob = Client::connect(address, "bob", &tokens[1], Encoding::Json).await;
        follow(&cluster.builder(), &ada, &bob, &namespace.alias(), "messages_by_channel, bucket 0").await;
    })
    .await;
}
