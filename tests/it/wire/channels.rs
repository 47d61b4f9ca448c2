//! Making channels.

use serde_json::json;

use super::{named, nothing, refused, three};
use crate::client::Encoding;
use crate::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_channel_exists_once() {
    let people = three(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let (ada, bob) = (people.one("ada", encoding).await, people.one("bob", encoding).await);
        // Both at once, and each again.
        let (by_ada, by_bob) = tokio::join!(ada.create_direct(&bob.username), bob.create_direct(&ada.username));
        assert_eq!(by_ada, by_bob);
        assert_eq!(ada.create_direct(&bob.username).await, by_ada);
        let history = bob.history_all(&by_ada).await;
        assert_eq!(history.len(), 1, "{history:?}");
        assert_eq!(history[0]["kind"], "system");
        ada.send_persisted(&by_ada, "hello").await;
        bob.wait_for(|frame| frame["op"] == "message" && frame["body"] == "hello").await;
        let welcome = people.one("bob", encoding).await.welcome().await;
        assert_eq!(welcome["channels"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_channel_is_refused() {
    let builder = Server::builder().env("AULA_CHANNELS_MAX_MEMBERS", 2).env("AULA_CHANNELS_MAX_PER_USER", 3);
    let people = three(builder).await;
    for encoding in Encoding::BOTH {
        let ada = people.one("ada", encoding).await;
        let (bob, cleo) = (named("bob", encoding), named("cleo", encoding));
        let long = "n".repeat(129);
        let bad = [
            (json!({"kind": "direct", "members": []}), "invalid"),
            (json!({"kind": "direct", "members": [ada.username]}), "invalid"),
            (json!({"kind": "direct", "members": [bob, cleo]}), "invalid"),
            (json!({"kind": "direct", "members": [bob], "name": "us"}), "invalid"),
            (json!({"kind": "direct", "members": ["nobody"]}), "not_found"),
            (json!({"kind": "group", "members": [bob]}), "invalid"),
            (json!({"kind": "group", "members": [bob], "name": "  "}), "invalid"),
            (json!({"kind": "group", "members": [bob], "name": long}), "too_large"),
            (json!({"kind": "group", "members": ["nobody"], "name": "g"}), "not_found"),
            (json!({"kind": "group", "members": ["Not A Name"], "name": "g"}), "invalid"),
            (json!({"kind": "group", "members": [bob, cleo], "name": "g"}), "too_large"),
            (json!({"kind": "circle", "members": [bob], "name": "g"}), "invalid"),
            (json!({"kind": "group", "members": bob, "name": "g"}), "invalid"),
        ];
        for (mut request, code) in bad {
            request["op"] = json!("create_channel");
            refused(ada.request(request).await, code);
        }
        nothing(&ada, 0, |frame| frame["op"] == "channel_created").await;

        // Three channels are the most; what exists is still found.
        let direct = ada.create_direct(&bob).await;
        ada.create_group("one", &[]).await;
        ada.create_group("two", &[]).await;
        let more = json!({"op": "create_channel", "kind": "direct", "members": [cleo]});
        refused(ada.request(more).await, "too_large");
        let theirs = people.client(&cleo, encoding).await;
        let more = json!({"op": "create_channel", "kind": "direct", "members": [ada.username]});
        refused(theirs.request(more).await, "too_large");
        assert_eq!(ada.create_direct(&bob).await, direct);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_can_be_switched_off() {
    let people = three(Server::builder().env("AULA_FEATURES_GROUPS", "false")).await;
    let ada = people.one("ada", Encoding::Json).await;
    assert_eq!(ada.welcome().await["features"]["groups"], false);
    refused(
        ada.request(json!({"op": "create_channel", "kind": "group", "name": "g", "members": []})).await,
        "forbidden",
    );
    ada.create_direct("bob-j").await;
}

crate::on_servers![a_direct_channel_exists_once, what_is_no_channel_is_refused, groups_can_be_switched_off];
