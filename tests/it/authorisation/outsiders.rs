//! A non-member gets the same answer, byte for byte, whether the channel exists or not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Encoding, is_status};
use crate::people::People;

/// Every request that names a channel.
fn requests(channel: &str, client_id: &str) -> Vec<Value> {
    let search = json!({"op": "search", "query": "treasure", "channel": channel});
    vec![
        json!({"op": "send", "channel": channel, "client_id": client_id, "body": "let me in"}),
        json!({"op": "send", "channel": channel, "client_id": client_id, "body": "let me in", "retry": true}),
        json!({"op": "send", "channel": channel, "client_id": client_id, "body": "x".repeat(17_000)}),
        json!({"op": "send", "channel": channel, "client_id": client_id, "body": "", "kind": "system"}),
        json!({"op": "history", "channel": channel}),
        json!({"op": "history", "channel": channel, "after": 0, "limit": 1}),
        json!({"op": "history", "channel": channel, "limit": 0}),
        json!({"op": "resume", "channels": {channel: 0}}),
        json!({"op": "resume", "channels": {channel: 1_000_000}}),
        json!({"op": "delivered", "channel": channel, "seq": 1}),
        json!({"op": "read", "channel": channel, "seq": 1}),
        json!({"op": "read", "channel": channel, "seq": 1_000_000}),
        json!({"op": "typing", "channel": channel}),
        json!({"op": "add_members", "channel": channel, "members": ["mallory"]}),
        json!({"op": "add_members", "channel": channel, "members": ["nobody"]}),
        json!({"op": "add_members", "channel": channel, "members": []}),
        json!({"op": "remove_member", "channel": channel, "members": ["ada"]}),
        json!({"op": "leave", "channel": channel}),
        search,
    ]
}

/// The whole answer but its date.
fn http_bytes(addr: SocketAddr, path: &str, token: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:")).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn learn_nothing_of_a_channel() {
    let people = People::new(&["ada", "bob", "mallory"]).await;
    for encoding in Encoding::BOTH {
        let (ada, bob) = (people.client("ada", encoding).await, people.client("bob", encoding).await);
        let group = ada.create_group("treasure island", &["bob"]).await;
        let direct = ada.create_direct("bob").await;
        for channel in [&group, &direct] {
            ada.send_persisted(channel, "the treasure is under the palm").await;
        }
        let client_id = uuid::Uuid::now_v7().to_string();
        let nowhere = uuid::Uuid::now_v7().to_string();
        let mut answers = Vec::new();
        for channel in [&nowhere, &group, &direct] {
            // A connection of its own for each: the refs are the same then, and so must everything else be.
            let mallory = people.client("mallory", encoding).await;
            let mut replies = Vec::new();
            for request in requests(channel, &client_id) {
                let reply = mallory.request(request.clone()).await;
                if request["op"] == "resume" {
                    let refused = json!({"complete": false, "last_seq": 0, "code": "not_a_member"});
                    assert_eq!(reply["channels"][channel], refused, "{request}");
                } else {
                    assert_eq!(reply["code"], "not_a_member", "{request}: {reply}");
                }
                replies.push(encoding.encode(&reply).to_string().replace(channel.as_str(), "CHANNEL"));
            }
            assert_eq!(mallory.request(json!({"op": "search", "query": "treasure"})).await["total"], 0);
            let received = mallory.received();
            assert!(!received.iter().any(|frame| is_status(frame, "rejected") || frame["op"] == "message"));
            for query in ["", "?after=0", "?limit=0", "?before=2&after=1"] {
                let path = format!("/api/v1/channels/{channel}/messages{query}");
                let answer = http_bytes(people.server.addr(), &path, people.token("mallory"));
                assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("not_a_member"), "{path}: {answer}");
                replies.push(answer.replace(channel.as_str(), "CHANNEL"));
            }
            let path = format!("/api/v1/search?q=treasure&channel={channel}");
            let answer = http_bytes(people.server.addr(), &path, people.token("mallory"));
            assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
            replies.push(answer);
            answers.push(replies);
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0], answers[2]);
        // Nothing of it reached those who are in it.
        for channel in [&group, &direct] {
            assert_eq!(bob.history_all(channel).await.last().unwrap()["body"], "the treasure is under the palm");
        }
        assert!(!bob.received().iter().any(|frame| frame["op"] == "typing" || is_status(frame, "read")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_id_of_another_reveals_nothing() {
    let people = People::new(&["ada", "bob", "mallory"]).await;
    for encoding in Encoding::BOTH {
        let (ada, bob) = (people.client("ada", encoding).await, people.client("bob", encoding).await);
        let mallory = people.client("mallory", encoding).await;
        let group = ada.create_group("all", &["bob"]).await;
        let (client_id, _) = ada.send(&group, "mine").await;
        let stored = ada.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == client_id).await;
        // Of another member: it is another message.
        for retry in [false, true] {
            bob.send_with(&group, "mine too", &client_id, retry).await;
        }
        let own = bob.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == client_id).await;
        assert_ne!(own["seq"], stored["seq"]);
        let history = ada.history_all(&group).await;
        let with_it: Vec<_> = history.iter().filter(|entry| entry["client_id"] == client_id).collect();
        assert_eq!(with_it.len(), 2, "{history:?}");
        assert_eq!((&with_it[0]["body"], &with_it[1]["body"]), (&json!("mine"), &json!("mine too")));
        // In a channel that ada isn't in, and by who isn't in hers.
        let elsewhere = mallory.create_group("elsewhere", &[]).await;
        mallory.send_with(&elsewhere, "whose is this", &client_id, true).await;
        let status = mallory.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == client_id).await;
        assert_eq!((&status["channel"], &status["seq"]), (&json!(elsewhere), &json!(2)));
        let refused = mallory.send_with(&group, "whose is this", &client_id, true).await;
        assert_eq!(refused["code"], "not_a_member", "{refused}");
    }
}

crate::on_servers![learn_nothing_of_a_channel, a_client_id_of_another_reveals_nothing];
