//! What a connection is told first.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{named, three};
use crate::client::Encoding;
use crate::server::Server;

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_channels_with_ten_messages() {
    shows(Server::builder(), 5, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_as_configured() {
    let builder = Server::builder().env("AULA_WELCOME_CHANNELS", 2).env("AULA_WELCOME_MESSAGES", 3);
    shows(builder, 2, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_if_so_configured() {
    shows(Server::builder().env("AULA_WELCOME_CHANNELS", 0), 0, 10).await;
}

async fn shows(builder: crate::server::Builder, channels: usize, messages: usize) {
    const CHANNELS: usize = 7;
    let people = three(builder).await;
    for encoding in Encoding::BOTH {
        let (ada, bob) = (people.one("ada", encoding).await, people.one("bob", encoding).await);
        let mut groups = Vec::new();
        for index in 0..CHANNELS {
            groups.push(ada.create_group(&format!("group {index}"), &[&bob.username]).await);
        }
        for group in &groups {
            for index in 0..11 {
                ada.send(group, &format!("message {index}")).await;
            }
            // Seq 1 is the channel's own.
            assert_eq!(ada.send_persisted(group, "the last").await, 13);
        }
        bob.post(json!({"op": "read", "channel": groups[0], "seq": 3})).await.unwrap();
        let reads = bob.wait_for(|frame| frame["op"] == "status" && frame["status"] == "read").await;
        assert_eq!(reads["seq"], 3);

        let again = people.one("bob", encoding).await;
        let welcome = again.welcome().await;
        assert_eq!(keys(&welcome), BTreeSet::from(["op", "session", "username", "server", "features", "channels"]));
        assert_eq!(welcome["username"], *named("bob", encoding));
        assert!(welcome["server"].as_str().unwrap().starts_with("aula/"), "{welcome}");
        let listed = welcome["channels"].as_array().unwrap();
        let ids: Vec<&str> = listed.iter().map(|channel| channel["id"].as_str().unwrap()).collect();
        let newest_first: Vec<&str> = groups.iter().rev().map(String::as_str).collect();
        assert_eq!(ids, newest_first);
        for (index, channel) in listed.iter().enumerate() {
            let mut expected = BTreeSet::from([
                "id",
                "kind",
                "name",
                "members",
                "member_count",
                "last_seq",
                "delivered_seq",
                "read_seq",
                "unread",
                "delivered_by_all",
                "read_by_all",
            ]);
            let read = if index == CHANNELS - 1 { 3 } else { 0 };
            assert_eq!((&channel["last_seq"], &channel["read_seq"]), (&json!(13), &json!(read)));
            assert_eq!(channel["unread"], 13 - read);
            if index < channels {
                expected.insert("messages");
                let shown = channel["messages"].as_array().unwrap();
                let seqs: Vec<u64> = shown.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
                assert_eq!(seqs, (14 - messages as u64..=13).collect::<Vec<_>>());
                assert_eq!(shown.last().unwrap()["body"], "the last");
            }
            assert_eq!(keys(channel), expected, "{channel}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_may_resume() {
    let people = three(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let (ada, bob) = (people.one("ada", encoding).await, people.one("bob", encoding).await);
        let channel = ada.create_direct(&bob.username).await;
        for body in ["one", "two", "three"] {
            ada.send_persisted(&channel, body).await;
        }
        let unknown = uuid::Uuid::now_v7().to_string();
        let client = people.stranger(encoding).await;
        let token = people.token(&named("bob", encoding));
        let auth = json!({"op": "auth", "token": token, "resume": {&channel: 2, &unknown: 0}});
        let reference = client.post(auth).await.unwrap();
        let reply = client.wait_for(|frame| frame["op"] == "ok").await;
        assert_eq!(reply["ref"], reference);
        assert_eq!(reply["channels"][&channel], json!({"complete": true, "last_seq": 4}));
        assert_eq!(reply["channels"][&unknown], json!({"complete": false, "last_seq": 0, "code": "not_a_member"}));
        let frames = client.received();
        let ops: Vec<&str> = frames.iter().map(|frame| frame["op"].as_str().unwrap()).collect();
        assert_eq!(ops, ["welcome", "message", "message", "ok"]);
        assert_eq!((&frames[1]["seq"], &frames[2]["seq"]), (&json!(3), &json!(4)));
    }
}

crate::on_servers![five_channels_with_ten_messages, as_many_as_configured, none_if_so_configured, auth_may_resume];
