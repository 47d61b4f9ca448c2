//! Well-formed frames with values that nobody should send: refused as `invalid`, and the connection lives on.

use serde_json::{Value, json};

use crate::client::Encoding;
use crate::server::Server;

use super::watch::Watch;

fn cases(channel: &str) -> Vec<Value> {
    let id = uuid::Uuid::now_v7();
    let operator = json!({"$ne": null});
    vec![
        json!({"op": "send", "channel": operator, "client_id": id, "body": "b"}),
        json!({"op": "send", "channel": channel, "client_id": operator, "body": "b"}),
        json!({"op": "send", "channel": channel, "client_id": id, "body": operator}),
        json!({"op": "send", "channel": channel, "client_id": id, "body": ["b"]}),
        json!({"op": "send", "channel": channel, "client_id": id, "body": 7}),
        json!({"op": "send", "channel": channel, "client_id": id, "body": null}),
        json!({"op": "send", "channel": channel, "client_id": id, "body": "b", "kind": "x".repeat(50_000)}),
        json!({"op": "history", "channel": channel, "before": operator}),
        json!({"op": "history", "channel": channel, "limit": -1}),
        json!({"op": "history", "channel": channel, "limit": 1e300}),
        json!({"op": "history", "channel": channel, "limit": 4_294_967_297_u64}),
        json!({"op": "read", "channel": channel, "seq": -1}),
        json!({"op": "read", "channel": channel, "seq": 1.5}),
        json!({"op": "read", "channel": channel, "seq": u64::MAX}),
        json!({"op": "resume", "channels": [channel, 1]}),
        json!({"op": "resume", "channels": {channel: -1}}),
        json!({"op": "resume", "channels": {"$where": 1}}),
        json!({"op": "create_channel", "kind": "direct", "members": operator}),
        json!({"op": "create_channel", "kind": "direct", "members": [operator]}),
        json!({"op": "create_channel", "kind": "group", "name": "g", "members": ["../../etc/passwd"]}),
        json!({"op": "create_channel", "kind": "group", "name": operator, "members": []}),
        json!({"op": "add_members", "channel": channel, "members": ["a' OR 1=1 --"]}),
        json!({"op": "search", "query": operator}),
        json!({"op": "search", "query": "x", "from": operator}),
        json!({"op": "search", "query": "x", "before": 1_700_000_000}),
        json!({"op": "search", "query": "x", "before": "+999999-01-01T00:00:00Z"}),
        json!({"op": "search", "query": "x", "cursor": operator}),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn are_invalid() {
    let watch = Watch::on(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let mallory = watch.people.client("mallory", encoding).await;
        let channel = mallory.create_direct("ada").await;
        for request in cases(&channel) {
            let reply = mallory.request(request.clone()).await;
            assert_eq!(reply["code"], "invalid", "{request}: {reply}");
            assert!(reply.to_string().len() < 1000, "what came is not sent back whole");
        }
        for request in [json!({"op": {"$ne": 1}}), json!({"op": null}), json!({}), json!([]), json!(7), json!("ping")] {
            let mark = mallory.mark();
            mallory.send_raw(encoding.encode(&request)).await.unwrap();
            let error = mallory.wait_for_after(mark, |frame| frame["op"] == "error").await;
            assert_eq!(error["code"], "invalid", "{request}");
        }
        assert_eq!(mallory.history_all(&channel).await.len(), 1);
        mallory.close().await;
    }
    watch.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nesting_is_cheap() {
    const DEPTH: usize = 10_000;
    let watch = Watch::on(Server::builder()).await;
    for op in ["send", "ping", "history", "no_such_op"] {
        // JSON: an unknown field is passed over without recursion, a known one has the wrong type.
        for field in ["body", "channel", "future"] {
            let mallory = watch.people.client("mallory", Encoding::Json).await;
            let nested = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
            let text = format!(r#"{{"op":"{op}","ref":1,"{field}":{nested}}}"#);
            mallory.send_raw(tokio_tungstenite::tungstenite::Message::text(text)).await.unwrap();
            let answer = mallory.wait_for(|frame| frame["op"] == "error" || frame["op"] == "pong").await;
            assert!(
                answer["op"] == "pong" || answer["code"] == "invalid" || answer["code"] == "unknown_op",
                "{answer}"
            );
            mallory.close().await;
        }
        let objects = format!("{}1{}", "{\"a\":".repeat(DEPTH), "}".repeat(DEPTH));
        let mallory = watch.people.client("mallory", Encoding::Json).await;
        let text = format!(r#"{{"op":"{op}","ref":1,"future":{objects}}}"#);
        // 60 KB: within the limit of a frame.
        mallory.send_raw(tokio_tungstenite::tungstenite::Message::text(text)).await.unwrap();
        mallory.wait_for(|frame| frame["op"] == "error" || frame["op"] == "pong").await;
        mallory.close().await;
        // MessagePack: deeper than any request is no frame.
        let mallory = watch.people.client("mallory", Encoding::Msgpack).await;
        let mut bytes = vec![0x82, 0xa2, b'o', b'p', 0xa0 | u8::try_from(op.len()).unwrap()];
        bytes.extend_from_slice(op.as_bytes());
        bytes.extend_from_slice(b"\xa1x");
        bytes.extend(std::iter::repeat_n(0x91, DEPTH));
        bytes.push(0xc0);
        mallory.send_raw(tokio_tungstenite::tungstenite::Message::binary(bytes)).await.unwrap();
        assert_eq!(mallory.wait_closed().await.code, Some(1007), "{op}");
    }
    watch.nothing_is_left().await;
}
