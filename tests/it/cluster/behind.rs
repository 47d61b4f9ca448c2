//! A gateway that the events reach late, or not at all: what was persisted is not hidden there (promises P7, P8).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::proxy::Proxy;
use super::trial::{Trial, bounded};
use super::{Cluster, namespace::Namespace, servers::Servers};
use crate::client::{Client, Encoding};
use crate::http::Http;

/// Two gateways, the second of them on a cable to the broker that can be bent.
struct Pair {
    cluster: Cluster,
    cable: Proxy,
    ann: Client,
    ben: Client,
    ben_token: String,
    channel: String,
}

impl Pair {
    async fn start() -> Self {
        let (cluster, cable) = tokio::task::block_in_place(|| {
            let namespace = Arc::new(Namespace::new(&Servers::shared()));
            let mut cluster = Cluster::of(Arc::clone(&namespace), 1, 1, &[]);
            let cable = Proxy::start(namespace.broker_address());
            let second = cluster.gateway().env("AULA_RABBITMQ_URL", namespace.amqp_url(Some(&cable)));
            cluster.gateways.push(second.start());
            (cluster, cable)
        });
        let http = Http::new(cluster.gateways[0].addr());
        let (ann_token, ben_token) = (http.new_user("ann").await, http.new_user("ben").await);
        let ann = Client::connect(cluster.gateways[0].addr(), "ann", &ann_token, Encoding::Json).await;
        let ben = Client::connect(cluster.gateways[1].addr(), "ben", &ben_token, Encoding::Json).await;
        let channel = ann.create_direct("ben").await;
        ben.wait_for(|frame| frame["op"] == "message" && frame["seq"] == 1).await;
        Self { cluster, cable, ann, ben, ben_token, channel }
    }

    /// Another session of ben's on the second gateway, and what its welcome says of the channel.
    async fn again(&self) -> (Client, Value) {
        let client = Client::connect(self.cluster.gateways[1].addr(), "ben", &self.ben_token, Encoding::Msgpack).await;
        let welcome = client.welcome().await;
        let channels = welcome["channels"].as_array().unwrap();
        let of_channel = channels.iter().find(|channel| channel["id"] == *self.channel).unwrap().clone();
        (client, of_channel)
    }

    /// Right after ann was told that `head` is persisted.
    async fn holds(&self, head: u64, what: &str) {
        let history = self.ben.request(json!({"op": "history", "channel": self.channel, "limit": 3})).await;
        let seqs: Vec<_> = history["messages"].as_array().unwrap().iter().map(|entry| entry["seq"].clone()).collect();
        assert_eq!(seqs.last().unwrap(), head, "{what}: {seqs:?}");
    }

    async fn resumes(&self, client: &Client, after: u64, head: u64, what: &str) {
        let mark = client.mark();
        let reply = client.resume(&[(&self.channel, after)]).await;
        assert_eq!(reply["channels"][&self.channel], json!({"complete": true, "last_seq": head}), "{what}");
        let frames = client.received_since(&mut { mark });
        let seqs: Vec<_> = frames.iter().filter(|frame| frame["op"] == "message").map(|frame| &frame["seq"]).collect();
        assert!(after == head || seqs.ends_with(&[&json!(head)]), "{what}: {seqs:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_persisted_is_seen_on_a_gateway_whose_events_are_late() {
    bounded(120, async {
        let pair = Pair::start().await;
        pair.cable.slow(Duration::from_millis(300), Duration::ZERO);
        let mut head = 1;
        for round in 0..4 {
            head = pair.ann.send_persisted(&pair.channel, "in the history?").await.max(head);
            pair.holds(head, "late events").await;
            head = pair.ann.send_persisted(&pair.channel, "in a resume?").await.max(head);
            // From before it, and from it, as one does who has seen it elsewhere.
            pair.resumes(&pair.ben, head - round % 2, head, "late events").await;
            head = pair.ann.send_persisted(&pair.channel, "in a welcome?").await.max(head);
            let (client, welcomed) = pair.again().await;
            assert_eq!((&welcomed["last_seq"], &welcomed["unread"]), (&json!(head), &json!(head)), "{welcomed}");
            assert_eq!(welcomed["messages"].as_array().unwrap().last().unwrap()["seq"], head);
            client.close().await;
        }
        // All of it live, and once.
        pair.ben.wait_for(|frame| frame["op"] == "message" && frame["seq"] == head).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_persisted_is_seen_on_a_gateway_without_events() {
    bounded(120, async {
        let pair = Pair::start().await;
        // Nobody there has noticed yet.
        pair.cable.half_open();
        let mut head = 1;
        for _ in 0..3 {
            head = pair.ann.send_persisted(&pair.channel, "unheard").await.max(head);
        }
        let (client, welcomed) = pair.again().await;
        assert_eq!(welcomed["last_seq"], head, "{welcomed}");
        pair.resumes(&client, head - 3, head, "no events").await;
        for _ in 0..3 {
            head = pair.ann.send_persisted(&pair.channel, "unheard").await.max(head);
        }
        pair.holds(head, "no events").await;
        for _ in 0..3 {
            head = pair.ann.send_persisted(&pair.channel, "unheard").await.max(head);
        }
        pair.resumes(&pair.ben, head, head, "no events").await;
        pair.resumes(&pair.ben, head - 5, head, "no events").await;
    })
    .await;
}

/// The users go back and forth between the two, and the oracle is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_promises_hold_with_a_gateway_whose_events_are_late() {
    bounded(180, async {
        let Pair { cluster, cable, .. } = Pair::start().await;
        cable.slow(Duration::from_millis(150), Duration::from_millis(100));
        let mut trial = Trial::on(cluster).await;
        trial.go_on(Duration::from_secs(8)).await;
        cable.heal();
        trial.end("late events on one of two gateways").await;
    })
    .await;
}
