//! What is not what it should be is left alone, and named.

use std::fs;

use serde_json::json;

use super::{Lot, done, empty, place, refused, run, text};
use crate::cluster::namespace::Namespace;
use crate::cluster::servers::Servers;
use crate::server::{Builder, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_is_not_what_it_was_changes_nothing() {
    let lot = Lot::new().await;
    tokio::task::block_in_place(|| {
        let (_kept, folder) = place();
        // Beside the running server.
        done(&lot.on(), &["export", text(&folder)], "exported");
        let said = refused(&lot.on(), &["export", text(&folder)], 1);
        assert!(said.contains("is not empty") && said.contains("empty folder"), "{said}");
        let said = refused(&lot.on(), &["import", text(&folder)], 1);
        assert!(said.contains("another server") && said.contains("stop it"), "{said}");
        let nobody = "00000000-0000-0000-0000-000000000000";
        let said = refused(&lot.on(), &["export", text(&folder.join("x")), "--channel", nobody], 2);
        assert!(said.contains("there is no channel"), "{said}");

        let to = empty();
        let state = || done(&to, &["import", text(&folder), "--dry-run"], "foretold");
        let before = state();
        let path = folder.join("channels-00001.ndjson");
        let sound = fs::read(&path).unwrap();
        let mut changed = sound.clone();
        let at = changed.windows(6).position(|bytes| bytes == b"quince").unwrap();
        changed[at..at + 6].copy_from_slice(b"turnip");
        for (content, why) in [(&changed[..], "other contents"), (&sound[..sound.len() - 7], "instead of")] {
            fs::write(&path, content).unwrap();
            let said = refused(&to, &["import", text(&folder)], 1);
            assert!(said.contains(why) && said.contains("nothing was changed"), "{said}");
        }
        fs::write(&path, &sound).unwrap();
        assert_eq!(state()["channels"], before["channels"]);
        let manifest = fs::read_to_string(folder.join("manifest.json")).unwrap();
        fs::write(folder.join("manifest.json"), manifest.replace("\"version\": 1", "\"version\": 2")).unwrap();
        let said = refused(&to, &["import", text(&folder)], 1);
        assert!(said.contains("version 2"), "{said}");
        fs::remove_file(folder.join("manifest.json")).unwrap();
        let said = refused(&to, &["import", text(&folder)], 1);
        assert!(said.contains("was not finished"), "{said}");

        // Another channel under the same id, and another user under the same name.
        fs::write(folder.join("manifest.json"), &manifest).unwrap();
        done(&to, &["import", text(&folder)], "imported");
        let file = rusqlite::Connection::open(to.dir().join("aula.db")).unwrap();
        file.execute_batch(
            "UPDATE messages SET body = 'turnip' WHERE body = 'quince';
             UPDATE users SET password_hash = '$argon2id$other' WHERE username = 'bob';",
        )
        .unwrap();
        drop(file);
        let (status, report, err) = run(&to, &["import", text(&folder)]);
        assert_eq!((status, &report["outcome"]), (Some(3), &json!("partly")), "{report} {err}");
        let named: Vec<_> = report["left_alone"].as_array().unwrap().iter().map(|left| &left["what"]).collect();
        assert_eq!(named, [&json!("account bob"), &json!(format!("channel {}", lot.direct))], "{report}");
        let file = rusqlite::Connection::open(to.dir().join("aula.db")).unwrap();
        let turnips: i64 =
            file.query_row("SELECT count(*) FROM messages WHERE body = 'turnip'", [], |row| row.get(0)).unwrap();
        assert_eq!(turnips, 1);
    });
}

#[test]
fn on_servers_the_databases_have_their_own_backups() {
    let namespace = std::sync::Arc::new(Namespace::new(&Servers::shared()));
    let on = Builder::on_servers(&namespace);
    for words in [["backup", "somewhere"], ["restore", "somewhere"]] {
        let said = refused(&on, &words, 2);
        assert!(said.contains("nodetool snapshot") && said.contains("runbooks/backup.md"), "{said}");
    }
}

#[test]
fn where_there_is_nothing_nothing_is_made() {
    let on = Server::builder();
    let (_kept, folder) = place();
    for words in [["backup", text(&folder)], ["export", text(&folder)]] {
        let said = refused(&on, &words, 1);
        assert!(said.contains("hint:") && !folder.exists(), "{said}");
    }
    for words in [["import", text(&folder)], ["restore", text(&folder)]] {
        let said = refused(&on, &words, 1);
        assert!(said.contains("there is no") && said.contains("was not finished"), "{said}");
    }
    assert_eq!(fs::read_dir(on.dir()).unwrap().count(), 0);
}
