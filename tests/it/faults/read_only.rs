//! A data directory that can't be written: from the start, and from one moment to the next.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::mount::Mount;
use super::{END_LIMIT, bounded, builder, differences, settle_and_judge, snapshot};
use crate::client::{Client, Encoding, is_status};
use crate::http::Http;
use crate::rng::Rng;
use crate::server::{Builder, StartFailure};
use crate::swarm::Swarm;

/// Somebody without rights: root ignores permission bits.
const NOBODY: u32 = 65_534;

/// An owner that could not store tries again every two seconds or so.
const PLACE_LIMIT: Duration = Duration::from_secs(10);

/// What is refused first shows the server that there is a place again: as it says, it is sent again.
async fn persist(probe: &Client, channel: &str) {
    let sent = async {
        loop {
            let (client_id, reply) = probe.send(channel, "there is a place again").await;
            if reply["status"] == "accepted" {
                break probe.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == client_id).await;
            }
            assert_eq!((&reply["code"], &reply["retry"]), (&"unavailable".into(), &true.into()), "{reply}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(PLACE_LIMIT, sent).await.is_ok(), "nothing is stored within {PLACE_LIMIT:?}");
}

fn assert_refused(on: &Builder, folder: &std::path::Path) {
    let before = snapshot(folder);
    let failure: StartFailure = on.try_start().err().expect("it can't write");
    assert_eq!(failure.status.and_then(|status| status.code()), Some(1), "{failure}");
    let said = &failure.stderr;
    assert!(said.contains("error:") && said.contains(&*folder.to_string_lossy()), "{failure}");
    let named = ["Read-only", "read-only", "ermission", "can't be written"];
    assert!(named.iter().any(|word| said.contains(word)), "{failure}");
    assert_eq!(differences(&before, &snapshot(folder)), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_read_only_file_system_is_refused() {
    let disk = Mount::tmpfs("16m");
    let data = disk.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let on = builder().data_dir(&data);
    // Empty, with a database, and with one that was killed and left its log.
    disk.remount("ro");
    assert_refused(&on, &data);
    disk.remount("rw");
    let mut server = on.start();
    server.sigterm();
    assert!(server.wait(END_LIMIT).is_some_and(|status| status.success()));
    disk.remount("ro");
    assert_refused(&on, &data);
    disk.remount("rw");
    on.start().kill9();
    disk.remount("ro");
    assert_refused(&on, &data);
    // What only looks still works, or says why not.
    let (status, out, err) = on.aula(&["migrate", "status"]);
    assert!(status.success(), "{out}{err}");
    disk.remount("rw");
    drop(on.start());
}

#[test]
fn a_folder_of_somebody_else_is_refused() {
    for mode in [0o555, 0o000] {
        let on = builder();
        std::fs::set_permissions(on.dir(), PermissionsExt::from_mode(mode)).unwrap();
        let on = on.uid(NOBODY);
        assert_refused(&on, on.dir());
    }
    // Not even a place to make it in.
    let parent = tempfile::tempdir().unwrap();
    std::fs::set_permissions(parent.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let on = builder();
    let failure = on.uid(NOBODY).data_dir(&parent.path().join("data")).try_start().err().expect("it can't be made");
    assert_eq!(failure.status.and_then(|status| status.code()), Some(1), "{failure}");
    assert!(failure.stderr.contains("can't make the data directory"), "{failure}");
}

/// The database's file alone can't be written.
#[test]
fn a_read_only_database_file_is_refused() {
    let on = builder().uid(NOBODY);
    let mut server = on.start();
    server.sigterm();
    server.wait(END_LIMIT).expect("it ends");
    let file = on.dir().join("aula.db");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o400)).unwrap();
    let before = std::fs::read(&file).unwrap();
    let failure = on.try_start().err().expect("it can't write");
    assert_eq!(failure.status.and_then(|status| status.code()), Some(1), "{failure}");
    assert!(failure.stderr.contains("can't be written"), "{failure}");
    assert!(std::fs::read(&file).unwrap() == before);
    assert!(!on.dir().join("aula.db-wal").exists(), "a log that nobody may write stays behind");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    drop(on.start());
}

/// The files become unwritable under the running server, and writable again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_becomes_read_only_under_load() {
    bounded(150, async {
        let seed = Rng::seed_from_env();
        println!("AULA_TEST_SEED={seed}");
        let disk = Mount::ext4(96);
        let data = disk.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut server = builder().data_dir(&data).start();
        let http = Http::new(server.addr());
        let token = http.new_user("probe").await;
        http.new_user("peer").await;
        let probe = Client::connect(server.addr(), "probe", &token, Encoding::Json).await;
        let channel = probe.create_direct("peer").await;
        let mut swarm = Swarm::start(&server, seed).await;
        // Not the log's index: it is memory that the processes share.
        let files = [data.clone(), data.join("aula.db"), data.join("aula.db-wal")];
        for round in 0..3 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            tokio::task::block_in_place(|| disk.freeze(&files, true));
            let (_, refused) = probe.send(&channel, "nowhere to write it").await;
            assert_eq!((&refused["code"], &refused["retry"]), (&"unavailable".into(), &true.into()), "{refused}");
            tokio::time::sleep(Duration::from_secs(1)).await;
            swarm.still_well().await;
            assert_eq!((http.get("/healthz", None).await.0, http.get("/readyz", None).await.0), (200, 503));
            assert!(probe.close_reason().is_none(), "live sockets stay: {:?}", probe.close_reason());
            let late = format!("late{round}");
            let (status, problem) = http.sign_up(&late, crate::http::PASSWORD).await;
            assert_eq!((status, &problem["code"]), (503, &"unavailable".into()), "{problem}");
            // Whoever starts now is told.
            let (status, _, err) = server.aula(&["user", "disable", "peer"]);
            assert!(status.code() == Some(1) && err.contains("error:"), "{status} {err}");
            tokio::task::block_in_place(|| disk.freeze(&files, false));
            persist(&probe, &channel).await;
            assert_eq!(http.get("/readyz", None).await.0, 200);
            http.new_user(&late).await;
        }
        probe.close().await;
        let log = server.stderr();
        let told = log.lines().filter(|line| line.contains("could not be written")).count();
        assert!((1..20).contains(&told), "the fault is in the log, but not for every write: {told} lines\n{log}");
        settle_and_judge(swarm, &mut server, "read-only for a while", seed).await;
        drop(server);
    })
    .await;
}
