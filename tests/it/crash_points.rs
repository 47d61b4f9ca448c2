//! P1–P9 through deaths at the points where they hurt most, each hit deliberately.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use crate::rng::Rng;
use crate::swarm::Swarm;

/// At which passage of the point the server dies; one life each.
const PASSAGES: [u32; 5] = [1, 2, 7, 40, 120];
/// Under load each point is passed many times a second; a swarm that first finds its server again, on a busy machine,
/// is slow to become load.
const DEATH_LIMIT: Duration = Duration::from_secs(60);
const SIGKILL: i32 = 9;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dies_after_accept() {
    dies_at("after_accept").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dies_after_broadcast_before_store() {
    dies_at("after_broadcast_before_store").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dies_after_store_before_ack() {
    dies_at("after_store_before_ack").await;
}

async fn dies_at(point: &str) {
    let seed = Rng::seed_from_env();
    println!("AULA_TEST_SEED={seed}");
    let mut server = Swarm::server();
    let mut swarm = Swarm::start(&server, seed).await;
    for passage in PASSAGES {
        tokio::time::sleep(Duration::from_millis(100)).await;
        swarm.still_well().await;
        swarm.server_is_down();
        server.builder_mut().set_env("AULA_CRASH_AT", format!("{point}:{passage}"));
        match tokio::task::block_in_place(|| server.try_restart()) {
            Ok(()) => {
                swarm.server_is_at(server.addr());
                let status = tokio::task::block_in_place(|| server.wait(DEATH_LIMIT));
                let status = status.unwrap_or_else(|| panic!("{point}:{passage} is not reached in {DEATH_LIMIT:?}"));
                assert_died_at(point, passage, status, &server.stderr());
            }
            // Work left over from the life before can reach the point before the server is ready.
            Err(failure) => {
                let status = failure.status.unwrap_or_else(|| panic!("{point}:{passage}: {failure}"));
                assert_died_at(point, passage, status, &failure.stderr);
            }
        }
        swarm.server_is_down();
        if passage == PASSAGES[PASSAGES.len() - 1] {
            swarm.settle();
        }
        server.builder_mut().unset_env("AULA_CRASH_AT");
        tokio::task::block_in_place(|| server.restart());
        swarm.server_is_at(server.addr());
    }
    let (counts, verdict) = swarm.judge(&server).await;
    println!("{point}: {} deaths, {counts:?}", PASSAGES.len());
    let found: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "AULA_TEST_SEED={seed}: {found:#?}");
}

fn assert_died_at(point: &str, passage: u32, status: ExitStatus, stderr: &str) {
    assert_eq!(status.signal(), Some(SIGKILL), "{point}:{passage}: {status}; stderr:\n{stderr}");
    assert!(stderr.contains(&format!("crash point {point}")), "died, but not at {point}; stderr:\n{stderr}");
}

crate::on_servers![dies_after_accept, dies_after_broadcast_before_store, dies_after_store_before_ack];
