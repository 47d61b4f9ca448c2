//! Servers that stop or stand still, under load, and come back. Each test has the second set of servers to itself.

mod blocked;
mod no_quorum;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Cluster;
use super::namespace::Namespace;
use super::servers::Breakable;
use super::trial::{Trial, bounded};
use crate::client::{Client, Encoding, is_status, send_request};
use crate::http::Http;
use crate::swarm::Pace;

/// How long a server is away at least: a minute where others have to do without it for long. `AULA_TEST_DOWN_SECONDS`
/// says otherwise.
fn down_time(server: &str, kill: bool) -> Duration {
    if let Ok(asked) = std::env::var("AULA_TEST_DOWN_SECONDS") {
        return Duration::from_secs(asked.parse().expect("AULA_TEST_DOWN_SECONDS is a number"));
    }
    Duration::from_secs(if matches!(server, "cassandra" | "elasticsearch") && !kill { 60 } else { 15 })
}

/// In seconds, for a test in which servers are away twice.
fn limit() -> u64 {
    // A server may take a minute to start beside all else.
    240 + 3 * down_time("cassandra", false).as_secs()
}

/// After so long an owner knows that a client_id made since is new, by itself.
const TAKEOVER: Duration = Duration::from_secs(61);
/// Messages of one channel while the database is away: more than one flush takes.
const BURST: usize = 700;
const SOON: Duration = Duration::from_secs(30);
const IMPATIENT: [(&str, &str); 2] = [("AULA_RABBITMQ_HEARTBEAT", "2s"), ("AULA_CASSANDRA_REQUEST_TIMEOUT", "2s")];

struct Outage {
    trial: Trial,
    ann: Client,
    ben: Client,
    channel: String,
    // After the trial, whose namespace is on it.
    breakable: Breakable,
}

impl Outage {
    async fn prepare(breakable: Breakable) -> Self {
        let namespace = Arc::new(Namespace::new(&breakable.servers));
        let cluster = tokio::task::block_in_place(|| Cluster::on(namespace, &IMPATIENT));
        let places = cluster.addrs();
        let trial = Trial::at(cluster, &places, Pace::CALM).await;
        let [one, other] = [0, 1].map(|index| trial.cluster.gateways[index].addr());
        let (ann, ben) = (Http::new(one).new_user("ann").await, Http::new(other).new_user("ben").await);
        let ann = Client::connect(one, "ann", &ann, Encoding::Json).await;
        let ben = Client::connect(other, "ben", &ben, Encoding::Msgpack).await;
        let channel = ann.create_direct("ben").await;
        ben.wait_for(|frame| frame["op"] == "channel_created").await;
        ann.send_persisted(&channel, "before the outage").await;
        Self { trial, ann, ben, channel, breakable }
    }

    /// Ends the server while the load runs, and calls `meanwhile` until the time is over.
    async fn without(&mut self, server: &str, kill: bool, mut meanwhile: impl AsyncFnMut(&mut Self, u32)) {
        self.trial.go_on(Duration::from_secs(1)).await;
        let ended = Instant::now();
        tokio::task::block_in_place(|| if kill { self.breakable.kill(server) } else { self.breakable.stop(server) });
        let mut round = 0;
        while ended.elapsed() < down_time(server, kill) {
            meanwhile(self, round).await;
            round += 1;
            self.trial.go_on(Duration::from_millis(500)).await;
        }
        tokio::task::block_in_place(|| self.breakable.start(server));
        println!("{server} was away for {:?}", ended.elapsed());
    }

