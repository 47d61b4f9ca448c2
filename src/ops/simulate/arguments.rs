//! What is asked for on the command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::Url;

use super::Told;
use super::report;
use super::scenario::{self, BUILT_IN, LONGEST, Scenario};
use crate::ops::arguments;
use crate::ops::exit::{Advise as _, Exit};

const EXAMPLES: &str = "\
Examples:
  aula simulate-clients --clients 5000 --rate 1000 --duration 60s
  aula simulate-clients --scenario reconnect-storm --report run.html --report run.json
  aula simulate-clients --scenario big-room --compare run.json --threshold 'send_to_receive.p99<50ms'
  aula simulate-clients --find-capacity rate --threshold 'accepted.p99<100ms' --threshold 'reach>=1'
  aula --data-dir aula-data simulate-clients --url http://127.0.0.1:8080 --server-pid $(pidof aula) --clean-up
  aula simulate-clients --url http://127.0.0.1:8080 --tokens tokens.txt

Without --url a server is started for the run, on an empty data directory that is removed afterwards. With it, accounts
are made in the server's data directory, or in Cassandra, as --data-dir and --config name them; or each client is given
an access token: a file with one a line, as `aula token mint NAME` prints them. Its CPU time and memory are read from its
/metrics, unless --server-pid names a process of this machine.
Latencies count from the time at which something was to be done: what waits, here or there, is part of them.
Exit codes: 0 done, 1 a promise was broken or the run failed, 99 a threshold was crossed. Ctrl-C ends a run early.";

/// Simulate people who chat: measures what a server bears, and checks what it promises
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How many clients connect [default: the scenario's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    clients: Option<u32>,
    /// Messages a second, of all together [default: the scenario's]
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// How long messages are sent; the scenario's phases are stretched to it [default: the scenario's]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    duration: Option<Duration>,
    /// Over how long the clients connect [default: the scenario's]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    ramp: Option<Duration>,
    /// What they do: the name of a built-in scenario, or a YAML file
    #[arg(long, value_name = "NAME|FILE", default_value = "chat")]
    scenario: String,
    /// List the built-in scenarios
    #[arg(long)]
    pub(super) list_scenarios: bool,
    /// Speak only this encoding, whatever the scenario mixes
    #[arg(long, value_enum, value_name = "ENCODING")]
    encoding: Option<Encoding>,
    /// The same choices in each run with the same number
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Use this server, instead of starting one
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The clients' access tokens, one a line, each of another person; without it, accounts are made where the configuration says they are kept
    #[arg(long, value_name = "FILE", requires = "url")]
    tokens: Option<PathBuf>,
    /// The process id of the server, if it is on this machine: its CPU time and memory are measured
    #[arg(long, value_name = "PID", requires = "url")]
    server_pid: Option<u32>,
    /// Where the server's CPU time and memory are read, in the Prometheus text format [default: /metrics of --url]
    #[arg(long, value_name = "URL", requires = "url", conflicts_with = "server_pid", value_parser = metrics_url)]
    metrics_url: Option<Url>,
    /// Load a server that is not on this machine
    #[arg(long, requires = "url")]
    allow_remote: bool,
    /// At the end leave the run's groups, and disable the accounts that were made; what was written stays
    #[arg(long, requires = "url")]
    clean_up: bool,
    /// Begin the names of the run's people and channels with this
    #[arg(long, value_name = "TEXT", default_value = "sim", value_parser = prefix)]
    user_prefix: String,
    /// Spread the clients over so many processes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    processes: u32,
    /// Threads of each process
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Check every promise on all that was seen, however much that is
    #[arg(long, overrides_with = "no_check")]
    check: bool,
    /// Don't check; spares memory
    #[arg(long)]
    no_check: bool,
    /// Write what all clients saw to this file, for `aula verify-history`
    #[arg(long, value_name = "FILE", conflicts_with = "no_check")]
    record: Option<PathBuf>,
    /// Look for the largest rate or number of clients that meets all thresholds; --report tells of the run with that
    #[arg(long, value_enum, value_name = "SCALE", requires = "thresholds", conflicts_with_all = ["record", "compare"])]
    pub(super) find_capacity: Option<Scale>,
    #[command(flatten)]
    pub(super) report: report::Options,
    /// Be a process of clients of another one's run
    #[arg(long, hide = true, value_name = "FILE", requires = "parts")]
    job: Option<PathBuf>,
    /// Which of its parts
    #[arg(long, hide = true, value_name = "FROM-TO", value_parser = parts)]
    parts: Option<(u32, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Encoding {
    Json,
    Msgpack,
}

/// What grows while a capacity is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scale {
    Rate,
    Clients,
}

/// One run, as it is wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The scenario's.
    pub name: String,
    pub scenario: Scenario,
    /// Somebody asked for just so many clients; else the scenario did, for want of a number.
    pub are_clients_asked: bool,
    pub seed: u64,
    pub url: Option<String>,
    pub tokens: Option<PathBuf>,
    pub server_pid: Option<u32>,
    pub metrics_url: Option<Url>,
    pub allow_remote: bool,
    pub clean_up: bool,
    pub user_prefix: String,
    pub processes: u32,
    pub threads: u32,
    /// None: if it isn't too much.
    pub check: Option<bool>,
    pub record: Option<PathBuf>,
}

