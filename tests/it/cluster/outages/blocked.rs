//! RabbitMQ is short of memory: it takes nothing from who publishes, and goes on delivering.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Breakable, Outage, down_time, limit};
use crate::client::is_status;
use crate::cluster::trial::bounded;
use crate::faults::rss_kib;
use crate::http::Http;

/// The first publish that meets the block may wait for its confirm as long as for any.
const UNTIL_REFUSED: Duration = Duration::from_secs(15);
/// What is refused is refused at once; on a machine that does much else.
const AT_ONCE: Duration = Duration::from_secs(2);
/// For its status, when there is room again.
const SOON: Duration = Duration::from_secs(30);
/// Sends in one go, and such goes: 32 MiB altogether.
const TOGETHER: usize = 128;
const GOES: usize = 32;
const BODY: usize = 8 << 10;
/// What a gateway may take more after all of these. Held back, they would take at least twice as much.
const GROWTH_KIB: u64 = 16 << 10;

/// Lets publishers in again when it is dropped.
struct Blocked<'b>(&'b Breakable);

impl<'b> Blocked<'b> {
    fn new(breakable: &'b Breakable) -> Self {
        let blocked = Self(breakable);
        breakable.rabbitmqctl(&["set_vm_memory_high_watermark", "0.0001"]);
        blocked
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        // As in scripts/services.d/rabbitmq.conf.
        self.0.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1GiB"]);
    }
}

fn is_refused(reply: &Value) -> bool {
    reply["code"] == "overloaded"
}

/// Until a send is refused. Returns those that were accepted before.
async fn refused_at_last(outage: &Outage) -> Vec<String> {
    let mut accepted = Vec::new();
    let refused = async {
        loop {
            let (client_id, reply) = outage.send_patiently(&outage.channel, "is there room").await;
            if is_refused(&reply) {
                return;
            }
            if reply["status"] == "accepted" {
                accepted.push(client_id);
            } else {
                assert_eq!(reply["retry"], true, "{reply}");
            }
        }
    };
    let begun = Instant::now();
    tokio::time::timeout(UNTIL_REFUSED, refused).await.expect("sends are refused");
    println!("refused {:?} after the broker had no room; accepted before: {}", begun.elapsed(), accepted.len());
    accepted
}

async fn refused_at_once(outage: &Outage, body: &str) {
    let begun = Instant::now();
    let (_, reply) = outage.ann.send(&outage.channel, body).await;
    assert!(is_refused(&reply) && reply["retry"] == true, "{reply}");
    assert!(reply["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{reply}");
    assert!(begun.elapsed() < AT_ONCE, "refused after {:?}", begun.elapsed());
}

/// Many at a time, and none of them kept.
async fn nothing_is_held_back(outage: &Outage) {
    let gateway = outage.trial.cluster.gateways[0].pid();
    let body = "x".repeat(BODY);
    let mut before = 0;
    for go in 0..GOES {
        let all = join_all((0..TOGETHER).map(|_| outage.ann.send(&outage.channel, &body)));
        for (_, reply) in all.await {
            assert!(is_refused(&reply), "{reply}");
        }
        // The first go takes what a connection needs for so many at a time.
        if go == 0 {
            before = rss_kib(gateway);
        }
    }
    let after = rss_kib(gateway);
    println!("the gateway's memory over {} refused sends: {before} KiB, then {after} KiB", GOES * TOGETHER);
    assert!(after < before + GROWTH_KIB, "{before} KiB, then {after} KiB");
}

async fn reading_goes_on(outage: &Outage) {
    for client in [&outage.ann, &outage.ben] {
        let history = client.request(json!({"op": "history", "channel": outage.channel})).await;
        assert_eq!(history["op"], "ok", "{history}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_has_no_room() {
    bounded(limit(), async {
        let mut outage = Outage::prepare(Breakable::take().await).await;
        outage.trial.go_on(Duration::from_secs(1)).await;
        let blocked = tokio::task::block_in_place(|| Blocked::new(&outage.breakable));
        let begun = Instant::now();
        let accepted = refused_at_last(&outage).await;
        nothing_is_held_back(&outage).await;
        let http = Http::new(outage.trial.cluster.gateways[0].addr());
        while begun.elapsed() < down_time("rabbitmq", true) {
            refused_at_once(&outage, "is there room now").await;
            reading_goes_on(&outage).await;
            let (status, said) = http.get("/readyz", None).await;
            assert_eq!(status, 503, "a balancer sends nobody here: {said}");
            tokio::time::sleep(Duration::from_millis(500)).await;
            outage.trial.swarm.still_well().await;
        }
        tokio::task::block_in_place(|| drop(blocked));
        println!("persisted again {:?} after there was room", outage.recovered().await);
        for client_id in accepted {
            let is_persisted = |frame: &Value| is_status(frame, "persisted") && frame["client_id"] == *client_id;
            tokio::time::timeout(SOON, outage.ann.wait_for(is_persisted))
                .await
                .expect("what was accepted is persisted");
        }
        outage.end("RabbitMQ had no room").await;
    })
    .await;
}
