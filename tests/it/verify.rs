//! `aula verify`: each kind of damage is done for real, found, and repaired as far as it can be.

use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::client::Encoding;
use crate::people::People;
use crate::server::{Builder, Server, Worker};

const END: Duration = Duration::from_secs(20);

/// The exit status and the report.
pub fn verify(on: &Builder, words: &[&str]) -> (i32, Value) {
    let (status, out, err) = on.aula(&[&["--output", "json", "--quiet", "verify"], words].concat());
    let report = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error} in {out:?}; {err}"));
    (status.code().expect("not killed"), report)
}

pub fn assert_clean(on: &Builder, words: &[&str]) -> Value {
    let (code, report) = verify(on, words);
    assert_eq!((code, &report["outcome"]), (0, &json!("clean")), "{report:#}");
    report
}

/// What is found, by kind; nothing is changed by looking.
pub fn assert_found(on: &Builder, words: &[&str], counts: Value) -> Value {
    let (code, report) = verify(on, words);
    assert_eq!((code, &report["outcome"]), (1, &json!("found")), "{report:#}");
    let found: serde_json::Map<String, Value> = report["counts"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(kind, count)| (kind.clone(), count["found"].clone()))
        .collect();
    assert_eq!(Value::Object(found), counts, "{report:#}");
    report
}

pub fn assert_repaired(on: &Builder, words: &[&str]) {
    let (code, report) = verify(on, &[&["--repair"], words].concat());
    assert_eq!((code, &report["outcome"]), (0, &json!("repaired")), "{report:#}");
    assert!(report["findings"].as_array().unwrap().iter().all(|finding| finding["repaired"] == true), "{report:#}");
    assert_clean(on, words);
}

