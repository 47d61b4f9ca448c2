//! The queue of one shard has lost the majority of its nodes, and confirms nothing. The other shards go on.

use std::time::{Duration, Instant};

use aula::message::ChannelId;
use serde_json::json;

use super::{Breakable, Outage, down_time, limit};
use crate::cluster::namespace::SHARDS;
use crate::cluster::trial::bounded;
use crate::http::Http;

/// For a send to a shard that is well; on a machine that does much else.
const UNDISTURBED: Duration = Duration::from_secs(3);
/// A confirm is waited for 10 s.
const UNTIL_REFUSED: Duration = Duration::from_secs(13);

/// Ends the only member of a shard's queue, or starts it again.
fn member_of(breakable: &Breakable, vhost: &str, shard: u16, what: &str) {
    let queue = format!("rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"db_tasks.{shard}\">>)");
    let call = format!("ra:{what}(quorum_queues, {{Name, node()}})");
    breakable.rabbitmqctl(&[
        "eval",
        &format!(
            "{{ok, Queue}} = rabbit_amqqueue:lookup({queue}), {{Name, _}} = amqqueue:get_pid(Queue), ok = {call}."
        ),
    ]);
}

fn shard_of(channel: &str) -> u16 {
    serde_json::from_value::<ChannelId>(json!(channel)).unwrap().shard(SHARDS)
}

/// A channel in each of two shards.
async fn channels(outage: &Outage) -> (String, String) {
    let bad = outage.channel.clone();
    loop {
        let good = outage.ann.create_group("in another shard", &["ben"]).await;
        if shard_of(&good) != shard_of(&bad) {
            return (bad, good);
        }
    }
}

async fn disconnects(gateway: &Http) -> Option<String> {
    let (_, metrics) = gateway.get("/metrics", None).await;
    let lines = metrics.as_str().unwrap().lines();
    lines.filter_map(|line| line.strip_prefix("aula_rabbitmq_disconnects_total ")).next().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_queue_confirms_nothing() {
    bounded(limit(), async {
        let mut outage = Outage::prepare(Breakable::take().await).await;
        let (bad, good) = channels(&outage).await;
        outage.ann.send_persisted(&bad, "before").await;
        let gateway = Http::new(outage.trial.cluster.gateways[0].addr());
        let vhost = outage.trial.cluster.namespace.name.clone();
        let breakable = |what: &str, outage: &Outage| {
            tokio::task::block_in_place(|| member_of(&outage.breakable, &vhost, shard_of(&bad), what));
        };
        breakable("stop_server", &outage);
        let begun = Instant::now();
        let (mut slowest, mut sends, mut refusals) = (Duration::ZERO, 0, Vec::new());
        let to_bad = async {
            while begun.elapsed() < down_time("rabbitmq", true) * 2 {
                let sent = Instant::now();
                let (_, reply) = outage.send_patiently(&bad, "is anybody there").await;
                assert!(reply["code"] == "unavailable" && reply["retry"] == true, "{reply}");
                refusals.push(sent.elapsed());
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        let to_good = async {
            while begun.elapsed() < down_time("rabbitmq", true) * 2 {
                let sent = Instant::now();
                let (_, reply) = outage.send_patiently(&good, "here all is well").await;
                assert_eq!(reply["status"], "accepted", "after {:?}: {reply}", begun.elapsed());
                slowest = slowest.max(sent.elapsed());
                sends += 1;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::join!(to_bad, to_good);
        outage.trial.swarm.still_well().await;
        println!(
            "{sends} sends to the other shard, the slowest accepted after {slowest:?}; refusals after {refusals:?}"
        );
        assert!(slowest < UNDISTURBED, "{slowest:?}");
        assert!(refusals.iter().all(|waited| *waited < UNTIL_REFUSED), "{refusals:?}");
        assert_eq!(disconnects(&gateway).await.unwrap_or("0".into()), "0");
        breakable("restart_server", &outage);
        println!("persisted again {:?} after the queue was back", outage.recovered().await);
        outage.end("one queue without a majority").await;
    })
    .await;
}
