//! Channels as text, from either deployment to either, through kills.

use std::sync::Arc;

use serde_json::json;

use super::{LONG, Lot, SHORT, assert_same, done, empty, killed, lines, place, refused, run, text};
use crate::cluster::Cluster;
use crate::cluster::namespace::Namespace;
use crate::cluster::servers::Servers;
use crate::server::Builder;

/// Killed, gone on with, and killed again at the next point.
fn export_through_kills(on: &Builder, folder: &str) {
    let begin = ["export", folder];
    killed(on, &begin, "export_page:2");
    let said = refused(on, &begin, 1);
    assert!(said.contains("was not finished") && said.contains("--resume"), "{said}");
    let resume = ["export", folder, "--resume"];
    for at in ["export_page:100", "export_before_checkpoint:1", "export_file:1", "export_before_manifest:1"] {
        killed(on, &resume, at);
        assert!(!std::path::Path::new(folder).join("manifest.json").exists(), "{at}: it looks finished");
    }
    let report = done(on, &resume, "exported");
    assert_eq!(report["channels"], SHORT + 2, "{report}");
    assert_eq!(done(on, &resume, "exported")["entries"], report["entries"], "once more");
}

fn import_through_kills(on: &Builder, folder: &str, entries: &serde_json::Value) {
    let said = done(on, &["import", folder, "--dry-run"], "foretold");
    assert_eq!((&said["entries_added"], &said["channels"]["added"]), (entries, &json!(SHORT + 2)), "{said}");
    killed(on, &["import", folder], "import_account:2");
    for at in ["import_appended:1", "import_appended:20", "import_group:2", "import_file:1"] {
        killed(on, &["import", folder, "--resume"], at);
    }
    let report = done(on, &["import", folder, "--resume"], "imported");
    assert_eq!((&report["channels"]["left_alone"], &report["accounts"]["left_alone"]), (&json!(0), &json!(0)));
    let report = done(on, &["import", folder], "imported");
    let nothing = json!({"added": 0, "completed": 0, "unchanged": SHORT + 2, "left_alone": 0});
    assert_eq!((&report["entries_added"], &report["channels"]), (&json!(0), &nothing), "{report}");
    assert_eq!(report["accounts"]["unchanged"], 4, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_deployment_moves_to_another() {
    let mut lot = Lot::new().await;
    let (_kept, folder) = place();
    // One reader: what waits for it while it is waited for would never go on.
    let from = lot.on().env("AULA_STORE_READERS", 1);
    let (to, exported) = tokio::task::block_in_place(|| {
        lot.stop_and_fill();
        export_through_kills(&from, text(&folder));
        let exported = lines(&folder);
        assert_eq!(exported[&lot.long].len() as u64, LONG + 1);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&folder.join("accounts.ndjson").metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let to = empty();
        import_through_kills(
            &to,
            text(&folder),
            &done(&from, &["export", text(&folder), "--resume"], "exported")["entries"],
        );
        let (_kept, again) = place();
        done(&to, &["export", text(&again)], "exported");
        assert_same(&lines(&again), &exported);
        (to, exported)
    });
    let server = tokio::task::block_in_place(|| to.start());
    lot.judge(server.addr(), &exported).await;
    // What came since goes after it: the same deployment, exported later.
    tokio::task::block_in_place(|| {
        drop(server);
        let (_kept, later) = place();
        done(&to, &["export", text(&later)], "exported");
        let report = done(&from, &["import", text(&later)], "imported");
        assert_eq!((&report["entries_added"], &report["channels"]["completed"]), (&json!(1), &json!(1)), "{report}");
        let (_kept, one) = place();
        let report = done(&from, &["export", text(&one), "--channel", &lot.long], "exported");
        assert_eq!((&report["channels"], &report["accounts"]), (&json!(1), &json!(2)), "ada and bob: {report}");
        assert_eq!(lines(&one)[&lot.long], lines(&later)[&lot.long]);
        // And back: what is there has gone on.
        let (status, report, err) = run(&from, &["import", text(&folder)]);
        assert_eq!((status, &report["entries_added"]), (Some(0), &json!(0)), "{report} {err}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_deployment_moves_to_servers() {
    let mut lot = Lot::new().await;
    let (_kept, folder) = place();
    let (namespace, exported) = tokio::task::block_in_place(|| {
        lot.stop_and_fill();
        let report = done(&lot.on(), &["export", text(&folder)], "exported");
        let exported = lines(&folder);
        let namespace = Arc::new(Namespace::new(&Servers::shared()));
        let to = Builder::on_servers(&namespace);
        import_through_kills(&to, text(&folder), &report["entries"]);
        let (_kept, again) = place();
        export_through_kills(&to, text(&again));
        assert_same(&lines(&again), &exported);
        (namespace, exported)
    });
    let cluster =
        tokio::task::block_in_place(|| Cluster::of(namespace, 1, 1, &[("AULA_AUTH_LOGINS_PER_MINUTE", "100000")]));
    lot.judge(cluster.gateways[0].addr(), &exported).await;
}
