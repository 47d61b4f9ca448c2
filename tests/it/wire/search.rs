//! Finding messages.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{refused, three};
use crate::client::{Client, Encoding};
use crate::server::Server;

/// Searches until there are so many hits; the index follows the log a moment later.
async fn hits(client: &Client, query: Value, count: usize) -> Value {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut request = query.clone();
        request["op"] = json!("search");
        let reply = client.request(request).await;
        let found = reply["hits"].as_array().unwrap_or_else(|| panic!("{query}: {reply}"));
        assert_eq!(reply["op"], "search_results");
        if found.len() == count {
            return reply;
        }
        assert!(Instant::now() < deadline, "{query} has not {count} hits: {reply}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn bodies(reply: &Value) -> Vec<&str> {
    reply["hits"].as_array().unwrap().iter().map(|hit| hit["body"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finds_and_filters() {
    let people = three(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let ada = people.one("ada", encoding).await;
        let bob = people.one("bob", encoding).await;
        let cleo = people.one("cleo", encoding).await;
        let group = ada.create_group("kitchen", &[&bob.username]).await;
        let direct = ada.create_direct(&cleo.username).await;
        ada.send_persisted(&group, "<b>Soup</b> & bread").await;
        let middle = ada.wait_for(|frame| frame["op"] == "message" && frame["kind"] == "text").await["at"].clone();
        tokio::time::sleep(Duration::from_millis(5)).await;
        bob.send_persisted(&group, "more soup for bob").await;
        ada.send_persisted(&direct, "secret soup").await;

        let all = hits(&ada, json!({"query": "soup"}), 3).await;
        assert_eq!(bodies(&all), ["secret soup", "more soup for bob", "<b>Soup</b> & bread"], "newest first");
        assert_eq!((&all["total"], &all["cursor"]), (&json!(3), &Value::Null));
        let hit = &all["hits"][2];
        assert_eq!(hit["highlight"], "&lt;b&gt;<mark>Soup</mark>&lt;/b&gt; &amp; bread");
        assert_eq!((&hit["channel"], &hit["seq"], &hit["sender"]), (&json!(group), &json!(2), &json!(ada.username)));

        for (query, expected) in [
            (json!({"query": "soup", "channel": group}), vec!["more soup for bob", "<b>Soup</b> & bread"]),
            (json!({"query": "soup", "from": bob.username}), vec!["more soup for bob"]),
            (json!({"query": "soup", "after": middle, "channel": group}), vec!["more soup for bob"]),
            (json!({"query": "soup", "before": middle}), vec![]),
            (json!({"query": "soup bread"}), vec!["<b>Soup</b> & bread"]),
            (json!({"query": "\"soup for\""}), vec!["more soup for bob"]),
            (json!({"query": "sou*", "from": bob.username}), vec!["more soup for bob"]),
            (json!({"query": "OR NOT channel:1"}), vec![]),
        ] {
            assert_eq!(bodies(&hits(&ada, query.clone(), expected.len()).await), expected, "{query}");
        }
        // Always only one's own channels.
        assert_eq!(bodies(&hits(&bob, json!({"query": "soup"}), 2).await).len(), 2);
        assert_eq!(bodies(&hits(&cleo, json!({"query": "soup"}), 1).await), ["secret soup"]);
        refused(bob.request(json!({"op": "search", "query": "soup", "channel": direct})).await, "not_a_member");

        for bad in [
            json!({"query": ""}),
            json!({"query": "?!"}),
            json!({"query": "soup", "limit": 0}),
            json!({"query": "soup", "limit": 51}),
            json!({"query": "soup", "cursor": "no cursor"}),
            json!({"query": "soup", "before": "yesterday"}),
            json!({"query": "x".repeat(2000)}),
            json!({"query": {"$ne": null}}),
            json!({}),
        ] {
            let mut request = bad.clone();
            request["op"] = json!("search");
            refused(ada.request(request).await, "invalid");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_leads_through_all_pages() {
    let people = three(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let (ada, bob) = (people.one("ada", encoding).await, people.one("bob", encoding).await);
        let channel = ada.create_direct(&bob.username).await;
        for index in 0..7 {
            ada.send_persisted(&channel, &format!("pea {index}")).await;
        }
        hits(&ada, json!({"query": "pea"}), 7).await;
        let mut found = Vec::new();
        let mut query = json!({"query": "pea", "limit": 3});
        for count in [3, 3, 1] {
            let page = hits(&ada, query.clone(), count).await;
            assert_eq!(page["total"], 7);
            found.extend(bodies(&page).into_iter().map(str::to_owned));
            assert_eq!(page["cursor"].is_null(), count == 1, "{page}");
            query["cursor"] = page["cursor"].clone();
        }
        let expected: Vec<String> = (0..7).rev().map(|index| format!("pea {index}")).collect();
        assert_eq!(found, expected);
        // Another's cursor is only a position.
        let cleo = people.one("cleo", encoding).await;
        let cursor = hits(&ada, json!({"query": "pea", "limit": 3}), 3).await["cursor"].clone();
        hits(&cleo, json!({"query": "pea", "cursor": cursor}), 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn matches_are_counted_by_channel_and_by_sender() {
    let people = three(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let (ada, bob) = (people.one("ada", encoding).await, people.one("bob", encoding).await);
        let group = ada.create_group("market", &[&bob.username]).await;
        let direct = ada.create_direct(&bob.username).await;
        let word = format!("leek{}", encoding as u8);
        for (from, channel) in [(&ada, &group), (&bob, &group), (&bob, &direct)] {
            from.send_persisted(channel, &word).await;
        }
        let page = hits(&ada, json!({"query": word, "facets": true, "limit": 3}), 3).await;
        let expected = json!({
            "channels": [{"channel": group, "count": 2}, {"channel": direct, "count": 1}],
            "senders": [{"username": bob.username, "count": 2}, {"username": ada.username, "count": 1}],
        });
        assert_eq!(page["facets"], expected);
        for without in [json!({"query": word}), json!({"query": word, "facets": false})] {
            assert!(hits(&ada, without, 3).await.get("facets").is_none());
        }
        refused(ada.request(json!({"op": "search", "query": word, "facets": "yes"})).await, "invalid");
    }
}

crate::on_servers![finds_and_filters, a_cursor_leads_through_all_pages, matches_are_counted_by_channel_and_by_sender,];
