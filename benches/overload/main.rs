//! A minute in which far more is sent than the server takes: what it refuses, what memory it needs, whether it keeps its
//! promises, and how soon afterwards all is as before.
//!
//! `scripts/bench overload` runs it: `aula simulate-clients` with its scenario `overload` on a server whose queue is
//! short. The clients send at their times whatever becomes of it (open loop), and give up what is refused. All that they
//! see is checked; a broken promise, memory without a bound, a late recovery or a wrong count ends it with an error.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its results and fails by panicking"
)]

mod figures;
#[path = "../load/mod.rs"]
#[allow(dead_code, reason = "the clients are those of the program itself")]
mod load;
mod metrics;

use std::process::ExitCode;

use load::server::{Server, aula};

use figures::Figures;

/// So much may wait: a part of a second's work. As it comes, the queue takes 100,000. And so many sends are remembered
/// for each shard that memory reaches that bound within the minute.
const SETTINGS: [(&str, &str); 3] =
    [("AULA_QUEUE_PREFETCH", "1024"), ("AULA_QUEUE_MAX_DEPTH", "4096"), ("AULA_QUEUE_DEDUP_WINDOW", "100000")];

fn main() -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, report) = (folder.path().join("data"), folder.path().join("report.json"));
    let server = Server::start(&data_dir, &SETTINGS);
    // What people are told of a run; the figures are in the report.
    let run = aula(&data_dir)
        .args(["--output", "json", "simulate-clients", "--scenario", "overload", "--check"])
        .args(["--url", &format!("http://{}", server.address()), "--server-pid", &server.pid().to_string()])
        .arg("--report")
        .arg(&report)
        .output()
        .unwrap();
    let Ok(report) = std::fs::read_to_string(report) else {
        panic!("there is no report: {}", String::from_utf8_lossy(&run.stderr));
    };
    let figures = Figures::of(&serde_json::from_str(&report).unwrap(), metrics::refused(server.address()));
    if std::env::args().any(|argument| argument == "--json") {
        println!("{}", figures.json());
    } else {
        println!("{}", figures.table());
    }
    let faults = figures.faults();
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    if !run.status.success() {
        eprintln!("the run failed: {}", String::from_utf8_lossy(&run.stderr));
    }
    if faults.is_empty() && run.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
