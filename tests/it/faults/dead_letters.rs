//! Tasks that were set aside, and the commands for them, on a data directory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use serde_json::Value;

use super::{bounded, builder, start_worker};
use crate::client::{Client, Encoding};
use crate::http::Http;
use crate::server::{Builder, Worker};

const SOON: Duration = Duration::from_secs(20);
const SIGKILL: i32 = 9;

fn database(on: &Builder) -> Connection {
    let database = Connection::open(on.dir().join("aula.db")).unwrap();
    database.busy_timeout(SOON).unwrap();
    database
}

/// What no worker can read.
fn poison(on: &Builder, payload: &[u8]) {
    let row = "INSERT INTO tasks (family, shard, payload, enqueued_at) VALUES ('db_tasks', 0, ?1, 1000)";
    database(on).execute(row, [payload]).unwrap();
}

fn run(on: &Builder, words: &[&str]) -> (i32, String, String) {
    let (status, out, err) = on.aula(&[&["dead-letters"], words].concat());
    (status.code().expect("not killed"), out, err)
}

fn json(on: &Builder, words: &[&str]) -> (i32, Value) {
    let (code, out, err) = run(on, &[&["--output", "json"], words].concat());
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error} in {out:?}; {err}")))
}

fn listed(on: &Builder) -> Vec<Value> {
    let (code, letters) = json(on, &["list", "--limit", "1000"]);
    assert_eq!(code, 0);
    letters.as_array().unwrap().clone()
}

