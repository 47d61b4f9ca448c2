//! A removed member gets nothing with a seq after its removal (promise P11).

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, Encoding, is_status, send_request};
use crate::people::People;
use crate::protocol_page::{shape::Bindings, shape_of};
use crate::server::Server;

/// The highest seq of the channel in anything the client received.
fn highest(client: &Client, channel: &str) -> u64 {
    fn walk(value: &Value, channel: &str, highest: &mut u64) {
        match value {
            Value::Object(fields) => {
                if fields.get("channel").is_some_and(|id| id == channel)
                    || fields.get("id").is_some_and(|id| id == channel)
                {
                    for name in ["seq", "last_seq"] {
                        *highest = (*highest).max(fields.get(name).and_then(Value::as_u64).unwrap_or(0));
                    }
                }
                fields.values().for_each(|value| walk(value, channel, highest));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, channel, highest)),
            _ => {}
        }
    }
    let mut seq = 0;
    client.received().iter().for_each(|frame| walk(frame, channel, &mut seq));
    seq
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gets_nothing_by_any_way() {
    let people = People::new(&["ada", "bob"]).await;
    for encoding in Encoding::BOTH {
        let ada = people.client("ada", encoding).await;
        let (open, phone) = (people.client("bob", encoding).await, people.client("bob", encoding).await);
        let group = ada.create_group("treasure", &["bob"]).await;
        ada.send_persisted(&group, "for bob too").await;
        let request = json!({"op": "remove_member", "channel": group, "members": ["bob"]});
        let reply = ada.request(request).await;
        let changed = ada.wait_for(|frame| frame["op"] == "members_changed" && frame["ref"] == reply["ref"]).await;
        let removal = changed["seq"].as_u64().unwrap();
        let mark = open.mark();
        ada.send_persisted(&group, "not for bob, treasure").await;

        for client in [&open, &phone] {
            client.wait_for(|frame| frame["op"] == "members_changed").await;
            let resumed = client.resume(&[(&group, removal)]).await;
            assert_eq!(resumed["channels"][&group]["code"], "not_a_member");
            for request in [
                json!({"op": "history", "channel": group}),
                json!({"op": "search", "query": "treasure", "channel": group}),
                json!({"op": "read", "channel": group, "seq": removal + 1}),
                json!({"op": "typing", "channel": group}),
                json!({"op": "add_members", "channel": group, "members": ["bob"]}),
            ] {
                assert_eq!(client.request(request.clone()).await["code"], "not_a_member", "{request}");
            }
            let (_, refused) = client.send(&group, "still here?").await;
            assert_eq!(refused["code"], "not_a_member");
            let found = client.request(json!({"op": "search", "query": "treasure"})).await;
            assert!(!found.to_string().contains(&group), "{found}");
        }
        let path = format!("/api/v1/channels/{group}/messages");
        assert_eq!(people.http.get(&path, Some(people.token("bob"))).await.0, 403);
        let listed = people.http.get("/api/v1/channels", Some(people.token("bob"))).await.1;
        assert!(!listed.to_string().contains(&group), "{listed}");
        let again = Client::try_connect(
            people.server.addr(),
            "bob",
            crate::client::Auth::Bearer(people.token("bob")),
            encoding,
        )
        .await
        .unwrap();
        assert!(!again.welcome().await.to_string().contains(&group));
        assert_eq!(again.resume(&[(&group, 0)]).await["channels"][&group]["code"], "not_a_member");
        ada.send_persisted(&group, "nor this").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        for client in [&open, &phone, &again] {
            assert!(highest(client, &group) <= removal, "{} knows of {}", client.username, highest(client, &group));
        }
        let more: Vec<_> = open.received_since(&mut { mark }).into_iter().filter(|f| f["op"] == "message").collect();
        assert!(more.iter().all(|frame| frame["seq"].as_u64().unwrap() <= removal), "{more:?}");
        // Who comes back may read all of it.
        let reply = ada.request(json!({"op": "add_members", "channel": group, "members": ["bob"]})).await;
        ada.wait_for(|frame| frame["op"] == "members_changed" && frame["ref"] == reply["ref"]).await;
        assert_eq!(again.history_all(&group).await.len() as u64, removal + 3);
    }
}

