//! Sending: statuses, repeats, order, what is refused.

use serde_json::json;

use super::{refused, three};
use crate::client::{Encoding, is_status, send_request};
use crate::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_to_everyone_and_comes_once() {
    let people = three(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let ada = people.one("ada", encoding).await;
        let phone = people.one("ada", encoding).await;
        let bob = people.one("bob", encoding).await;
        let channel = ada.create_direct(&bob.username).await;
        phone.wait_for(|frame| frame["op"] == "channel_created").await;
        let body = "hé \u{1f600} \u{0} \"quoted\"\n";
        let (client_id, reply) = ada.send(&channel, body).await;
        assert_eq!((&reply["op"], &reply["status"]), (&json!("ok"), &json!("accepted")), "{reply}");
        for client in [&ada, &phone, &bob] {
            let message = client.wait_for(|frame| frame["op"] == "message" && frame["kind"] == "text").await;
            assert_eq!((&message["body"], &message["sender"]), (&json!(body), &json!(ada.username)));
            assert_eq!((&message["seq"], &message["client_id"]), (&json!(2), &json!(client_id)));
        }
        for client in [&ada, &phone] {
            let status = client.wait_for(|frame| is_status(frame, "persisted")).await;
            assert_eq!((&status["seq"], &status["client_id"]), (&json!(2), &json!(client_id)));
        }
        // Again, as a retry and without saying so: the same entry.
        for retry in [true, false] {
            let mark = ada.mark();
            let reply = ada.send_with(&channel, body, &client_id, retry).await;
            assert_eq!(reply["status"], "accepted", "{reply}");
            let status = ada.wait_for_after(mark, |frame| is_status(frame, "persisted")).await;
            assert_eq!((&status["seq"], &status["client_id"]), (&json!(2), &json!(client_id)));
        }
        assert_eq!(bob.history_all(&channel).await.len(), 2);
        assert!(!bob.received().iter().any(|frame| is_status(frame, "persisted")), "that is the sender's");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_order_of_a_connection() {
    let people = three(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let (ada, bob) = (people.one("ada", encoding).await, people.one("bob", encoding).await);
        let channel = ada.create_direct(&bob.username).await;
        for index in 0..100 {
            let id = uuid::Uuid::now_v7().to_string();
            ada.post(send_request(&channel, &format!("number {index}"), &id, false)).await.unwrap();
        }
        bob.wait_for(|frame| frame["body"] == "number 99").await;
        let received = bob.received();
        let messages: Vec<_> = received.iter().filter(|frame| frame["op"] == "message").collect();
        for (index, message) in messages.iter().enumerate() {
            assert_eq!(message["seq"], index + 1);
            assert!(index == 0 || message["body"] == format!("number {}", index - 1), "{message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_is_refused() {
    let builder = Server::builder().env("AULA_CHANNELS_MAX_BODY_BYTES", 1000);
    let people = three(builder).await;
    for encoding in Encoding::BOTH {
        let ada = people.one("ada", encoding).await;
        let channel = ada.create_direct(&super::named("bob", encoding)).await;
        let id = uuid::Uuid::now_v7().to_string();
        // 2020: long before what is remembered.
        let old = "016f5e66-e800-7000-8000-000000000000";
        let bad = [
            (json!({"channel": channel, "client_id": id, "body": ""}), "invalid"),
            (json!({"channel": channel, "client_id": id}), "invalid"),
            (json!({"channel": channel, "body": "b"}), "invalid"),
            (json!({"channel": channel, "client_id": "not-a-uuid", "body": "b"}), "invalid"),
            (json!({"channel": channel, "client_id": id, "body": "b", "kind": "media"}), "invalid"),
            (json!({"channel": channel, "client_id": id, "body": "b", "kind": "system"}), "invalid"),
            (json!({"channel": channel, "client_id": id, "body": "b", "retry": "yes"}), "invalid"),
            (json!({"channel": channel, "client_id": id, "body": "b".repeat(1001)}), "too_large"),
            (json!({"channel": id, "client_id": id, "body": "b"}), "not_a_member"),
            (json!({"channel": channel, "client_id": old, "body": "b", "retry": true}), "stale_retry"),
        ];
        for (mut request, code) in bad {
            request["op"] = json!("send");
            refused(ada.request(request).await, code);
        }
        assert_eq!(ada.send_persisted(&channel, &"é".repeat(500)).await, 2, "nothing refused is in the log");
        // No retry: it is new, however old its client_id looks.
        assert_eq!(ada.send_with(&channel, "b", old, false).await["status"], "accepted");
    }
}

crate::on_servers![goes_to_everyone_and_comes_once, keeps_the_order_of_a_connection, what_is_no_message_is_refused];
