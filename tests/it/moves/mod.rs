//! What is stored, taken elsewhere: `aula export` and `aula import`, `aula backup` and `aula restore`.

mod file;
mod refusals;
mod text;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, Encoding};
use crate::people::People;
use crate::server::{Builder, Server};

const SIGKILL: i32 = 9;
const END_LIMIT: Duration = Duration::from_secs(20);
/// Entries of the long channel: more than are moved at once.
const LONG: u64 = 1_300;
/// Channels with two entries each.
const SHORT: u64 = 150;

/// A command's exit status, its report, and what it complained about.
fn run(on: &Builder, words: &[&str]) -> (Option<i32>, Value, String) {
    let (status, out, err) = on.aula(&[&["--output", "json"], words].concat());
    (status.code(), serde_json::from_str(&out).unwrap_or(Value::Null), err)
}

fn done(on: &Builder, words: &[&str], outcome: &str) -> Value {
    let (status, report, err) = run(on, words);
    assert_eq!((status, &report["outcome"]), (Some(0), &json!(outcome)), "{words:?}: {report} {err}");
    report
}

/// What it complained about.
fn refused(on: &Builder, words: &[&str], code: i32) -> String {
    let (status, out, err) = on.aula(words);
    assert_eq!((status.code(), out.as_str()), (Some(code), ""), "{words:?}: {err}");
    err
}

/// Killed at the n-th passage of a crash point.
fn killed(on: &Builder, words: &[&str], at: &str) {
    let (status, _, err) = on.clone().env("AULA_CRASH_AT", at).aula(words);
    assert_eq!(status.signal(), Some(SIGKILL), "{words:?} {at}: {status} {err}");
    assert!(err.contains("crash point"), "{err}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The lines of an export: of each channel, by its id, and of each account.
fn lines(folder: &Path) -> BTreeMap<String, Vec<String>> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut at = String::new();
    for file in manifest["files"].as_array().unwrap() {
        let content = std::fs::read_to_string(folder.join(file["name"].as_str().unwrap())).unwrap();
        for line in content.lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            if let Some(id) = record["channel"]["id"].as_str() {
                at = id.to_owned();
                assert!(!found.contains_key(&at), "{at} twice");
            }
            let key = record["account"]["username"].as_str().map_or(at.as_str(), |name| name);
            found.entry(key.to_owned()).or_default().push(line.to_owned());
        }
    }
    found
}

/// Two exports have the same lines; the first that differs is named.
fn assert_same(one: &BTreeMap<String, Vec<String>>, other: &BTreeMap<String, Vec<String>>) {
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (key, lines) in one {
        for (line, expected) in lines.iter().zip(&other[key]) {
            assert_eq!(line, expected, "{key}");
        }
        assert_eq!(lines.len(), other[key].len(), "{key}");
    }
}

/// A deployment with everything that is to be moved.
struct Lot {
    people: People,
    /// Of ada, bob and, for a while, cyd.
    long: String,
    /// Of ada and bob, who have read it.
    direct: String,
}

impl Lot {
    async fn new() -> Self {
        let people = People::new(&["ada", "bob", "cyd", "dan"]).await;
        let ada = people.client("ada", Encoding::Json).await;
        let bob = people.client("bob", Encoding::Json).await;
        let long = ada.create_group("orchard", &["bob", "cyd"]).await;
        ada.send_persisted(&long, "a pear, \"quoted\"\nand a line").await;
        let reply = ada.request(json!({"op": "remove_member", "channel": long, "members": ["cyd"]})).await;
        assert_eq!(reply["op"], "ok", "{reply}");
        let direct = ada.create_direct("bob").await;
        let seq = ada.send_persisted(&direct, "quince").await;
        for client in [&ada, &bob] {
            client.post(json!({"op": "read", "channel": direct, "seq": seq})).await.unwrap();
        }
        ada.wait_for(|frame| crate::client::is_status(frame, "read") && frame["channel"] == direct).await;
        let (status, _, err) = people.server.aula(&["user", "disable", "dan"]);
        assert!(status.success(), "{err}");
        Self { people, long, direct }
    }

    fn on(&self) -> Builder {
        self.people.server.builder_ref().clone()
    }

