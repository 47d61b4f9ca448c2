//! The same work on aula, on socket.io, on Centrifugo or its library, and on a bare server that does no more than one
//! system call a delivery: the server's CPU time for a unit of work, as a ratio to the bare server's; memory and
//! latencies beside it.
//!
//! `scripts/bench` runs it. Each server is a process of its own on this machine; the clients of all of them are the same
//! event loop, in this process. Short rounds alternate between the servers, so that a machine whose speed drifts slows
//! all of them. Bodies have 100 bytes; nobody sends receipts. aula stores every message, and what it delivers is
//! checked: each message once for each member, in the order of the log, and as many stored as were sent. After what is
//! measured all promises are judged by the oracle, of the same connections or of the same load once more, untimed; a
//! verdict that isn't clean ends the run with an error.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its results and fails by panicking"
)]

mod alive;
mod bare;
mod cast;
mod crowd;
mod dialect;
#[path = "../durable/measure/mod.rs"]
mod durable;
mod figures;
mod judged;
mod machine;
mod peer;
mod server;
mod works;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use figures::Figures;
use peer::Peer;
use works::Work;

/// The first argument of this program as the bare server.
const SERVE_BARE: &str = "serve-bare";
const LOOK: Duration = Duration::from_millis(50);

static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// What unwinds when somebody asks for the end.
struct Interrupted;

#[derive(Parser)]
#[command(about = "Measures aula beside other servers on this machine")]
struct Args {
    /// Only these works
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WORK")]
    only: Vec<Work>,
    /// Only these servers
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::ALL, value_name = "SERVER")]
    servers: Vec<Peer>,
    /// Rounds of the works that have any; their median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Print the figures as JSON, with those of each round, and the table on stderr
    #[arg(long)]
    json: bool,
    /// As `cargo bench` calls it
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == SERVE_BARE) {
        bare::serve();
        return ExitCode::SUCCESS;
    }
    let mut args = Args::parse();
    args.servers.sort();
    args.servers.dedup();
    std::thread::spawn(note_signals);
    args.servers.retain(|&peer| server::install(peer));
    if args.servers.is_empty() {
        eprintln!("there is no server to measure");
        return ExitCode::FAILURE;
    }
    let mut figures = Figures::default();
    let mut failed = Vec::new();
    for work in Work::ALL.into_iter().filter(|work| args.only.is_empty() || args.only.contains(work)) {
        let began = Instant::now();
        // Servers and folders go with what holds them, however this ends; and the other works have their turn.
        match catch_unwind(AssertUnwindSafe(|| work.run(&args.servers, args.rounds, &mut figures))) {
            Ok(()) => eprintln!("{} took {:.0} s", work.name(), began.elapsed().as_secs_f64()),
            Err(end) if end.is::<Interrupted>() => break,
            // The panic has said why.
            Err(_) => failed.push(work.name()),
        }
    }
    let table = format!("{}\n{}", machine::line(), figures.table());
    if args.json {
        println!("{}", figures.json());
        eprintln!("{table}");
    } else {
        println!("{table}");
    }
    if is_interrupted() {
        eprintln!("interrupted: works are missing");
        return ExitCode::from(130);
    }
    if !failed.is_empty() {
        eprintln!("failed, as was said above: {}", failed.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Sleeps, but not through an interrupt.
fn pause(length: Duration) {
    let until = Instant::now() + length;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        stop_if_interrupted();
        std::thread::sleep(left.min(LOOK));
    }
}

fn is_interrupted() -> bool {
    IS_INTERRUPTED.load(Ordering::Relaxed)
}

/// Unwinds if somebody asked for the end.
fn stop_if_interrupted() {
    if is_interrupted() && !std::thread::panicking() {
        resume_unwind(Box::new(Interrupted));
    }
}

fn note_signals() {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).unwrap();
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        IS_INTERRUPTED.store(true, Ordering::Relaxed);
    });
}
