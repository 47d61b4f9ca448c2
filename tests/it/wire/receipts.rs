//! Delivered, read, unread, typing.

use serde_json::{Value, json};

use super::{in_channel, nothing, three};
use crate::client::{Client, Encoding, is_status};
use crate::server::Server;

async fn mark(client: &Client, op: &str, channel: &str, seq: u64) {
    client.post(json!({"op": op, "channel": channel, "seq": seq})).await.unwrap();
}

async fn summary(people: &crate::people::People, user: &str, encoding: Encoding, channel: &str) -> Value {
    let client = people.one(user, encoding).await;
    let welcome = client.welcome().await;
    client.close().await;
    let mut channels = welcome["channels"].as_array().unwrap().iter();
    channels.find(|one| one["id"] == *channel).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_and_group_messages_are_ticked_off() {
    let people = three(Server::builder().env("AULA_RECEIPTS_INTERVAL", "20ms")).await;
    for encoding in Encoding::BOTH {
        let ada = people.one("ada", encoding).await;
        let bob = people.one("bob", encoding).await;
        let cleo = people.one("cleo", encoding).await;
        let direct = ada.create_direct(&bob.username).await;
        let group = ada.create_group("all", &[&bob.username, &cleo.username]).await;
        for (channel, others) in [(&direct, vec![&bob]), (&group, vec![&bob, &cleo])] {
            let seq = ada.send_persisted(channel, "hello").await;
            for (op, status) in [("delivered", "delivered"), ("read", "read")] {
                for (index, other) in others.iter().enumerate() {
                    let before = ada.mark();
                    let is_it = |frame: &Value| is_status(frame, status) && frame["channel"] == **channel;
                    other.wait_for(|frame| frame["op"] == "message" && frame["channel"] == **channel).await;
                    mark(other, op, channel, seq).await;
                    if index + 1 < others.len() {
                        nothing(&ada, before, is_it).await;
                    } else {
                        let told = ada.wait_for_after(before, is_it).await;
                        assert_eq!(told["seq"], seq, "{told}");
                        // All members are told.
                        bob.wait_for(|frame| is_it(frame) && frame["seq"] == seq).await;
                    }
                }
            }
            // Never back.
            let before = ada.mark();
            mark(&bob, "read", channel, 1).await;
            mark(&bob, "delivered", channel, 1).await;
            nothing(&ada, before, |frame| frame["op"] == "status").await;
            let seen = summary(&people, "bob", encoding, channel).await;
            assert_eq!((&seen["read_seq"], &seen["delivered_seq"], &seen["unread"]), (&json!(2), &json!(2), &json!(0)));
            assert_eq!((&seen["read_by_all"], &seen["delivered_by_all"]), (&json!(2), &json!(2)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_is_what_is_behind_the_watermark() {
    let people = three(Server::builder().env("AULA_RECEIPTS_INTERVAL", "20ms")).await;
    for encoding in Encoding::BOTH {
        let (ada, bob) = (people.one("ada", encoding).await, people.one("bob", encoding).await);
        let channel = ada.create_direct(&bob.username).await;
        for _ in 0..4 {
            ada.send_persisted(&channel, "hello").await;
        }
        assert_eq!(summary(&people, "bob", encoding, &channel).await["unread"], 5);
        // One's own are read.
        assert_eq!(summary(&people, "ada", encoding, &channel).await["unread"], 0);
        mark(&bob, "read", &channel, 3).await;
        ada.wait_for(|frame| is_status(frame, "read") && frame["seq"] == 3).await;
        let seen = summary(&people, "bob", encoding, &channel).await;
        assert_eq!((&seen["unread"], &seen["read_seq"], &seen["delivered_seq"]), (&json!(2), &json!(3), &json!(3)));
        for (op, seq) in [("read", json!(6)), ("delivered", json!(0)), ("read", json!(-1)), ("read", json!(u64::MAX))] {
            let before = bob.mark();
            let reference = bob.post(json!({"op": op, "channel": channel, "seq": seq})).await.unwrap();
            let error = bob.wait_for_after(before, |frame| frame["op"] == "error").await;
            assert_eq!((&error["ref"], &error["code"]), (&json!(reference), &json!("invalid")));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_is_shown_to_the_others_now_and_then() {
    let people = three(Server::builder().env("AULA_TYPING_INTERVAL", "10s")).await;
    for encoding in Encoding::BOTH {
        let (ada, bob) = (people.one("ada", encoding).await, people.one("bob", encoding).await);
        let channel = ada.create_direct(&bob.username).await;
        ada.send_persisted(&channel, "hello").await;
        for _ in 0..5 {
            ada.post(in_channel("typing", &channel)).await.unwrap();
        }
        let typing = bob.wait_for(|frame| frame["op"] == "typing").await;
        assert_eq!(typing, json!({"op": "typing", "channel": channel, "username": ada.username}));
        nothing(&ada, 0, |frame| frame["op"] == "typing" || frame["op"] == "error").await;
        assert_eq!(bob.received().iter().filter(|frame| frame["op"] == "typing").count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_channels_have_no_ticks_and_features_can_be_off() {
    let people = three(Server::builder().env("AULA_RECEIPTS_MAX_MEMBERS", 1)).await;
    let (ada, bob) = (people.one("ada", Encoding::Json).await, people.one("bob", Encoding::Json).await);
    let channel = ada.create_direct(&bob.username).await;
    bob.wait_for(|frame| frame["op"] == "message").await;
    mark(&bob, "read", &channel, 1).await;
    nothing(&ada, 0, |frame| is_status(frame, "read")).await;
    assert_eq!(summary(&people, "bob", Encoding::Json, &channel).await["unread"], 0);

    let off = Server::builder().env("AULA_FEATURES_RECEIPTS", "false").env("AULA_FEATURES_TYPING", "false");
    let people = three(off).await;
    let ada = people.one("ada", Encoding::Json).await;
    let channel = ada.create_direct("bob-j").await;
    for request in [json!({"op": "read", "channel": channel, "seq": 1}), in_channel("typing", &channel)] {
        super::refused(ada.request(request).await, "forbidden");
    }
}

crate::on_servers![
    direct_and_group_messages_are_ticked_off,
    unread_is_what_is_behind_the_watermark,
    typing_is_shown_to_the_others_now_and_then,
    large_channels_have_no_ticks_and_features_can_be_off,
];
