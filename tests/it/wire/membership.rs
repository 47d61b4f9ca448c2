//! Adding, removing and leaving.

use serde_json::{Value, json};

use super::{named, nothing, refused, seqs, three};
use crate::client::{Client, Encoding};
use crate::server::Server;

fn change(op: &str, channel: &str, members: &[&str]) -> Value {
    json!({"op": op, "channel": channel, "members": members})
}

/// Asks for a change and waits until it is done.
async fn done(client: &Client, request: Value) -> Value {
    let reply = client.request(request).await;
    assert_eq!((&reply["op"], &reply["status"]), (&json!("ok"), &json!("queued")), "{reply}");
    client.wait_for(|frame| frame["op"] == "members_changed" && frame["ref"] == reply["ref"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go() {
    let people = three(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let ada = people.one("ada", encoding).await;
        let bob = people.one("bob", encoding).await;
        let cleo = people.one("cleo", encoding).await;
        let group = ada.create_group("lunch", &[&bob.username]).await;

        let added = done(&bob, change("add_members", &group, &[&cleo.username])).await;
        assert_eq!((&added["seq"], &added["by"]), (&json!(2), &json!(bob.username)), "{added}");
        assert_eq!((&added["added"], &added["member_count"]), (&json!([cleo.username]), &json!(3)));
        let created = cleo.wait_for(|frame| frame["op"] == "channel_created").await;
        assert_eq!(created["channel"]["id"], *group);
        assert!(created.get("ref").is_none(), "{created}");
        ada.wait_for(|frame| frame["op"] == "members_changed" && frame["added"] == json!([cleo.username])).await;
        ada.send_persisted(&group, "welcome").await;
        cleo.wait_for(|frame| frame["op"] == "message" && frame["body"] == "welcome").await;
        // Who is added may read what was before.
        assert_eq!(seqs(&cleo.request(json!({"op": "history", "channel": group})).await), [1, 2, 3]);

        // Once more changes nothing.
        let again = done(&ada, change("add_members", &group, &[&cleo.username])).await;
        assert_eq!((&again["seq"], &again["added"]), (&json!(3), &json!([])), "{again}");

        refused(bob.request(change("remove_member", &group, &[&cleo.username])).await, "forbidden");
        refused(ada.request(change("add_members", &group, &["nobody"])).await, "not_found");
        refused(ada.request(change("add_members", &group, &[])).await, "invalid");
        let removed = done(&ada, change("remove_member", &group, &[&cleo.username])).await;
        assert_eq!((&removed["seq"], &removed["removed"]), (&json!(4), &json!([cleo.username])));
        let told = cleo.wait_for(|frame| frame["op"] == "members_changed" && frame["removed"] != json!([])).await;
        assert_eq!(told["seq"], 4);
        let mark = cleo.mark();
        ada.send_persisted(&group, "without cleo").await;
        nothing(&cleo, mark, |frame| frame["channel"] == *group).await;
        // A direct channel stays as it is.
        let direct = ada.create_direct(&bob.username).await;
        for request in [
            change("add_members", &direct, &[&cleo.username]),
            change("remove_member", &direct, &[&bob.username]),
            json!({"op": "leave", "channel": direct}),
        ] {
            refused(ada.request(request).await, "conflict");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_always_has_an_owner() {
    let people = three(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let ada = people.one("ada", encoding).await;
        let bob = people.one("bob", encoding).await;
        let cleo = people.one("cleo", encoding).await;
        let group = ada.create_group("lunch", &[]).await;
        done(&ada, change("add_members", &group, &[&bob.username])).await;
        done(&ada, change("add_members", &group, &[&cleo.username])).await;
        let left = done(&ada, json!({"op": "leave", "channel": group})).await;
        assert_eq!((&left["removed"], &left["member_count"]), (&json!([ada.username]), &json!(2)));
        refused(ada.request(json!({"op": "leave", "channel": group})).await, "not_a_member");
        // bob has been there longest.
        refused(cleo.request(change("remove_member", &group, &[&bob.username])).await, "forbidden");
        done(&bob, change("remove_member", &group, &[&cleo.username])).await;
        // cleo comes back as a member, and inherits.
        done(&bob, change("add_members", &group, &[&cleo.username])).await;
        done(&bob, json!({"op": "leave", "channel": group})).await;
        done(&cleo, change("add_members", &group, &[&ada.username])).await;
        done(&cleo, change("remove_member", &group, &[&ada.username])).await;
        // The last one leaves an empty channel, which nobody can enter.
        done(&cleo, json!({"op": "leave", "channel": group})).await;
        refused(cleo.request(change("add_members", &group, &[&cleo.username])).await, "not_a_member");
        refused(ada.request(json!({"op": "history", "channel": group})).await, "not_a_member");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_has_so_many_members() {
    let people = three(Server::builder().env("AULA_CHANNELS_MAX_MEMBERS", 2)).await;
    for encoding in Encoding::BOTH {
        let ada = people.one("ada", encoding).await;
        let (bob, cleo) = (named("bob", encoding), named("cleo", encoding));
        let group = ada.create_group("pair", &[&bob]).await;
        refused(ada.request(change("add_members", &group, &[&bob, &cleo, "dan"])).await, "too_large");
        // Only the owner of the log knows how many there are: its refusal comes after the `ok`.
        let reply = ada.request(change("add_members", &group, &[&cleo])).await;
        assert_eq!(reply["status"], "queued", "{reply}");
        let error = ada.wait_for(|frame| frame["op"] == "error" && frame["ref"] == reply["ref"]).await;
        assert_eq!(error["code"], "too_large");
    }
}

crate::on_servers![members_come_and_go, a_group_always_has_an_owner, a_channel_has_so_many_members];
