//! Connections that are slow, that break, and that are silent: between the processes and each server.

use std::time::Duration;

use serde_json::json;

use super::proxy::Proxy;
use super::trial::{Trial, bounded};
use super::{Cluster, namespace::Namespace, servers::Servers};
use crate::client::{Client, Encoding, is_status, send_request};
use crate::http::Http;

/// Silence is noticed after two heartbeats, or after a request's time.
const IMPATIENT: [(&str, &str); 2] = [("AULA_RABBITMQ_HEARTBEAT", "2s"), ("AULA_CASSANDRA_REQUEST_TIMEOUT", "2s")];

fn namespace() -> Namespace {
    tokio::task::block_in_place(|| Namespace::behind_proxies(&Servers::shared()))
}

/// Does something to the connections of each server, one after the other.
async fn to_each(what: &str, seconds: u64, harm: impl AsyncFn(&mut Trial, &Proxy)) {
    bounded(seconds, async {
        let mut trial = Trial::start(namespace(), &IMPATIENT).await;
        let namespace = std::sync::Arc::clone(&trial.cluster.namespace);
        for (server, proxy) in namespace.proxies.as_ref().unwrap().all() {
            println!("{what}: {server}");
            trial.go_on_ms(300, 700).await;
            harm(&mut trial, proxy).await;
            proxy.heal();
        }
        trial.go_on(Duration::from_secs(1)).await;
        trial.end(what).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_connections() {
    to_each("slow connections", 150, async |trial, proxy| {
        proxy.slow(Duration::from_millis(40), Duration::from_millis(60));
        trial.go_on(Duration::from_secs(5)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_reset() {
    to_each("reset connections", 180, async |trial, proxy| {
        for _ in 0..6 {
            proxy.cut();
            trial.go_on_ms(100, 1200).await;
        }
        proxy.refuse();
        proxy.cut();
        trial.go_on(Duration::from_secs(3)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_half_open() {
    to_each("half-open connections", 240, async |trial, proxy| {
        proxy.half_open();
        trial.go_on(Duration::from_secs(8)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_stall() {
    to_each("stalled connections", 180, async |trial, proxy| {
        for time in [200, 1500, 6000] {
            proxy.stall();
            trial.go_on(Duration::from_millis(time)).await;
            proxy.heal();
            trial.go_on_ms(200, 400).await;
        }
    })
    .await;
}

/// Its clients stay connected, and get all they missed, the statuses too, without asking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_gateway_loses_its_broker() {
    bounded(150, async {
        let cluster = tokio::task::block_in_place(|| {
            let namespace = std::sync::Arc::new(Namespace::new(&Servers::shared()));
            Cluster::of(namespace, 1, 2, &IMPATIENT)
        });
        let namespace = std::sync::Arc::clone(&cluster.namespace);
        let cable = Proxy::start(namespace.broker_address());
        let mut cluster = cluster;
        let second = cluster.gateway().env("AULA_RABBITMQ_URL", namespace.amqp_url(Some(&cable)));
        tokio::task::block_in_place(|| cluster.gateways.push(second.start()));
        let [whole, cut_off] = [0, 1].map(|index| cluster.gateways[index].addr());
        let http = Http::new(whole);
        let (ann_token, ben_token) = (http.new_user("ann").await, http.new_user("ben").await);
        let ann = Client::connect(whole, "ann", &ann_token, Encoding::Json).await;
        let ben = Client::connect(cut_off, "ben", &ben_token, Encoding::Json).await;
        let ann_too = Client::connect(cut_off, "ann", &ann_token, Encoding::Msgpack).await;
        let channel = ann.create_direct("ben").await;
        for client in [&ben, &ann_too] {
            client.wait_for(|frame| frame["op"] == "channel_created").await;
        }
        let mut trial = Trial::on(cluster).await;
        for silent in [false, true] {
            trial.go_on(Duration::from_millis(500)).await;
            if silent {
                cable.half_open();
            } else {
                cable.refuse();
                cable.cut();
            }
            let mut last = String::new();
            for number in 0..20 {
                let (client_id, reply) = ann.send(&channel, &format!("{number}, silent: {silent}")).await;
                assert_eq!(reply["status"], "accepted", "{reply}");
                last = client_id;
                trial.go_on(Duration::from_millis(if silent { 300 } else { 100 })).await;
            }
            let status = ann.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == *last).await;
            let seq = status["seq"].as_u64().unwrap();
            ann.post(json!({"op": "read", "channel": channel, "seq": seq})).await.unwrap();
            // Who is cut off is told so, and may try again.
            let id = uuid::Uuid::now_v7().to_string();
            let reply = ben.try_request(send_request(&channel, "from afar", &id, false)).await;
            if let Some(reply) = reply {
                assert!(reply["status"] == "accepted" || reply["retry"] == true, "{reply}");
            }
            cable.heal();
            // Everything comes, in its order.
            ben.wait_for(|frame| frame["op"] == "message" && frame["seq"] == seq).await;
            ann_too.wait_for(|frame| frame["op"] == "message" && frame["seq"] == seq).await;
            ann_too.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == *last).await;
            let repeated = async {
                loop {
                    let reply = ben.send_with(&channel, "from afar", &id, true).await;
                    if reply["status"] == "accepted" {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), repeated).await.expect("it can be sent again");
            for client in [&ann, &ben] {
                client.wait_for(|frame| frame["op"] == "message" && frame["client_id"] == *id).await;
            }
            ben.post(json!({"op": "read", "channel": channel, "seq": seq})).await.unwrap();
            for client in [&ann, &ann_too, &ben] {
                client.wait_for(|frame| is_status(frame, "read") && frame["seq"] == seq).await;
            }
        }
        for client in [&ann, &ben, &ann_too] {
            assert!(client.close_reason().is_none(), "{} was disconnected", client.username);
            let seqs: Vec<u64> = client
                .received()
                .iter()
                .filter(|frame| frame["op"] == "message" && frame["channel"] == *channel)
                .map(|frame| frame["seq"].as_u64().unwrap())
                .collect();
            assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{}: {seqs:?}", client.username);
        }
        // After a long cut it says `persisted` again only of what its rooms' rings still hold; who was told less sends
        // again and is told then.
        trial.end_but_for("one gateway without its broker", |found| found.contains(" was never told that ")).await;
    })
    .await;
}