fn wait_for(on: &Builder, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let letters = listed(on);
        if wanted(&letters) {
            return letters;
        }
        assert!(begun.elapsed() < SOON, "{letters:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The words of a table's line, without what is different each time.
fn words(line: &str) -> Vec<String> {
    let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
    let is_age = |cell: &str| cell.ends_with(" s") && cell.starts_with(|c: char| c.is_ascii_digit());
    cells.map(|cell| if is_age(cell) { "AGE".to_owned() } else { cell.to_owned() }).collect()
}

#[test]
fn poison_is_listed_shown_tried_again_and_thrown_away() {
    let server = builder().env("AULA_QUEUE_SHARDS", 1).start();
    let on = server.builder_ref().clone();
    let (code, out, _) = run(&on, &["list"]);
    assert_eq!((code, out.as_str()), (0, "ID  LANE  KIND  SENDER  TRIES  DIED  CHANNEL  REASON\n"));
    poison(&on, b"\x09secret");
    poison(&on, b"\x01\xc1");
    let letters = wait_for(&on, |letters| letters.len() == 2);
    let version = "payload version 9, this binary reads up to 1: upgrade the workers first";
    let first = &letters[0];
    assert_eq!(
        (&first["queue"], &first["shard"], &first["kind"]),
        (&"db_tasks".into(), &0.into(), &"unreadable".into())
    );
    assert_eq!((&first["reason"], &first["attempts"], &first["bytes"]), (&version.into(), &1.into(), &7.into()));
    assert_eq!(first["first_failed_at"], first["last_failed_at"]);
    assert!(letters[1]["reason"].as_str().unwrap().starts_with("malformed payload"), "{letters:#?}");

    let id = first["id"].as_str().unwrap();
    let (code, table, err) = run(&on, &["list", "--reason", "VERSION", "--since", "1h"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<_> = table.lines().map(words).collect();
    assert_eq!(lines[0], ["ID", "LANE", "KIND", "SENDER", "TRIES", "DIED", "CHANNEL", "REASON"]);
    assert_eq!(lines[1..], [[id, "db_tasks.0", "unreadable", "-", "1", "AGE", "-", version]]);
    let narrow = on.clone().env("COLUMNS", 40);
    let (_, table, _) = run(&narrow, &["list"]);
    assert!(table.lines().all(|line| line.chars().count() <= 40) && table.contains('…'), "{table}");
    assert!(listed(&narrow).len() == 2, "JSON is never cut");

    let (code, shown, _) = run(&on, &["show", id]);
    assert_eq!(code, 0);
    for line in [
        format!("id            {id}"),
        "lane          db_tasks.0".to_owned(),
        "channel       -".to_owned(),
        format!("reason        {version}"),
        "attempts      1".to_owned(),
        "bytes         7".to_owned(),
        format!("task          {{\"unreadable\":\"{version}\"}}"),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    let hexadecimal = "09736563726574";
    assert!(!shown.contains(hexadecimal) && !table.contains('\x1b'), "{shown}");
    let (_, shown) = json(&on, &["show", id, "--bodies"]);
    assert_eq!(shown["task"]["payload"], hexadecimal);
    let (code, out, err) = run(&on, &["show", "77"]);
    assert!(code == 1 && out.is_empty() && err.contains("no dead letter 77") && err.contains("hint:"), "{err}");

    // Nobody is asked where nobody is.
    let (code, out, err) = run(&on, &["retry"]);
    assert!(code == 2 && out.is_empty() && err.contains("--yes"), "{out}{err}");
    let (code, out, _) = run(&on, &["retry", "--dry-run"]);
    assert!(code == 0 && out.contains("2 dead letters would be put back") && out.contains(version), "{out}");
    assert_eq!(listed(&on), letters, "nothing was done");
    // They die of it each time, until that is enough.
    for attempts in [2, 3] {
        let (code, out, err) = run(&on, &["retry", "--yes"]);
        assert_eq!((code, out.as_str()), (0, "2 of 2 dead letters put back\n"), "{err}");
        let again = wait_for(&on, |all| all.len() == 2 && all.iter().all(|one| one["attempts"] == attempts));
        assert_eq!(again[0]["first_failed_at"], letters[0]["first_failed_at"]);
    }
    let (code, report) = json(&on, &["retry", "--yes"]);
    assert_eq!((code, &report["letters"], &report["held_back"]), (3, &0.into(), &2.into()), "{report}");
    let (code, report) = json(&on, &["retry", "--yes", "--again", "--reason", "malformed"]);
    assert_eq!((code, &report["letters"], &report["held_back"]), (0, &1.into(), &0.into()), "{report}");
    let letters = wait_for(&on, |all| all.iter().any(|one| one["attempts"] == 4));

    let (status, out, _) = on.aula(&["queue-stats", "--queue", "db_tasks", "--check", "dead<1", "--check", "age<30s"]);
    assert_eq!((status.code(), out.as_str()), (Some(1), "db_tasks.0: dead<1: it is 2\n"));
    let (_, table, _) = on.aula(&["queue-stats"]);
    assert!(table.contains("db_tasks: 2 dead letters: `aula dead-letters list --queue db_tasks`"), "{table}");
    let (code, _, err) = run(&on, &["purge", "--yes"]);
    assert!(code == 2 && err.contains("--all"), "{err}");
    let (code, out, _) = run(&on, &["purge", "--reason", "malformed", "--yes"]);
    assert_eq!((code, out.as_str()), (0, "1 of 1 dead letters thrown away\n"));
    let left = listed(&on);
    assert_eq!(left.len(), 1);
    let malformed = letters.iter().find(|one| one["attempts"] == 4).unwrap()["id"].as_str().unwrap();
    let (code, report) = json(&on, &["purge", malformed, left[0]["id"].as_str().unwrap(), "--yes"]);
    assert_eq!((code, &report["letters"], &report["missing"][0]), (3, &1.into(), &malformed.into()), "{report}");
    let (code, report) = json(&on, &["purge", malformed, "--yes"]);
    assert_eq!((code, &report["letters"]), (1, &0.into()), "{report}");
    assert_eq!(listed(&on).len(), 0);
    let checks = ["--check", "dead<1", "--check", "depth<5", "--check", "age<30s", "--check", "consumers>=1"];
    let (status, out, err) = on.aula(&[&["--quiet", "queue-stats"][..], &checks].concat());
    assert!(status.success() && out.is_empty() && err.is_empty(), "{out}{err}");
}

#[test]
fn wrong_arguments_are_refused_before_anything_is_touched() {
    let on = builder();
    for wrong in [
        &["dead-letters"][..],
        &["dead-letters", "show"],
        &["dead-letters", "list", "--queue", "db_task"],
        &["dead-letters", "list", "--since", "yesterday"],
        &["dead-letters", "list", "--limit", "0"],
        &["dead-letters", "retry", "--rate", "0"],
        &["dead-letters", "purge", "--yes"],
        &["queue-stats", "--check", "age<30"],
        &["queue-stats", "--check", "depht<3"],
        &["queue-stats", "--watch", "--check", "depth<3"],
    ] {
        let (status, out, err) = on.aula(wrong);
        assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{wrong:?}: {err}");
    }
    assert!(super::snapshot(on.dir()).is_empty(), "nothing is made");
    let (code, _, err) = run(&on, &["list"]);
    assert!(code == 1 && err.contains("hint:"), "{err}");
}

/// Sends that nobody worked on, as dead letters: as if a worker of an older release had taken them.
fn set_aside(database: &Connection, reason: &str) -> usize {
    let moved = database.execute(
        "INSERT INTO dead_letters (id, family, shard, payload, enqueued_at, reason, died_at)
         SELECT id, family, shard, payload, enqueued_at, ?1, enqueued_at + 1 FROM tasks WHERE family = 'db_tasks'",
        [reason],
    );
    let moved = moved.unwrap();
    database.execute("DELETE FROM tasks WHERE family = 'db_tasks'", []).unwrap();
    moved
}

fn killed_at(on: &Builder, point: &str) {
    let on = on.clone().env("AULA_CRASH_AT", point);
    let (status, _, err) = on.aula(&["dead-letters", "retry", "--yes"]);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(SIGKILL), "{point}: {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_is_killed_is_run_again_to_the_right_end() {
    const COUNT: usize = 60;
    bounded(120, async {
        let server = builder().arg("--no-worker").start();
        let on = server.builder_ref().clone();
        let mut worker = tokio::task::block_in_place(|| start_worker(&on, &[]));
        let http = Http::new(server.addr());
        let (ann, _) = (http.new_user("ann").await, http.new_user("ben").await);
        let ann = Client::connect(server.addr(), "ann", &ann, Encoding::Json).await;
        let channel = ann.create_direct("ben").await;
        ann.send_persisted(&channel, "before").await;
        tokio::task::block_in_place(|| worker.kill9());
        for number in 0..COUNT {
            let (_, reply) = ann.send(&channel, &format!("secret {number}")).await;
            assert_eq!(reply["status"], "accepted", "{reply}");
        }
        let payloads: Vec<(i64, Vec<u8>)> = tokio::task::block_in_place(|| {
            let database = database(&on);
            let mut rows = database.prepare("SELECT shard, payload FROM tasks WHERE family = 'db_tasks'").unwrap();
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            let payloads: Vec<_> = rows.collect::<Result<_, _>>().unwrap();
            assert_eq!(set_aside(&database, "payload version 1: upgrade"), payloads.len());
            payloads
        });
        assert!(payloads.len() >= COUNT);
        tokio::task::block_in_place(|| {
            let letters = listed(&on);
            let sends: Vec<_> = letters.iter().filter(|letter| letter["kind"] == "send").collect();
            // What was persisted before need not have been acknowledged.
            assert!((COUNT..=COUNT + 1).contains(&sends.len()), "{letters:#?}");
            let last = sends.last().unwrap();
            assert_eq!((&last["sender"], &last["channel"]), (&"ann".into(), &channel.as_str().into()));
            let id = last["id"].as_str().unwrap();
            let (_, shown, _) = run(&on, &["show", id]);
            assert!(!shown.contains("secret 59") && shown.contains("\"body_bytes\":9"), "{shown}");
            assert!(run(&on, &["show", id, "--bodies"]).1.contains("secret 59"));

            killed_at(&on, "before_dead_letter_put_back:3");
            killed_at(&on, "after_dead_letter_put_back:4");
            let before = listed(&on).len();
            assert_eq!(before, payloads.len() - 6);
            let mut slow = Worker::spawn(&on, &["dead-letters", "retry", "--yes", "--rate", "20"]);
            wait_for(&on, |letters| letters.len() < before - 10);
            slow.kill9();
            let left = listed(&on).len();
            assert!(left > 0 && left < before - 10, "{left}");
            // A wish to end is obeyed after the one in hand.
            let mut slow = Worker::spawn(&on, &["dead-letters", "retry", "--yes", "--rate", "20"]);
            wait_for(&on, |letters| letters.len() < left - 2);
            slow.signal(rustix::process::Signal::INT);
            let (status, said) = slow.finish(SOON);
            assert!(status.code() == Some(3) && said.contains("interrupted"), "{said}");
            let (code, out, _) = run(&on, &["retry", "--yes"]);
            assert!(code == 0 && out.ends_with("dead letters put back\n"), "{out}");
            assert_eq!(listed(&on).len(), 0);
            let _worker = start_worker(&on, &[]);
            until_empty(&on);
            // Everything once more, as after a crash between two steps.
            let database = database(&on);
            for (place, (shard, payload)) in payloads.iter().enumerate() {
                let again = "INSERT INTO dead_letters (id, family, shard, payload, enqueued_at, reason, died_at)
                             VALUES (?1, 'db_tasks', ?2, ?3, 1, 'a copy', 2)";
                database.execute(again, params![1_000_000 + place as i64, shard, payload]).unwrap();
            }
            assert_eq!(run(&on, &["retry", "--yes"]).0, 0);
            until_empty(&on);
        });
        let mut found: BTreeMap<String, u32> = BTreeMap::new();
        for entry in ann.history_all(&channel).await {
            let body = entry["body"].as_str().unwrap();
            if body.starts_with("secret") {
                *found.entry(body.to_owned()).or_default() += 1;
            }
        }
        assert!(found.len() == COUNT && found.values().all(|times| *times == 1), "{found:?}");
    })
    .await;
}

fn until_empty(on: &Builder) {
    let begun = Instant::now();
    while !on.aula(&["queue-stats", "--check", "depth<1"]).0.success() {
        assert!(begun.elapsed() < SOON, "{}", on.aula(&["queue-stats"]).1);
    }
}
