//! Connecting, and being added to channels at the same time.

use std::collections::HashMap;

use serde_json::json;

use super::{named, refused, three};
use crate::client::{Encoding, is_status};
use crate::server::Server;

/// A channel is either in the welcome, and goes on behind it, or it comes by `channel_created`: not both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_comes_once_to_one_who_connects_meanwhile() {
    let people = three(Server::builder().env("AULA_SESSION_REQUESTS_PER_SECOND", 10_000)).await;
    let ada = people.one("ada", Encoding::Json).await;
    let bob = named("bob", Encoding::Json);
    for round in 0..40 {
        let name = format!("garden {round}");
        let members = [bob.as_str()];
        let (connected, group) = tokio::join!(people.one("bob", Encoding::Json), ada.create_group(&name, &members));
        let (_, reply) = ada.send(&group, "welcome").await;
        assert_eq!(reply["status"], "accepted", "{reply}");
        connected.wait_for(|frame| frame["op"] == "message" && frame["body"] == "welcome").await;
        let mut next: HashMap<String, u64> = HashMap::new();
        for frame in connected.received() {
            match frame["op"].as_str() {
                Some("welcome") => {
                    for channel in frame["channels"].as_array().unwrap() {
                        let id = channel["id"].as_str().unwrap().to_owned();
                        next.insert(id, channel["last_seq"].as_u64().unwrap() + 1);
                    }
                }
                Some("message") => {
                    let (id, seq) = (frame["channel"].as_str().unwrap(), frame["seq"].as_u64().unwrap());
                    let expected = next.insert(id.to_owned(), seq + 1).unwrap_or(1);
                    assert_eq!(seq, expected, "round {round}: {frame}");
                }
                _ => {}
            }
        }
        connected.close().await;
    }
}

/// Many requests at once don't get past what one after the other would not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_channels_holds_for_requests_at_once() {
    let mut people = three(Server::builder().env("AULA_CHANNELS_MAX_PER_USER", 5)).await;
    let ada = people.one("ada", Encoding::Json).await;
    let mut references = Vec::new();
    for n in 0..30 {
        let create = json!({"op": "create_channel", "kind": "group", "name": format!("g{n}"), "members": []});
        references.push(ada.post(create).await.unwrap());
    }
    let mut taken = 0;
    for reference in references {
        let answer = |frame: &serde_json::Value| {
            frame["ref"] == reference && (frame["op"] == "error" || frame["op"] == "channel_created")
        };
        let reply = ada.wait_for(answer).await;
        if reply["op"] == "error" { drop(refused(reply, "too_large")) } else { taken += 1 }
    }
    assert_eq!(taken, 5);
    // A lower limit takes nobody's channels away.
    people.server.builder_mut().set_env("AULA_CHANNELS_MAX_PER_USER", 2);
    tokio::task::block_in_place(|| people.server.restart());
    let ada = people.one("ada", Encoding::Json).await;
    let welcome = ada.welcome().await;
    let channels = welcome["channels"].as_array().unwrap();
    assert_eq!(channels.len(), 5);
    for channel in channels {
        let (client_id, _) = ada.send(channel["id"].as_str().unwrap(), "still here").await;
        ada.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == *client_id).await;
    }
}

/// Nobody indexes: that is no reason to refuse messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_lags_behind_stops_no_messages() {
    let builder = Server::builder()
        .arg("--no-worker")
        .env("AULA_QUEUE_MAX_DEPTH", 200)
        .env("AULA_QUEUE_PREFETCH", 8)
        .env("AULA_SESSION_REQUESTS_PER_SECOND", 10_000);
    let people = three(builder).await;
    let _worker = people.server.worker("db_tasks");
    let ada = people.one("ada", Encoding::Json).await;
    let channel = ada.create_direct(&named("bob", Encoding::Json)).await;
    for n in 0..260 {
        ada.send_persisted(&channel, &format!("message {n}")).await;
    }
}

crate::on_servers![
    a_channel_comes_once_to_one_who_connects_meanwhile,
    the_limit_of_channels_holds_for_requests_at_once,
];
