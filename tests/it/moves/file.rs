//! The embedded deployment's file, copied under load, and made a data directory again.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use super::{END_LIMIT, done, killed, place, refused, text};
use crate::client::{Client, Encoding};
use crate::http::{Http, PASSWORD};
use crate::people::People;
use crate::server::{Server, Worker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_has_all_that_was_persisted_before() {
    let people = People::new(&["ada", "bob"]).await;
    let ada = people.client("ada", Encoding::Json).await;
    let channel = ada.create_direct("bob").await;
    let on = people.server.builder_ref().clone();
    let url = format!("http://{}", people.server.addr());
    let words = ["--quiet", "simulate-clients", "--url", &url, "--clients", "10", "--rate", "200", "--duration", "60s"];
    let mut load = tokio::task::block_in_place(|| Worker::spawn(&on, &words));
    let mut last = 0;
    for n in 0..50 {
        last = ada.send_persisted(&channel, &format!("before {n}")).await;
    }
    let (_kept, folder) = place();
    let words = ["backup", text(&folder)];
    let is_done = AtomicBool::new(false);
    // While somebody sends, and through kills.
    let backup = async {
        tokio::task::block_in_place(|| {
            killed(&on, &words, "backup_step:1");
            assert!(!folder.join("aula.db").exists());
            killed(&on, &words, "backup_before_manifest:1");
            let said = refused(&Server::builder(), &["restore", text(&folder)], 1);
            assert!(said.contains("was not finished"), "{said}");
            let report = done(&on, &words, "backed_up");
            assert!(report["messages"].as_u64() > Some(50), "{report}");
        });
        is_done.store(true, Ordering::Relaxed);
    };
    let send = async {
        let mut sent = 0;
        while !is_done.load(Ordering::Relaxed) {
            ada.send_persisted(&channel, "meanwhile").await;
            sent += 1;
        }
        sent
    };
    let ((), sent) = tokio::join!(backup, tokio::time::timeout(Duration::from_secs(60), send));
    assert!(sent.is_ok());
    load.kill9();
    let to = Server::builder().env("AULA_AUTH_LOGINS_PER_MINUTE", 100_000);
    let server = tokio::task::block_in_place(|| {
        let said = refused(&on, &words, 1);
        assert!(said.contains("is not empty"), "{said}");
        let said = refused(&on, &["restore", text(&folder)], 1);
        assert!(said.contains("another server"), "{said}");
        assert!(!on.dir().join("restore.unfinished").exists());
        restore(&to, &folder);
        to.start()
    });
    let token = Http::new(server.addr()).log_in("bob", PASSWORD).await.access;
    let bob = Client::connect(server.addr(), "bob", &token, Encoding::Json).await;
    let history = bob.history_all(&channel).await;
    assert!(history.len() as u64 >= last, "{} of {last}", history.len());
    let before = (0..50).map(|n| format!("before {n}"));
    let shown: Vec<_> = history.iter().filter_map(|entry| entry["body"].as_str()).collect();
    for body in before {
        assert!(shown.contains(&body.as_str()), "{body} is lost");
    }
    // With the keys of the backup, who was logged in before still is.
    Client::connect(server.addr(), "ada", people.token("ada"), Encoding::Json).await.close().await;
}

fn restore(to: &crate::server::Builder, folder: &std::path::Path) {
    let words = ["restore", text(folder)];
    // What is not what it was changes nothing.
    let path = folder.join("aula.db");
    let sound = fs::read(&path).unwrap();
    let mut changed = sound.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    for content in [&changed[..], &sound[..middle]] {
        fs::write(&path, content).unwrap();
        let said = refused(to, &words, 1);
        assert!(said.contains("nothing was changed"), "{said}");
        assert_eq!(fs::read_dir(to.dir()).unwrap().count(), 0);
    }
    fs::write(&path, &sound).unwrap();
    for at in ["restore_step:1", "restore_before_rename:1"] {
        killed(to, &words, at);
        assert!(!to.dir().join("aula.db").exists(), "{at}: it looks finished");
    }
    killed(to, &words, "restore_before_end:1");
    done(to, &words, "restored");
    let said = refused(to, &words, 1);
    assert!(said.contains("is not empty") && said.contains("--data-dir"), "{said}");
    assert_eq!(fs::read(to.dir().join("aula.db")).unwrap().len(), sound.len());
    let (status, report, _) = super::run(to, &["migrate", "status"]);
    assert_eq!((status, &report[0]["state"]), (Some(0), &json!("applied")));
}

/// Somebody has begun to use the directory that a killed restore was filling.
#[test]
fn a_restore_does_not_replace_what_was_begun_meanwhile() {
    let mut from = Server::start();
    from.sigterm();
    from.wait(END_LIMIT).expect("it ends");
    let (_kept, folder) = place();
    done(from.builder_ref(), &["backup", text(&folder)], "backed_up");
    let to = Server::builder();
    killed(&to, &["restore", text(&folder)], "restore_before_rename:1");
    let mut server = to.start();
    server.sigterm();
    server.wait(END_LIMIT).expect("it ends");
    assert!(to.aula(&["user", "add", "eve", "--generate"]).0.success());
    let said = refused(&to, &["restore", text(&folder)], 1);
    assert!(said.contains("aula.db") && said.contains("is not empty"), "{said}");
    assert!(to.aula(&["user", "list"]).1.contains("eve"));
}
