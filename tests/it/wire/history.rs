//! Paging at the edges, and resuming.

use serde_json::{Value, json};

use super::{refused, seqs, three};
use crate::client::{Client, Encoding};
use crate::server::Server;

async fn page(client: &Client, channel: &str, more: Value) -> (Vec<u64>, bool) {
    let mut request = json!({"op": "history", "channel": channel});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let reply = client.request(request).await;
    (seqs(&reply), reply["more"].as_bool().unwrap())
}

fn range(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_end_where_the_log_does() {
    let people = three(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let (ada, bob) = (people.one("ada", encoding).await, people.one("bob", encoding).await);
        let channel = ada.create_direct(&bob.username).await;
        assert_eq!(page(&bob, &channel, json!({})).await, (vec![1], false));
        for index in 2..=60 {
            let (_, reply) = ada.send(&channel, &format!("message {index}")).await;
            assert_eq!(reply["status"], "accepted");
        }
        ada.wait_for(|frame| frame["status"] == "persisted" && frame["seq"] == 60).await;
        let huge = u64::MAX;
        for (asked, expected) in [
            (json!({}), (range(11, 60), true)),
            (json!({"limit": 100}), (range(1, 60), false)),
            (json!({"limit": 60}), (range(1, 60), false)),
            (json!({"limit": 59}), (range(2, 60), true)),
            (json!({"before": 61, "limit": 1}), (vec![60], true)),
            (json!({"before": 60, "limit": 1}), (vec![59], true)),
            (json!({"before": 2, "limit": 5}), (vec![1], false)),
            (json!({"before": 1}), (vec![], false)),
            (json!({"before": 0}), (vec![], false)),
            (json!({"before": huge, "limit": 2}), (vec![59, 60], true)),
            (json!({"after": 0, "limit": 2}), (vec![1, 2], true)),
            (json!({"after": 58, "limit": 2}), (vec![59, 60], false)),
            (json!({"after": 58, "limit": 1}), (vec![59], true)),
            (json!({"after": 60}), (vec![], false)),
            (json!({"after": 61}), (vec![], false)),
            (json!({"after": huge}), (vec![], false)),
        ] {
            assert_eq!(page(&bob, &channel, asked.clone()).await, expected, "{asked}");
            let query = asked.to_string().replace(['{', '}', '"'], "").replace(':', "=").replace(',', "&");
            let path = format!("/api/v1/channels/{channel}/messages?{query}");
            let (status, reply) = people.http.get(&path, Some(people.token(&bob.username))).await;
            assert_eq!(status, 200, "{reply}");
            let found: Vec<u64> =
                reply["messages"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
            assert_eq!((found, reply["more"].as_bool().unwrap()), expected, "{path}");
        }
        for bad in [
            json!({"limit": 0}),
            json!({"limit": 101}),
            json!({"limit": -1}),
            json!({"limit": 4_294_967_296_u64}),
            json!({"before": 1, "after": 1}),
            json!({"before": -1}),
            json!({"before": 1.5}),
            json!({"before": "1"}),
        ] {
            let mut request = json!({"op": "history", "channel": channel});
            request.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
            refused(bob.request(request).await, "invalid");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_is_complete_or_a_gap() {
    // A short ring: most of it comes from the store.
    let builder = Server::builder().env("AULA_CHANNELS_RESUME_LIMIT", 20).env("AULA_CHANNELS_RING_FRAMES", 10);
    let people = three(builder).await;
    for encoding in Encoding::BOTH {
        let (ada, bob) = (people.one("ada", encoding).await, people.one("bob", encoding).await);
        let channel = ada.create_direct(&bob.username).await;
        for index in 2..30 {
            ada.send(&channel, &format!("message {index}")).await;
        }
        assert_eq!(ada.send_persisted(&channel, "message 30").await, 30);
        for (after, complete) in [(30, true), (29, true), (25, true), (10, true), (9, false), (0, false)] {
            let client = people.one("bob", encoding).await;
            let mark = client.mark();
            let reply = client.resume(&[(&channel, after)]).await;
            assert_eq!(reply["channels"][&channel], json!({"complete": complete, "last_seq": 30}), "{after}");
            let frames = client.received_since(&mut { mark });
            let (reply, frames) = frames.split_last().unwrap();
            assert_eq!(reply["op"], "ok", "the reply comes last");
            if complete {
                let got: Vec<u64> = frames.iter().map(|frame| frame["seq"].as_u64().unwrap()).collect();
                assert_eq!(got, range(after + 1, 30));
            } else {
                assert_eq!(frames.len(), 1);
                assert_eq!(*frames[0], json!({"op": "gap", "channel": channel, "after": after, "last_seq": 30}));
                let missed = client.history_after(&channel, after).await;
                assert_eq!(missed.len() as u64, 30 - after);
            }
            client.close().await;
        }
        // Ahead of the log, and again on the same connection: the stream begins anew.
        let mark = bob.mark();
        let reply = bob.resume(&[(&channel, u64::MAX)]).await;
        assert_eq!(reply["channels"][&channel], json!({"complete": true, "last_seq": 30}));
        assert_eq!(bob.received_since(&mut { mark }).len(), 1);
        for _ in 0..2 {
            let mark = bob.mark();
            bob.resume(&[(&channel, 28)]).await;
            assert_eq!(bob.received_since(&mut { mark }).len(), 3);
        }
        ada.send_persisted(&channel, "live again").await;
        bob.wait_for(|frame| frame["body"] == "live again").await;
    }
}

crate::on_servers![pages_end_where_the_log_does, a_resume_is_complete_or_a_gap];
