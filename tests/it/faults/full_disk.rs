//! A disk that is full: for a while, and from the start.

use std::time::{Duration, Instant};

use super::mount::Mount;
use super::{bounded, builder, metric, rss_kib, settle_and_judge};
use crate::client::{Client, Encoding, is_status, send_request};
use crate::http::Http;
use crate::rng::Rng;
use crate::swarm::Swarm;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_sends_and_nothing_else() {
    bounded(180, async {
        let seed = Rng::seed_from_env();
        println!("AULA_TEST_SEED={seed}");
        let disk = Mount::tmpfs("48m");
        let data = disk.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut server = builder().data_dir(&data).start();
        let http = Http::new(server.addr());
        let token = http.new_user("probe").await;
        http.new_user("peer").await;
        let probe = Client::connect(server.addr(), "probe", &token, Encoding::Json).await;
        let channel = probe.create_direct("peer").await;
        probe.send_persisted(&channel, "before").await;
        let mut swarm = Swarm::start(&server, seed).await;
        let mut repeated = Vec::new();
        for round in 0..3 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            swarm.still_well().await;
            let ballast = disk.fill();
            let (client_id, refused) = refused_send(&probe, &channel).await;
            assert_eq!((&refused["code"], &refused["retry"]), (&"unavailable".into(), &true.into()), "{refused}");
            assert!(refused["retry_after_ms"].as_u64().is_some_and(|after| after > 0), "{refused}");
            assert!(!refused["message"].as_str().unwrap_or_default().contains('/'), "no paths for clients: {refused}");
            tokio::time::sleep(Duration::from_millis(1500)).await;
            // It lives, and what needs no disk works: reading, searching, new connections, typing.
            swarm.still_well().await;
            assert!(probe.close_reason().is_none(), "live sockets stay: {:?}", probe.close_reason());
            assert_eq!(http.get("/healthz", None).await.0, 200);
            assert!(!probe.history_all(&channel).await.is_empty());
            let found = probe.request(serde_json::json!({"op": "search", "query": "before", "limit": 10})).await;
            assert_eq!(found["hits"].as_array().map(Vec::len), Some(1), "{found}");
            Client::connect(server.addr(), "probe", &token, Encoding::Msgpack).await.close().await;
            let (status, problem) = http.sign_up(&format!("late{round}"), crate::http::PASSWORD).await;
            // A small write may find room that the log gave back.
            assert!(status == 201 || status == 503 && problem["code"] == "unavailable", "{status} {problem}");
            assert!(metric(&server, "aula_refused_total").await > 0.0);

            std::fs::remove_file(ballast).unwrap();
            let freed = Instant::now();
            persisted(&probe, &channel, &client_id).await;
            repeated.push(client_id);
            println!("round {round}: persisted {:?} after space was freed", freed.elapsed());
            if status == 503 {
                http.new_user(&format!("late{round}")).await;
            }
        }
        let log = server.stderr();
        assert!(log.contains("the disk is full"), "{log}");
        let lines = log.lines().filter(|line| line.contains("the disk is full")).count();
        println!("{lines} lines about the full disk (of the last 256 KiB of log), RSS {} KiB", rss_kib(server.pid()));
        let entries = probe.history_all(&channel).await;
        for client_id in &repeated {
            let count = entries.iter().filter(|entry| entry["client_id"] == **client_id).count();
            assert_eq!(count, 1, "{client_id} was refused, then repeated");
        }
        probe.close().await;
        settle_and_judge(swarm, &mut server, "full disk", seed).await;
        drop(server);
    })
    .await;
}

/// Sends until one is refused (the log's file may have had room that it gave back to nobody): its id and the answer.
async fn refused_send(probe: &Client, channel: &str) -> (String, serde_json::Value) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let client_id = uuid::Uuid::now_v7().to_string();
        let reply = probe.request(send_request(channel, "while it is full", &client_id, false)).await;
        if reply["op"] == "error" {
            return (client_id, reply);
        }
    }
    panic!("a full disk refuses nothing");
}

/// Repeats until it is persisted.
async fn persisted(probe: &Client, channel: &str, client_id: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let reply = probe.request(send_request(channel, "while it is full", client_id, true)).await;
        if reply["op"] == "ok" {
            break;
        }
        assert!(reply["retry"] == true && Instant::now() < deadline, "{reply}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    probe.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == client_id).await;
}

#[test]
fn a_disk_that_is_full_at_the_start_is_named() {
    let disk = Mount::tmpfs("1m");
    disk.fill();
    let data = disk.path().join("data");
    let failure = builder().data_dir(&data).try_start().err().expect("there is no room for a database");
    assert_eq!(failure.status.and_then(|status| status.code()), Some(1), "{failure}");
    let said = &failure.stderr;
    assert!(said.contains("error:") && (said.contains("full") || said.contains("No space")), "{failure}");
    assert!(said.contains(&*data.to_string_lossy()), "it says where: {failure}");
    std::fs::remove_file(disk.path().join("ballast")).unwrap();
    let disk_with_room = builder().data_dir(&data).start();
    drop(disk_with_room);
}

/// An existing database on a full disk: it is not harmed, and starts when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_filled_up_while_the_server_was_off() {
    bounded(90, async {
        let disk = Mount::tmpfs("24m");
        let data = disk.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut server = builder().data_dir(&data).start();
        let http = Http::new(server.addr());
        let token = http.new_user("ada").await;
        http.new_user("bob").await;
        let ada = Client::connect(server.addr(), "ada", &token, Encoding::Json).await;
        let channel = ada.create_direct("bob").await;
        ada.send_persisted(&channel, "before").await;
        server.kill9();
        let ballast = disk.fill();
        let outcome = tokio::task::block_in_place(|| server.try_restart());
        if let Err(failure) = outcome {
            assert_eq!(failure.status.and_then(|status| status.code()), Some(1), "{failure}");
            assert!(failure.stderr.contains("full"), "{failure}");
        }
        std::fs::remove_file(ballast).unwrap();
        tokio::task::block_in_place(|| server.restart());
        let ada = Client::connect(server.addr(), "ada", &token, Encoding::Json).await;
        ada.send_persisted(&channel, "after").await;
        assert_eq!(ada.history_all(&channel).await.len(), 3);
    })
    .await;
}
