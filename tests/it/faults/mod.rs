//! What the world does to a server: processes that die, disks that fill, clocks that jump, operators who err. Each
//! gets a clear error or carries on, and the oracle finds nothing lost.

mod clock_jump;
mod commands;
mod corrupt;
mod dead_letters;
mod drain;
mod full_disk;
mod logs;
mod memory;
mod mount;
mod overload;
mod panics;
mod read_only;
mod refusals;
mod slow_reader;
mod two_processes;
mod watched_worker;
mod workers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aula::oracle::Violation;

use crate::http::Http;
use crate::server::{Builder, Server, Worker};
use crate::swarm::Swarm;

/// How long a worker may take until it works.
const WORKER_LIMIT: Duration = Duration::from_secs(20);
/// How long a process that is told to end may take: the drain's deadline and what it needs to get there.
const END_LIMIT: Duration = Duration::from_secs(20);

/// Fails a test that hangs.
async fn bounded<T>(seconds: u64, test: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(seconds), test).await {
        Ok(value) => value,
        Err(_) => panic!("the test is not over after {seconds} s"),
    }
}

/// A server whose limits a swarm doesn't meet.
fn builder() -> Builder {
    Server::builder().env("AULA_SESSION_REQUESTS_PER_SECOND", 100_000)
}

/// A worker for all queues, at work.
fn start_worker(on: &Builder, more: &[&str]) -> Worker {
    let args = ["worker", "--queue", "db_tasks", "--queue", "index_tasks"];
    let mut worker = Worker::spawn(on, &[&args, more].concat());
    worker.wait_for_log("working", WORKER_LIMIT);
    worker
}

/// Restarts the server once more, so that all that is open is repeated, and asks the oracle.
async fn settle_and_judge(swarm: Swarm, server: &mut Server, what: &str, seed: u64) {
    swarm.settle();
    swarm.server_is_down();
    tokio::task::block_in_place(|| server.restart());
    swarm.server_is_at(server.addr());
    judge(swarm, server, what, seed).await;
}

/// Asks the oracle of a settled swarm.
async fn judge(swarm: Swarm, server: &Server, what: &str, seed: u64) {
    let (counts, verdict) = swarm.judge(server).await;
    let (_, metrics) = Http::new(server.addr()).get("/metrics", None).await;
    let metrics = metrics.as_str().unwrap_or_default();
    let refused: Vec<_> = metrics.lines().filter(|line| line.starts_with("aula_refused_total{")).collect();
    println!("{what}: {counts:?}, at the end {refused:?}");
    let found: Vec<String> = verdict.violations.iter().map(Violation::to_string).collect();
    assert!(found.is_empty(), "{what}, AULA_TEST_SEED={seed}: {found:#?}\n{}", server.stderr());
    assert!(counts.messages > 20 && counts.persisted > 10, "{what}: too little happened: {counts:?}");
}

/// The value of a line of `/metrics`, all its labels summed up; 0 if there is none yet.
async fn metric(server: &Server, name: &str) -> f64 {
    let (status, text) = Http::new(server.addr()).get("/metrics", None).await;
    assert_eq!(status, 200, "{text}");
    let text = text.as_str().expect("metrics are text");
    let of_name = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    of_name.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Resident memory of a process in KiB, from `/proc/PID/status` (proc(5)).
pub fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there is a VmRSS line");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Every file below a folder with its contents: what a refusal must not change.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.insert(path.clone(), Vec::new());
                folders.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The names of what differs between two snapshots.
fn differences(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<PathBuf> {
    let names = before.keys().chain(after.keys());
    let mut changed: Vec<_> = names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect();
    changed.sort();
    changed.dedup();
    changed
}