/// A group of ada, bob and cyd with some messages, of whom cyd was removed and came back; and one of ada and bob.
pub async fn talk(ada: &crate::client::Client, bob: &crate::client::Client) -> (String, String) {
    let group = ada.create_group("all", &["bob", "cyd"]).await;
    for number in 0..5 {
        ada.send_persisted(&group, &format!("from ada {number}")).await;
        bob.send_persisted(&group, &format!("from bob {number}")).await;
    }
    ada.request(json!({"op": "remove_member", "channel": group, "members": ["cyd"]})).await;
    ada.request(json!({"op": "add_members", "channel": group, "members": ["cyd"]})).await;
    let last = bob.send_persisted(&group, "the last one").await;
    bob.post(json!({"op": "read", "channel": group, "seq": last})).await.unwrap();
    let direct = ada.create_direct("bob").await;
    for number in 0..3 {
        ada.send_persisted(&direct, &format!("for you alone {number}")).await;
    }
    (group, direct)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_damage_of_an_embedded_store_is_found_and_repaired() {
    let people = People::new(&["ada", "bob", "cyd"]).await;
    let (ada, bob) = (people.client("ada", Encoding::Json).await, people.client("bob", Encoding::Json).await);
    let (group, direct) = talk(&ada, &bob).await;
    let mut server = people.server;
    tokio::task::block_in_place(|| {
        // Receipts are gathered for a moment.
        std::thread::sleep(Duration::from_millis(1_500));
        server.sigterm();
        server.wait(END).expect("it ends");
        let on = server.builder_ref().clone();
        let file = Connection::open(on.dir().join("aula.db")).unwrap();
        let damage = |sql: &str| assert!(file.execute(sql, []).unwrap() > 0, "{sql}");
        let report = assert_clean(&on, &[]);
        assert_eq!((&report["channels"], &report["entries"]), (&json!(2), &json!(14 + 4)), "{report:#}");

        // A log whose beginning was purged is whole.
        let (status, _, err) = on.aula(&["purge-channel", &direct, "--before-seq", "3", "--yes"]);
        assert!(status.success(), "{err}");
        assert_clean(&on, &[]);

        let of_group = "channel = (SELECT channel FROM channels WHERE name = 'all')";
        let delete =
            |table: &str, user: &str| damage(&format!("DELETE FROM {table} WHERE {of_group} AND username = '{user}'"));
        let member = |set: &str, user: &str| {
            format!("UPDATE users_by_channel SET {set} WHERE {of_group} AND username = '{user}'")
        };
        let dan = |into: &str| format!("INSERT INTO {into} FROM channels WHERE {of_group}");
        for (sql, kind) in [
            (format!("DELETE FROM users_by_channel WHERE {of_group} AND username = 'bob'"), "member"),
            (member("joined_seq = 1", "cyd"), "member"),
            (member("role = 'owner'", "bob"), "member"),
            (member("read_seq = 99, delivered_seq = 99", "bob"), "watermarks"),
            (member("delivered_seq = 0", "bob"), "watermarks"),
            (format!("UPDATE channels SET read_by_all = 9, delivered_by_all = 9 WHERE {of_group}"), "by_all"),
            (format!("DELETE FROM channels_by_username WHERE {of_group} AND username = 'bob'"), "not_listed"),
            (dan("channels_by_username SELECT 'dan', channel, 3"), "listed"),
            (dan("users_by_channel SELECT channel, 'dan', 'member', 3, 2, 2"), "no_member"),
            // The entry that says so is the head's next.
            (format!("UPDATE channels SET last_seq = 13 WHERE {of_group}"), "head_behind"),
        ] {
            damage(&sql);
            let report = assert_found(&on, &[], json!({ kind: 1 }));
            assert_eq!(report["findings"][0]["channel"], json!(group), "{sql}: {report:#}");
            // Who never was in it is found by going through all lists alone.
            if kind != "listed" {
                let (code, of_channel) = verify(&on, &["--channel", &group]);
                assert_eq!((code, &of_channel["counts"]), (1, &report["counts"]), "{sql}");
            }
            assert_clean(&on, &["--channel", &direct]);
            assert_repaired(&on, &[]);
        }
        // Several at once, one behind the other.
        delete("users_by_channel", "bob");
        delete("channels_by_username", "bob");
        delete("users_by_channel", "ada");
        assert_repaired(&on, &[]);

        // The index.
        let bodies = "SELECT rowid FROM messages WHERE body LIKE 'from bob%'";
        damage(&format!("DELETE FROM messages_fts_docsize WHERE id IN ({bodies})"));
        assert_found(&on, &[], json!({"not_indexed": 5}));
        assert_repaired(&on, &[]);
        damage("UPDATE messages SET kind = 'media' WHERE body = 'from ada 1'");
        assert_found(&on, &[], json!({"stray_in_index": 1}));
        assert_repaired(&on, &[]);

        // What is gone stays gone: it is neither made up, nor is anything else taken from it.
        damage("DELETE FROM messages WHERE body IN ('from ada 2', 'from bob 2')");
        let report = assert_found(&on, &[], json!({"hole": 1, "stray_in_index": 2}));
        let hole = &report["findings"].as_array().unwrap().iter().find(|one| one["kind"] == "hole").unwrap();
        assert_eq!((&hole["first"], &hole["last"]), (&json!(6), &json!(7)), "{report:#}");
        let (code, report) = verify(&on, &["--repair"]);
        assert_eq!((code, &report["outcome"]), (1, &json!("not_repaired")), "{report:#}");
        delete("channels_by_username", "bob");
        let (code, report) = verify(&on, &["--repair"]);
        assert_eq!((code, &report["outcome"]), (3, &json!("partly_repaired")), "{report:#}");
        let (status, text, _) = on.aula(&["verify", "--repair"]);
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(
            text.contains("entries 6 to 7 are missing from the log [not repaired: messages are never made up"),
            "{text}"
        );
        assert!(text.contains("`aula reindex` builds an index without it"), "{text}");
        assert_eq!(on.aula(&["reindex"]).0.code(), Some(0));
        assert_found(&on, &[], json!({"hole": 1}));
        // The end of a log.
        damage("DELETE FROM messages WHERE body = 'for you alone 2'");
        let report = assert_found(&on, &["--channel", &direct], json!({"hole": 1}));
        assert_eq!((&report["findings"][0]["first"], &report["findings"][0]["last"]), (&json!(4), &json!(4)));
    });
}

#[test]
fn under_load_nothing_is_accused_that_is_under_way() {
    let server = Server::start();
    let on = server.builder_ref().clone();
    let url = format!("http://{}", server.addr());
    let load =
        ["simulate-clients", "--url", &url, "--clients", "30", "--rate", "150", "--duration", "9s", "--ramp", "1s"];
    let mut load = Worker::spawn(&on, &load);
    std::thread::sleep(Duration::from_secs(2));
    let (began, mut entries) = (std::time::Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(8) {
        entries = assert_clean(&on, &[])["entries"].as_u64().unwrap();
    }
    assert!(entries > 100, "{entries}");
    assert_eq!(load.finish(Duration::from_secs(60)).0.code(), Some(0), "{}", load.stderr());
    assert_clean(&on, &["--repair"]);
}

#[test]
fn wrong_arguments_and_nothing_to_look_at() {
    let on = Server::builder();
    let (status, out, err) = on.aula(&["verify"]);
    assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("aula migrate"), "{err}");
    assert!(on.aula(&["migrate"]).0.success());
    assert_clean(&on, &[]);
    for wrong in [&["--channel", "7"][..], &["--patience", "3"], &["--channel", "00000000-0000-0000-0000-000000000000"]]
    {
        let (status, out, err) = on.aula(&[&["verify"], wrong].concat());
        assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{wrong:?}: {err}");
    }
}