    /// Ends the server, and makes the long channel long and the short ones many. Who sends has read it, as ever: a
    /// store that completes what a killed process was storing relies on that.
    fn stop_and_fill(&mut self) {
        self.people.server.sigterm();
        self.people.server.wait(END_LIMIT).expect("it ends");
        let file = rusqlite::Connection::open(self.people.server.data_dir().join("aula.db")).unwrap();
        let long = uuid::Uuid::parse_str(&self.long).unwrap().into_bytes();
        let now = "1795377600000 + n";
        file.execute_batch(&format!(
            "BEGIN;
             CREATE TEMP TABLE ids AS SELECT channel FROM channels WHERE hex(channel_id) = '{id}';
             WITH RECURSIVE more(n) AS (SELECT last_seq + 1 FROM channels, ids USING (channel)
                                        UNION ALL SELECT n + 1 FROM more WHERE n < {LONG})
             INSERT INTO messages (channel, seq, id, sender, client_id, kind, body, at)
             SELECT ids.channel, n, randomblob(16), 'ada', randomblob(16), 'text', 'apple ' || n, {now} FROM more, ids;
             UPDATE channels SET last_seq = {LONG}, last_at = 1795377600000 + {LONG} WHERE channel IN ids;
             UPDATE users_by_channel SET delivered_seq = 900, read_seq = 700 WHERE channel IN ids AND username = 'bob';
             UPDATE users_by_channel SET delivered_seq = {LONG}, read_seq = {LONG}
             WHERE channel IN ids AND username = 'ada';
             CREATE TEMP TABLE short AS WITH RECURSIVE more(n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM more
                                                                  WHERE n < 999 + {SHORT}) SELECT n FROM more;
             INSERT INTO channels (channel, channel_id, kind, name, created_at, last_seq, last_at)
             SELECT n, randomblob(16), 'group', 'plot ' || n, {now}, 2, {now} FROM short;
             INSERT INTO users_by_channel SELECT n, 'bob', 'owner', 1, 2, 2 FROM short;
             INSERT INTO channels_by_username SELECT 'bob', n, 1 FROM short;
             INSERT INTO messages (channel, seq, id, sender, client_id, kind, body, at)
             SELECT n, 1, randomblob(16), 'bob', randomblob(16), 'system', '{{\"created\":{{\"members\":[\"bob\"]}}}}', {now}
             FROM short;
             INSERT INTO messages (channel, seq, id, sender, client_id, kind, body, at)
             SELECT n, 2, randomblob(16), 'bob', randomblob(16), 'text', 'plum ' || n, {now} FROM short;
             COMMIT;",
            id = long.iter().map(|byte| format!("{byte:02X}")).collect::<String>(),
        ))
        .unwrap();
    }

    /// At the other end: the same log, found by search, the same passwords, and the next seq.
    async fn judge(&self, place: std::net::SocketAddr, exported: &BTreeMap<String, Vec<String>>) {
        let http = crate::http::Http::new(place);
        let log_in = async |name: &str| http.log_in(name, crate::http::PASSWORD).await.access;
        let ada = Client::connect(place, "ada", &log_in("ada").await, Encoding::Json).await;
        let bob = Client::connect(place, "bob", &log_in("bob").await, Encoding::Json).await;
        for channel in [&self.long, &self.direct] {
            let history = bob.history_all(channel).await;
            let lines = &exported[channel];
            assert_eq!(history.len(), lines.len() - 1, "{channel}");
            for (shown, line) in history.iter().zip(&lines[1..]) {
                let entry: Value = serde_json::from_str(line).unwrap();
                for field in ["seq", "id", "sender", "client_id", "kind"] {
                    assert_eq!(shown[field], entry["entry"][field], "{field} of {line}");
                }
            }
        }
        let marks = bob.welcome().await;
        let list = marks["channels"].as_array().unwrap();
        let long = list.iter().find(|channel| channel["id"] == *self.long).unwrap_or_else(|| panic!("{list:?}"));
        assert_eq!((&long["delivered_seq"], &long["read_seq"]), (&json!(900), &json!(700)), "{long}");
        let found = async |query: &str, count: u64| {
            let deadline = Instant::now() + Duration::from_secs(15);
            loop {
                let reply = bob.request(json!({"op": "search", "query": query, "limit": 5})).await;
                if reply["total"] == count {
                    break;
                }
                assert!(Instant::now() < deadline, "{query} is not found {count} times: {reply}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        found("pear quoted", 1).await;
        found("quince", 1).await;
        found("plum", SHORT).await;
        found(&format!("apple {LONG}"), 1).await;
        let cyd = Client::connect(place, "cyd", &log_in("cyd").await, Encoding::Json).await;
        assert_eq!(cyd.welcome().await["channels"], json!([]), "who was removed is no member");
        let credentials = json!({"username": "dan", "password": crate::http::PASSWORD});
        assert_eq!(http.post("/api/v1/sessions", None, &credentials).await.0, 403, "dan is disabled");
        assert_eq!(ada.send_persisted(&self.long, "a windfall").await, LONG + 1);
        found("windfall", 1).await;
    }
}

/// A folder that is not there yet, in one that is removed.
fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::TempDir::with_prefix("aula-it-moves-").unwrap();
    let path = folder.path().join("moved");
    (folder, path)
}

/// An embedded deployment without anything in it.
fn empty() -> Builder {
    let on = Server::builder().env("AULA_AUTH_LOGINS_PER_MINUTE", 100_000);
    assert!(on.aula(&["migrate", "up"]).0.success());
    on
}