impl Args {
    /// Whether this is a process of another one's run: its job's file, and the first and the last of its parts.
    pub(super) fn part(&self) -> Option<(&Path, u32, u32)> {
        let (first, last) = self.parts?;
        Some((self.job.as_deref()?, first, last))
    }

    /// Errors: the scenario can't be read, with [`Exit::Usage`].
    pub(super) fn wanted(&self) -> anyhow::Result<Wanted> {
        let mut scenario = read_scenario(&self.scenario).exit(Exit::Usage)?;
        if let Some(clients) = self.clients {
            scenario.clients = clients;
        }
        if let Some(rate) = self.rate {
            scenario.rate = rate;
        }
        if let Some(duration) = self.duration {
            if duration.is_zero() {
                return Err(anyhow::anyhow!("--duration 0 leaves no time to send anything")).exit(Exit::Usage);
            }
            scenario.set_duration(duration);
        }
        if let Some(ramp) = self.ramp {
            scenario.set_ramp(ramp);
        }
        match self.encoding {
            Some(Encoding::Json) => scenario.msgpack = 0.0,
            Some(Encoding::Msgpack) => scenario.msgpack = 1.0,
            None => {}
        }
        let check = match (self.check || self.record.is_some(), self.no_check) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        };
        Ok(Wanted {
            name: self.scenario.clone(),
            scenario,
            are_clients_asked: self.clients.is_some(),
            seed: self.seed,
            url: self.url.clone(),
            tokens: self.tokens.clone(),
            server_pid: self.server_pid,
            metrics_url: self.metrics_url.clone(),
            allow_remote: self.allow_remote,
            clean_up: self.clean_up,
            user_prefix: self.user_prefix.clone(),
            processes: self.processes,
            threads: self.threads,
            check,
            record: self.record.clone(),
        })
    }
}

impl Wanted {
    /// For the report.
    pub fn settings(&self, checks: bool) -> Told {
        let Self { scenario, seed, url, processes, threads, .. } = self;
        let told = [
            ("clients", scenario.clients.to_string()),
            ("rate", scenario.rate.to_string()),
            ("duration", format!("{:?}", scenario.duration())),
            ("ramp", format!("{:?}", scenario.ramp())),
            ("msgpack", scenario.msgpack.to_string()),
            ("seed", seed.to_string()),
            ("server", url.clone().unwrap_or_else(|| "started for the run".to_owned())),
            ("processes", processes.to_string()),
            ("threads", threads.to_string()),
            ("check", checks.to_string()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn read_scenario(name: &str) -> anyhow::Result<Scenario> {
    if let Some(built_in) = Scenario::built_in(name) {
        return Ok(built_in?);
    }
    let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    let text = fs::read_to_string(name)
        .with_context(|| format!("can't read the scenario {name}"))
        .hint(format!("name a YAML file, or one of {}", names.join(", ")))?;
    scenario::read(&text).with_context(|| format!("{name} is no scenario"))
}

fn span(text: &str) -> Result<Duration, String> {
    let duration = arguments::duration(text)?;
    if duration > LONGEST {
        Err(format!("no more than {} days are expected", LONGEST.as_secs() / 86_400))
    } else {
        Ok(duration)
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1e7).contains(&rate) => Ok(rate),
        _ => Err("a number of messages a second, from 0 to 10000000, is expected".to_owned()),
    }
}

fn metrics_url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        _ => Err("a URL is expected, such as http://127.0.0.1:8080/metrics".to_owned()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    // The run's own part and a client's number come behind it.
    match crate::message::Username::new(text) {
        Ok(name) if text.len() <= 16 => Ok(name.to_string()),
        _ => Err("1 to 16 of a-z, 0-9, '_', '.' and '-' are expected, a letter or digit first".to_owned()),
    }
}

fn parts(text: &str) -> Result<(u32, u32), String> {
    let parse = || {
        let (first, last) = text.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    parse().ok_or_else(|| "two numbers, such as 0-3, are expected".to_owned())
}