/// Added and removed in quick succession, while messages come, connections open and pages are read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_even_in_the_midst_of_it() {
    let builder = Server::builder()
        .env("AULA_SESSION_REQUESTS_PER_SECOND", 100_000)
        .env("AULA_SESSION_REQUEST_BURST", 100_000)
        .env("AULA_SESSION_MAX_PER_USER", 1000);
    let people = People::on(builder, &["ada", "bob"]).await;
    let ada = people.client("ada", Encoding::Json).await;
    let groups = {
        let mut groups = Vec::new();
        for index in 0..6 {
            groups.push(ada.create_group(&format!("group {index}"), &[]).await);
        }
        groups
    };
    let observer = people.client("bob", Encoding::Msgpack).await;
    let mut connections = Vec::new();
    for round in 0..40 {
        let group = &groups[round % groups.len()];
        ada.post(json!({"op": "add_members", "channel": group, "members": ["bob"]})).await.unwrap();
        for _ in 0..round % 5 {
            ada.post(message(group)).await.unwrap();
        }
        let page = json!({"op": "history", "channel": group, "limit": 100});
        observer.post(page.clone()).await.unwrap();
        let connecting = people.client("bob", Encoding::Json);
        let removal = async {
            if round % 2 == 0 {
                tokio::time::sleep(Duration::from_millis(round as u64 / 4)).await;
            }
            ada.post(json!({"op": "remove_member", "channel": group, "members": ["bob"]})).await.unwrap();
            for _ in 0..20 {
                ada.post(message(group)).await.unwrap();
                observer.post(page.clone()).await.unwrap();
            }
        };
        let (connection, ()) = tokio::join!(connecting, removal);
        connections.push(connection);
    }
    for group in &groups {
        ada.send_persisted(group, "the end").await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for client in connections.iter().chain([&observer]) {
        for group in &groups {
            check_stays(client, group, &ada.history_all(group).await);
        }
    }
}

fn message(group: &str) -> Value {
    send_request(group, "not for all", &uuid::Uuid::now_v7().to_string(), false)
}

/// Live messages only while a member; and after the frame that removes it, no page of history that goes further.
fn check_stays(client: &Client, group: &str, log: &[Value]) {
    let mut is_in = false;
    let mut may_see = vec![false; log.len() + 1];
    for entry in log {
        let body = entry["body"].as_str().unwrap();
        let seq = usize::try_from(entry["seq"].as_u64().unwrap()).unwrap();
        let is_change = entry["kind"] == "system";
        may_see[seq] = is_in || (is_change && body.contains("\"bob\""));
        if is_change && body.contains("\"bob\"") {
            is_in = body.starts_with("{\"added\"");
        }
    }
    let mut removed_at = u64::MAX;
    for frame in client.received() {
        match frame["op"].as_str().unwrap() {
            "message" if frame["channel"] == *group => {
                let seq = frame["seq"].as_u64().unwrap();
                assert!(may_see[usize::try_from(seq).unwrap()], "bob received {frame}");
                if frame["body"] == "{\"removed\":{\"members\":[\"bob\"]}}" {
                    removed_at = seq;
                }
            }
            "channel_created" if frame["channel"]["id"] == *group => removed_at = u64::MAX,
            "ok" if frame["channel"] == *group && frame["messages"].is_array() => {
                let last = frame["messages"].as_array().unwrap().last();
                let last = last.map_or(0, |entry| entry["seq"].as_u64().unwrap());
                assert!(last <= removed_at, "removed at {removed_at}, bob read up to {last}");
            }
            _ => {}
        }
    }
}

/// Its turn comes after the removal: it was accepted, and is rejected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_send_is_rejected() {
    let builder = Server::builder().arg("--no-worker").env("AULA_QUEUE_LEASE", "300ms");
    let people = People::on(builder, &["ada", "bob"]).await;
    for encoding in Encoding::BOTH {
        let mut worker = people.server.worker("db_tasks");
        let (ada, bob) = (people.client("ada", encoding).await, people.client("bob", encoding).await);
        let group = ada.create_group("lunch", &["bob"]).await;
        bob.wait_for(|frame| frame["op"] == "message" && frame["channel"] == *group).await;
        tokio::task::block_in_place(|| worker.kill9());
        // Nobody works: both wait, in this order.
        let removal = ada.request(json!({"op": "remove_member", "channel": group, "members": ["bob"]})).await;
        assert_eq!(removal["status"], "queued", "{removal}");
        let (client_id, reply) = bob.send(&group, "too late").await;
        assert_eq!(reply["status"], "accepted", "{reply}");
        let _worker = people.server.worker("db_tasks");
        // That of the round before may be said again: its worker was killed, perhaps before it could acknowledge.
        let status = bob.wait_for(|frame| is_status(frame, "rejected") && frame["client_id"] == client_id).await;
        assert_eq!(status["code"], "not_a_member", "{status}");
        Bindings::default().matches(&shape_of("rejected"), &status).expect("as on the protocol page");
        let history = ada.history_all(&group).await;
        assert!(history.iter().all(|entry| entry["client_id"] != client_id), "{history:?}");
        // Once more: it is known at once now.
        bob.wait_for(|frame| frame["op"] == "members_changed").await;
        let again = bob.send_with(&group, "too late", &client_id, true).await;
        assert_eq!(again["code"], "not_a_member", "{again}");
    }
}

crate::on_servers![gets_nothing_by_any_way, not_even_in_the_midst_of_it, an_accepted_send_is_rejected];
