//! The operator's commands beside a running server, and without one.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::{END_LIMIT, bounded, builder};
use crate::client::{Client, Encoding};
use crate::http::Http;
use crate::server::{Builder, Server};

const COMMANDS: [&[&str]; 39] = [
    &[],
    &["serve"],
    &["worker"],
    &["queue-stats"],
    &["reindex"],
    &["dead-letters"],
    &["dead-letters", "list"],
    &["dead-letters", "show"],
    &["dead-letters", "retry"],
    &["dead-letters", "purge"],
    &["verify"],
    &["doctor"],
    &["trace"],
    &["purge-channel"],
    &["export"],
    &["import"],
    &["backup"],
    &["restore"],
    &["verify-history"],
    &["migrate"],
    &["migrate", "up"],
    &["migrate", "status"],
    &["migrate", "plan"],
    &["migrate", "unlock"],
    &["user"],
    &["user", "add"],
    &["user", "list"],
    &["user", "disable"],
    &["user", "enable"],
    &["user", "passwd"],
    &["token"],
    &["token", "mint"],
    &["token", "check"],
    &["token", "revoke"],
    &["config"],
    &["config", "print"],
    &["config", "check"],
    &["completions"],
    &["man"],
];

/// Exit status and the JSON document on stdout.
fn json(on: &Builder, words: &[&str]) -> (i32, Value) {
    let (status, out, err) = on.aula(&[&["--output", "json"], words].concat());
    let value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error} in {out:?}; {err}"));
    (status.code().expect("not killed"), value)
}

