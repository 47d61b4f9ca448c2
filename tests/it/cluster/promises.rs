//! What is promised holds on two gateways and two workers, wherever one connects.

use std::time::Duration;

use serde_json::json;

use super::balancer::Balancer;
use super::proxy::Proxy;
use super::trial::{Trial, bounded};
use super::{Cluster, namespace::Namespace, servers::Servers};
use crate::client::{Client, Encoding, is_status};
use crate::http::Http;
use crate::swarm::Pace;

fn namespace() -> Namespace {
    tokio::task::block_in_place(|| Namespace::new(&Servers::shared()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_promises_hold_on_two_gateways_and_two_workers() {
    bounded(180, async {
        let mut trial = Trial::start(namespace(), &[]).await;
        trial.go_on(Duration::from_secs(10)).await;
        let counts = trial.end("two gateways, two workers").await;
        assert!(counts.messages > 500, "too little happened: {counts:?}");
    })
    .await;
}

/// `/ws` needs no sticky sessions, nor does the rest: every connection goes to the next gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_balancer_that_remembers_nobody() {
    bounded(180, async {
        let cluster = tokio::task::block_in_place(Cluster::start);
        let balancer = Balancer::start(cluster.addrs()).await;
        let cable = Proxy::start(&balancer.addr().to_string());
        let mut trial = Trial::at(cluster, &[cable.addr()], Pace::STEADY).await;
        for _ in 0..6 {
            trial.go_on_ms(500, 1500).await;
            cable.cut();
        }
        let counts = trial.end("behind a round-robin balancer").await;
        assert!(counts.connections >= 6 * 8, "{counts:?}");
        let by_gateway = balancer.counts();
        assert!(by_gateway.iter().all(|count| *count >= 20), "{by_gateway:?}");
    })
    .await;
}

/// Two people, each with a session on both gateways, and a third who is taken out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_sees_everything_on_whatever_gateway() {
    bounded(120, async {
        let cluster = tokio::task::block_in_place(Cluster::start);
        let [first, second] = [0, 1].map(|index| cluster.gateways[index].addr());
        let mut tokens = Vec::new();
        for (name, place) in [("ada", first), ("bob", second), ("cleo", first)] {
            tokens.push((name, Http::new(place).new_user(name).await));
        }
        let mut clients = Vec::new();
        for (name, token) in &tokens {
            for (place, encoding) in [(first, Encoding::Json), (second, Encoding::Msgpack)] {
                clients.push(Client::connect(place, name, token, encoding).await);
            }
        }
        let [ada, _, _, bob, cleo, cleo_too] = &clients[..] else { unreachable!() };
        let group = ada.create_group("all", &["bob", "cleo"]).await;
        for client in &clients {
            client.wait_for(|frame| frame["op"] == "channel_created" && frame["channel"]["id"] == *group).await;
        }
        // From either gateway to both; statuses go to all of the sender's sessions.
        for (sender, body) in [(ada, "from the first"), (bob, "from the second")] {
            let (client_id, reply) = sender.send(&group, body).await;
            assert_eq!(reply["status"], "accepted", "{reply}");
            for client in &clients {
                client.wait_for(|frame| frame["op"] == "message" && frame["body"] == body).await;
                if client.username == sender.username {
                    client.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == client_id).await;
                }
            }
        }
        let seq = 3;
        for client in &clients {
            client.post(json!({"op": "read", "channel": group, "seq": seq})).await.unwrap();
        }
        for client in &clients {
            client.wait_for(|frame| is_status(frame, "read") && frame["seq"] == seq).await;
        }
        // To everybody but the socket where it is typed.
        ada.post(json!({"op": "typing", "channel": group})).await.unwrap();
        for client in &clients[1..] {
            client.wait_for(|frame| frame["op"] == "typing" && frame["username"] == "ada").await;
        }
        assert!(ada.received().iter().all(|frame| frame["op"] != "typing"));
        // Only one of the requester's sockets is answered.
        ada.send_persisted(&group, "needle").await;
        loop {
            let reply = bob.request(json!({"op": "search", "query": "needle"})).await;
            if reply["hits"].as_array().is_some_and(|hits| hits.len() == 1) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Taken out by way of the first gateway, and silent on both from there on.
        let request = json!({"op": "remove_member", "channel": group, "members": ["cleo"]});
        assert_eq!(ada.request(request).await["op"], "ok");
        for client in [cleo, cleo_too] {
            let told = client.wait_for(|frame| frame["op"] == "members_changed" && frame["removed"][0] == "cleo").await;
            let end = told["seq"].as_u64().unwrap();
            let (_, reply) = bob.send(&group, "without cleo").await;
            assert_eq!(reply["status"], "accepted", "{reply}");
            bob.wait_for(|frame| frame["op"] == "message" && frame["seq"].as_u64() > Some(end)).await;
            let (_, refused) = client.send(&group, "may I?").await;
            assert_eq!(refused["code"], "not_a_member", "{refused}");
            let late = client.received().into_iter().find(|frame| frame["seq"].as_u64() > Some(end));
            assert!(late.is_none(), "{late:?}");
            assert_eq!(client.request(json!({"op": "history", "channel": group})).await["code"], "not_a_member");
        }
    })
    .await;
}