    /// Waits until a message is persisted again; how long that took.
    async fn recovered(&self) -> Duration {
        let back = Instant::now();
        let id = uuid::Uuid::now_v7().to_string();
        let persisted = async {
            let mut retry = false;
            loop {
                let mark = self.ann.mark();
                let reply = self.ann.send_with(&self.channel, "after the outage", &id, retry).await;
                retry = true;
                if reply["status"] == "accepted" {
                    self.ann
                        .wait_within(SOON, mark.saturating_sub(1), |frame| {
                            is_status(frame, "persisted") && frame["client_id"] == *id
                        })
                        .await;
                    return;
                }
                assert_eq!(reply["retry"], true, "{reply}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(SOON, persisted).await.expect("a message is persisted after the outage");
        back.elapsed()
    }

    /// A send whose confirm may be waited for in vain, which takes 10 s.
    async fn send_patiently(&self, channel: &str, body: &str) -> (String, Value) {
        let id = uuid::Uuid::now_v7().to_string();
        let reply = self.ann.request_within(send_request(channel, body, &id, false), SOON).await;
        (id, reply.expect("every send is answered"))
    }

    async fn end(self, what: &str) {
        for client in [&self.ann, &self.ben] {
            assert!(
                client.close_reason().is_none(),
                "{} was disconnected: {:?}",
                client.username,
                client.close_reason()
            );
        }
        self.trial.end(what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_stops_and_starts() {
    bounded(limit(), async {
        let mut outage = Outage::prepare(Breakable::take().await).await;
        for kill in [false, true] {
            outage
                .without("rabbitmq", kill, async |outage, _| {
                    let (_, reply) = outage.ann.send(&outage.channel, "is anybody there").await;
                    // Refused, and said when to come back; what is kept is not lost.
                    assert!(reply["status"] == "accepted" || reply["retry"] == true, "{reply}");
                    let history = outage.ben.request(json!({"op": "history", "channel": outage.channel})).await;
                    assert_eq!(history["op"], "ok", "reading needs no broker: {history}");
                })
                .await;
            println!("persisted again {:?} after RabbitMQ was ready (killed: {kill})", outage.recovered().await);
        }
        outage.end("RabbitMQ stopped and killed").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elasticsearch_stops_and_starts() {
    bounded(limit(), async {
        let mut outage = Outage::prepare(Breakable::take().await).await;
        let search = |word: &str| json!({"op": "search", "query": word});
        outage
            .without("elasticsearch", false, async |outage, round| {
                let reply = outage.ann.request(search("outage")).await;
                assert_eq!((&reply["op"], &reply["code"]), (&json!("error"), &json!("unavailable")), "{reply}");
                // Everything else goes on.
                outage.ann.send_persisted(&outage.channel, &format!("unsearchable{round}")).await;
            })
            .await;
        let back = Instant::now();
        for word in ["unsearchable0", "unsearchable1"] {
            loop {
                let reply = outage.ben.request(search(word)).await;
                if reply["hits"].as_array().is_some_and(|hits| hits.len() == 1) {
                    break;
                }
                assert!(back.elapsed() < SOON, "{word} is not found: {reply}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        println!("what was sent meanwhile is found {:?} after Elasticsearch was ready", back.elapsed());
        outage.end("Elasticsearch stopped").await;
    })
    .await;
}

/// Live chat between connected members goes on without the database; `persisted` comes when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cassandra_stops_and_starts() {
    bounded(limit() + 60, async {
        let mut outage = Outage::prepare(Breakable::take().await).await;
        outage.trial.go_on(TAKEOVER).await;
        for kill in [false, true] {
            let mut sent: Vec<String> = Vec::new();
            outage
                .without("cassandra", kill, async |outage, round| {
                    let body = format!("live {round} (killed: {kill})");
                    let (client_id, reply) = outage.ann.send(&outage.channel, &body).await;
                    assert_eq!(reply["status"], "accepted", "{reply}");
                    for client in [&outage.ben, &outage.ann] {
                        client.wait_for(|frame| frame["op"] == "message" && frame["body"] == *body).await;
                    }
                    let is_persisted =
                        |frame: &Value| is_status(frame, "persisted") && frame["client_id"] == *client_id;
                    if round == 0 {
                        for number in 0..BURST {
                            let (client_id, reply) =
                                outage.ann.send(&outage.channel, &format!("{number} {body}")).await;
                            assert_eq!(reply["status"], "accepted", "{reply}");
                            sent.push(client_id);
                        }
                        let last = format!("{} {body}", BURST - 1);
                        outage.ben.wait_for(|frame| frame["op"] == "message" && frame["body"] == *last).await;
                    }
                    if round > 1 {
                        let early = outage.ann.received().into_iter().find(|frame| is_persisted(frame));
                        assert!(early.is_none(), "persisted without a database: {early:?}");
                    }
                    sent.push(client_id);
                })
                .await;
            assert!(sent.len() > BURST + 3, "{} messages in all that time", sent.len());
            println!("persisted again {:?} after Cassandra was ready (killed: {kill})", outage.recovered().await);
            for client_id in sent {
                let is_persisted = |frame: &Value| is_status(frame, "persisted") && frame["client_id"] == *client_id;
                outage.ann.wait_for(is_persisted).await;
            }
        }
        outage.end("Cassandra stopped and killed").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_of_three_is_lost() {
    bounded(limit() + 60, async {
        let (breakable, nodes) = Breakable::take().await.with_three_nodes().await;
        let mut outage = Outage::prepare(breakable).await;
        let mut slowest = Duration::ZERO;
        // The first is the one that the processes found the others by.
        for (kill, node) in [(true, "cassandra-cluster-1"), (false, "cassandra-cluster-2")] {
            outage
                .without(node, kill, async |outage, round| {
                    let begun = Instant::now();
                    outage.ann.send_persisted(&outage.channel, &format!("at quorum {round}")).await;
                    slowest = slowest.max(begun.elapsed());
                })
                .await;
        }
        println!("with one node of three lost: slowest of the probe's messages persisted after {slowest:?}");
        outage.end("one node of three lost").await;
        drop(nodes);
    })
    .await;
}
