//! What a run has measured: the one structure between those who measure and those who report.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::oracle::{Counts, MessageIds, Unjudged};

/// The longest latency that is told apart: ten minutes.
const LONGEST: Duration = Duration::from_secs(600);

/// The way of a message and of a person, in the order in which they are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// From the first byte of the TCP handshake to the welcome; where tries before it failed, of the first of them.
    Connect,
    /// From the moment a send was scheduled to the server's `accepted`; so for all that follow.
    Accepted,
    Persisted,
    /// … until another member has the message.
    SendToReceive,
    /// … until the sender is told that all members have it.
    Delivered,
    /// … until the sender is told that all members have read it.
    Read,
    Search,
    History,
}

impl Stage {
    pub const ALL: [Self; 8] = [
        Self::Connect,
        Self::Accepted,
        Self::Persisted,
        Self::SendToReceive,
        Self::Delivered,
        Self::Read,
        Self::Search,
        Self::History,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Accepted => "accepted",
            Self::Persisted => "persisted",
            Self::SendToReceive => "send_to_receive",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Search => "search",
            Self::History => "history",
        }
    }
}

/// The latencies of one stage, in microseconds, with three significant digits; and what failed, by kind (an error code
/// of the protocol, `timeout`, `closed`, `refused`).
#[derive(Debug, Clone)]
pub struct Latencies {
    pub micros: Histogram<u64>,
    pub errors: BTreeMap<String, u64>,
}

impl Latencies {
    /// Fails only if the bounds make no histogram, which these do.
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        let micros = Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 3)?;
        Ok(Self { micros, errors: BTreeMap::new() })
    }

    /// What is longer than ten minutes counts as ten minutes.
    pub fn record(&mut self, latency: Duration) {
        self.micros.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Of all kinds together.
    pub fn error_count(&self) -> u64 {
        self.errors.values().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }
}

/// One second of the run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Second {
    /// Since the run began.
    pub at: u64,
    pub connected: u64,
    pub sent: u64,
    pub received: u64,
    pub errors: u64,
    /// By stage: samples and their p50 and p99 in microseconds.
    pub stages: BTreeMap<Stage, (u64, u64, u64)>,
    /// Of the server in this second, where it can be seen.
    pub server: Option<Usage>,
}

/// What a process used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
}

/// What the server used, where it can be seen: it is local, or exposes `/metrics`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// From before the first message until all was at rest.
    pub used: Usage,
    /// Resident memory before the first connection, in bytes.
    pub at_rest: u64,
    /// Resident memory with all clients connected, before the first message.
    pub connected: u64,
}

/// What became of the sends, and the promises that the oracle saw broken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    #[serde(flatten)]
    pub counts: Counts,
    /// How often any promise was seen broken.
    #[serde(default)]
    pub broken: u64,
    /// Some of that, of each promise.
    pub violations: Vec<Violation>,
    /// What might have come still.
    #[serde(default)]
    pub unjudged: Unjudged,
}

/// One promise broken once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// `P1` … `P12`, or `Wire`.
    pub promise: String,
    /// Who saw what, for people.
    pub seen: String,
    /// The messages that it is about.
    #[serde(default)]
    pub messages: Vec<MessageIds>,
}

/// What the load tool's own processes used together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Own {
    /// From before the first message until all was at rest, as [`Server::used`].
    pub used: Usage,
    /// Resident memory before there were clients, in bytes; 0 if that wasn't looked at.
    pub at_rest: u64,
    /// Resident memory with all clients connected, before the first message.
    pub connected: u64,
}

/// What was to be sent, and whether the load tool kept up with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// Messages that fell due.
    pub planned: u64,
    /// … that were given to a connection. What is missing here had none, waited behind too many others of its sender, or
    /// is one of the next.
    pub attempted: u64,
    /// … that the load tool had not come to when its time was over.
    pub unwritten: u64,
    /// How long after it was due the tool came to a message, at most, in microseconds.
    pub late_us: u64,
}

impl Offered {
    /// The tool itself is what was measured if it is later than this.
    const LATE: Duration = Duration::from_secs(1);

    /// With those of another part.
    pub fn add(&mut self, other: &Self) {
        self.planned += other.planned;
        self.attempted += other.attempted;
        self.unwritten += other.unwritten;
        self.late_us = self.late_us.max(other.late_us);
    }

    pub fn fell_behind(&self) -> bool {
        self.unwritten > 0 || Duration::from_micros(self.late_us) > Self::LATE
    }
}

/// What helps a load tool that can't keep up.
pub const KEEP_UP: &str = "more --processes or --threads, or a lower --rate";

/// A whole run.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The scenario's name, and what was asked for, for people: `clients`, `rate`, `duration`, …
    pub scenario: String,
    pub settings: BTreeMap<String, String>,
    /// Unix milliseconds.
    pub began_at: i64,
    /// While messages were sent.
    pub lasted: Duration,
    /// From before the first message until all was at rest: what was used is of this time.
    pub watched: Duration,
    /// From the first connection until all was at rest.
    pub whole: Duration,
    pub was_interrupted: bool,
    pub clients: u64,
    pub stages: BTreeMap<Stage, Latencies>,
    /// Messages received by members, the sender among them, and how many should have been.
    pub received: u64,
    pub expected: u64,
    pub offered: Offered,
    pub seconds: Vec<Second>,
    pub server: Option<Server>,
    pub own: Own,
    /// `None` if the oracle did not look.
    pub verdict: Option<Verdict>,
}

impl Measured {
    /// Received ÷ expected; 1 if nothing was.
    pub fn reach(&self) -> f64 {
        if self.expected == 0 { 1.0 } else { self.received as f64 / self.expected as f64 }
    }

    /// Of the server's memory, those bytes that a connection takes.
    pub fn bytes_per_connection(&self) -> Option<f64> {
        let server = self.server.as_ref()?;
        (self.clients > 0).then(|| server.connected.saturating_sub(server.at_rest) as f64 / self.clients as f64)
    }

    /// The server's CPU time as a share of one core's; none if no time was measured.
    pub fn share_of_core(&self) -> Option<f64> {
        let server = self.server.as_ref()?;
        (!self.watched.is_zero()).then(|| server.used.cpu.as_secs_f64() / self.watched.as_secs_f64())
    }

    /// Of the load tool's memory, those bytes that a client takes.
    pub fn own_bytes_per_client(&self) -> Option<f64> {
        let is_known = self.clients > 0 && self.own.at_rest > 0;
        is_known.then(|| self.own.connected.saturating_sub(self.own.at_rest) as f64 / self.clients as f64)
    }

    /// Messages received a second, while messages were sent; none if none were.
    pub fn received_rate(&self) -> Option<f64> {
        (!self.lasted.is_zero()).then(|| self.received as f64 / self.lasted.as_secs_f64())
    }

    /// The server's CPU time in microseconds for each message that somebody received.
    pub fn cpu_per_delivery(&self) -> Option<f64> {
        let server = self.server.as_ref()?;
        (self.received > 0).then(|| server.used.cpu.as_secs_f64() * 1e6 / self.received as f64)
    }

    /// The load tool's own CPU time in microseconds for each message that it received.
    pub fn own_cpu_per_received(&self) -> Option<f64> {
        (self.received > 0).then(|| self.own.used.cpu.as_secs_f64() * 1e6 / self.received as f64)
    }

    /// Of all stages and kinds together.
    pub fn error_count(&self) -> u64 {
        self.stages.values().map(Latencies::error_count).fold(0, u64::saturating_add)
    }
}