#[test]
fn each_command_explains_itself() {
    let on = builder();
    for words in COMMANDS {
        let (status, out, err) = on.aula(&[words, &["--help"]].concat());
        assert!(status.success(), "{words:?}: {err}");
        assert!(out.contains("Usage: aula") && out.contains("--output") && err.is_empty(), "{words:?}: {out}{err}");
    }
    for wrong in [&["srve"][..], &["worker"], &["worker", "--queue", "db_task"], &["migrate", "up", "--wait", "x"]] {
        let (status, out, err) = on.aula(wrong);
        assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{wrong:?}: {err}");
        assert!(err.contains("error:"), "{err}");
    }
    let (_, _, err) = on.aula(&["worker", "--queue", "db_task"]);
    assert!(err.contains("db_tasks, index_tasks and search_tasks"), "{err}");
    assert!(super::snapshot(on.dir()).is_empty(), "explaining creates nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_stats_of_a_running_a_killed_and_a_stopped_server() {
    bounded(60, async {
        let mut server = builder().env("AULA_QUEUE_SHARDS", 3).start();
        let on = server.builder_ref().clone();
        let serving = format!("serve-{}-", server.pid());
        let consumers = |on: &Builder| -> Vec<Option<String>> {
            let (exit, lanes) = json(on, &["queue-stats"]);
            let lanes = lanes.as_array().unwrap().clone();
            assert_eq!((exit, lanes.len()), (0, 4), "{lanes:?}");
            lanes.iter().map(|lane| lane["consumer"].as_str().map(str::to_owned)).collect()
        };
        let running = consumers(&on);
        let ours = |consumer: &Option<String>| consumer.as_ref().is_some_and(|name| name.starts_with(&serving));
        assert!(running.iter().all(ours), "{running:?}");
        let (status, table, _) = on.aula(&["queue-stats"]);
        assert!(status.success() && table.lines().count() == 6 && table.contains("\nall lanes: "), "{table}");
        assert!(!table.contains('\x1b') && table.lines().skip(1).take(4).all(|line| line.ends_with("  ok")), "{table}");
        for columns in [100, 60, 40] {
            let (_, table, _) = on.clone().env("COLUMNS", columns).aula(&["queue-stats"]);
            assert!(table.lines().all(|line| line.chars().count() <= columns), "{columns}: {table}");
        }
        assert!(table.starts_with("QUEUE") && table.contains("index_tasks") && table.contains(&serving), "{table}");
        let (exit, one) = json(&on, &["queue-stats", "--queue", "index_tasks"]);
        assert_eq!((exit, one.as_array().map(Vec::len)), (0, Some(1)), "{one}");
        // The dead consume nothing.
        server.kill9();
        assert!(consumers(&on).iter().all(Option::is_none), "{:?}", consumers(&on));
        tokio::task::block_in_place(|| server.restart());
        server.sigterm();
        tokio::task::block_in_place(|| server.wait(END_LIMIT)).expect("it ends");
        assert!(consumers(&on).iter().all(Option::is_none), "{:?}", consumers(&on));
        let nowhere = on.dir().join("nowhere");
        let (status, _, err) = Server::builder().data_dir(&nowhere).aula(&["queue-stats"]);
        assert!(status.code() == Some(1) && err.contains("hint:") && !nowhere.exists(), "{err}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_and_tokens_beside_a_running_server() {
    bounded(60, async {
        let server = builder().start();
        let on = server.builder_ref().clone();
        let http = Http::new(server.addr());
        let (exit, added) = json(&on, &["user", "add", "ada", "--generate"]);
        assert_eq!((exit, &added["username"]), (0, &"ada".into()), "{added}");
        let password = added["password"].as_str().unwrap();
        let session = http.log_in("ada", password).await;
        let connect = async |token: &str| Client::connect(server.addr(), "ada", token, Encoding::Json).await;

        let check = |token: &str| json(&on, &["token", "check", token]);
        let (exit, good) = check(&session.access);
        assert_eq!((exit, &good["good"], &good["username"]), (0, &true.into(), &"ada".into()), "{good}");
        let (exit, minted) = json(&on, &["token", "mint", "ada", "--ttl", "5m"]);
        assert_eq!(exit, 0, "{minted}");
        let minted = minted["token"].as_str().unwrap().to_owned();
        let by_token = connect(&minted).await;
        let by_session = connect(&session.access).await;
        let (exit, _) = json(&on, &["token", "revoke", &minted]);
        assert_eq!(exit, 0);
        assert_eq!(by_token.wait_closed().await.code, Some(1008));
        assert!(by_session.close_reason().is_none(), "only the revoked token's socket is closed");
        let (exit, refused) = check(&minted);
        assert_eq!((exit, &refused["reason"]), (1, &"revoked".into()), "{refused}");

        let (_, short) = json(&on, &["token", "mint", "ada", "--ttl", "1s"]);
        tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
        let (exit, expired) = check(short["token"].as_str().unwrap());
        assert_eq!((exit, &expired["reason"]), (1, &"expired".into()), "{expired}");
        for bad in ["nonsense", "a.b.c", &format!("{}x", session.access)] {
            let (exit, refused) = check(bad);
            assert!(exit == 1 && refused["reason"].is_string() && refused["explanation"].is_string(), "{refused}");
        }

        assert_eq!(json(&on, &["user", "disable", "ada"]).0, 0);
        assert_eq!(by_session.wait_closed().await.code, Some(1008));
        let (exit, users) = json(&on, &["user", "list"]);
        assert!(exit == 0 && users[0]["disabled_at"].is_string() || users[0]["disabled_at"].is_number(), "{users}");
        let (status, _) =
            http.post("/api/v1/sessions", None, &serde_json::json!({"username": "ada", "password": password})).await;
        assert_eq!(status, 403);
        assert_eq!(json(&on, &["user", "enable", "ada"]).0, 0);
        let again = http.log_in("ada", password).await;
        let again = connect(&again.access).await;
        let (_, changed) = json(&on, &["user", "passwd", "ada", "--generate"]);
        assert_eq!(again.wait_closed().await.code, Some(1008), "a new password ends the sessions");
        http.log_in("ada", changed["password"].as_str().unwrap()).await;
        for (words, said) in [
            (&["user", "add", "ada", "--generate"][..], "there is a user ada already"),
            (&["user", "disable", "bob"], "there is no user bob"),
            (&["token", "mint", "bob"], "there is no user bob"),
        ] {
            let (status, out, err) = on.aula(words);
            assert!(status.code() == Some(1) && out.is_empty() && err.contains(said), "{words:?}: {out}{err}");
        }
        let (status, _, err) = on.aula(&["user", "add", "carl"]);
        assert!(status.code() == Some(2) && err.contains("--password-stdin"), "{err}");
    })
    .await;
}

#[test]
fn migrate_says_by_its_exit_status_what_is_left() {
    let on = builder();
    let exits = |on: &Builder| {
        ["status", "plan", "unlock"].map(|word| on.aula(&["migrate", word]).0.code().expect("not killed"))
    };
    assert_eq!(exits(&on), [3, 3, 0]);
    assert_eq!(on.aula(&["migrate", "up"]).0.code(), Some(0));
    assert_eq!(on.aula(&["migrate"]).0.code(), Some(0));
    assert_eq!(exits(&on), [0, 0, 0]);
    let server = on.start();
    assert_eq!(exits(&on), [0, 0, 0], "beside a running server");
    assert_eq!(json(&on, &["migrate", "up"]), (0, serde_json::json!([])));
    assert_eq!(json(&on, &["migrate", "status"]).1[0]["state"], "applied");
    drop(server);
}

#[test]
fn the_configuration_is_checked_and_printed() {
    let on = builder().env("AULA_SERVER_MAX_CONNECTIONS", 1230);
    let (status, out, err) = on.aula(&["config", "check"]);
    assert!(status.success() && out == "configuration is valid\n" && err.is_empty(), "{out}{err}");
    assert_eq!(json(&on, &["config", "check"]), (0, serde_json::json!({"valid": true})));
    let (exit, printed) = json(&on, &["config", "print"]);
    assert_eq!((exit, &printed["config"]["server"]["max_connections"]), (0, &1230.into()), "{printed}");
    assert_eq!(printed["sources"]["server.max_connections"], "AULA_SERVER_MAX_CONNECTIONS", "{printed}");
    // What is printed is a configuration.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), on.aula(&["config", "print"]).1).unwrap();
    let (status, _, err) = builder().aula(&["--config", file.path().to_str().unwrap(), "config", "check"]);
    assert!(status.success(), "{err}");
}

/// A reader that has seen enough is no failure, and nothing to complain of.
#[test]
fn broken_pipes_are_quiet() {
    let on = builder();
    assert!(on.aula(&["migrate"]).0.success());
    for words in [&["man"][..], &["completions", "bash"], &["config", "print"], &["migrate", "status"], &["--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_aula"))
            .arg("--data-dir")
            .arg(on.dir())
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Closed before anything is written, or soon after.
        drop(child.stdout.take());
        let done = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && err.is_empty(), "{words:?}: {} {err}", done.status);
    }
}
