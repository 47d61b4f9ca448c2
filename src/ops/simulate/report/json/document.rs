//! The fields of a document, and how they come from and become what was measured.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::super::super::measured::{Latencies, Measured, Offered, Own, Second, Server, Stage, Usage, Verdict};
use super::{curve, histogram};
use crate::message::Millis;

#[derive(Serialize, Deserialize)]
pub(super) struct Run {
    scenario: String,
    settings: BTreeMap<String, String>,
    began_at: Millis,
    lasted_us: u64,
    /// Reports of before there was a difference have none of these two.
    watched_us: Option<u64>,
    whole_us: Option<u64>,
    was_interrupted: bool,
    clients: u64,
    received: u64,
    expected: u64,
    /// Reports of before it was counted have none.
    #[serde(default)]
    offered: Offered,
    server: Option<ServerUsage>,
    own: OwnUsage,
    verdict: Option<Verdict>,
    stages: BTreeMap<Stage, StageLatencies>,
    seconds: Vec<OneSecond>,
}

#[derive(Serialize, Deserialize)]
struct ProcessUsage {
    cpu_us: u64,
    resident_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct OwnUsage {
    #[serde(flatten)]
    used: ProcessUsage,
    #[serde(default)]
    resident_at_rest_bytes: u64,
    #[serde(default)]
    resident_connected_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct ServerUsage {
    #[serde(flatten)]
    used: ProcessUsage,
    resident_at_rest_bytes: u64,
    resident_connected_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct StageLatencies {
    #[serde(flatten, skip_deserializing)]
    figures: Option<Figures>,
    errors: BTreeMap<String, u64>,
    #[serde(with = "histogram")]
    histogram: Histogram<u64>,
}

#[derive(Serialize)]
struct Figures {
    count: u64,
    min_us: u64,
    mean_us: f64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
    percentiles: Vec<(f64, u64)>,
}

#[derive(Serialize, Deserialize)]
struct OneSecond {
    at: u64,
    connected: u64,
    sent: u64,
    received: u64,
    errors: u64,
    stages: BTreeMap<Stage, StageSecond>,
    server: Option<ProcessUsage>,
}

#[derive(Serialize, Deserialize)]
struct StageSecond {
    count: u64,
    p50_us: u64,
    p99_us: u64,
}

impl Figures {
    fn of(micros: &Histogram<u64>) -> Self {
        Self {
            count: micros.len(),
            min_us: micros.min(),
            mean_us: micros.mean(),
            p50_us: micros.value_at_quantile(0.5),
            p90_us: micros.value_at_quantile(0.9),
            p99_us: micros.value_at_quantile(0.99),
            p999_us: micros.value_at_quantile(0.999),
            max_us: micros.max(),
            percentiles: curve(micros),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl From<Usage> for ProcessUsage {
    fn from(usage: Usage) -> Self {
        Self { cpu_us: micros(usage.cpu), resident_bytes: usage.resident }
    }
}

impl From<ProcessUsage> for Usage {
    fn from(usage: ProcessUsage) -> Self {
        Self { cpu: Duration::from_micros(usage.cpu_us), resident: usage.resident_bytes }
    }
}

impl From<&Measured> for Run {
    fn from(run: &Measured) -> Self {
        let stage = |latencies: &Latencies| StageLatencies {
            figures: Some(Figures::of(&latencies.micros)),
            errors: latencies.errors.clone(),
            histogram: latencies.micros.clone(),
        };
        Self {
            scenario: run.scenario.clone(),
            settings: run.settings.clone(),
            began_at: Millis(run.began_at),
            lasted_us: micros(run.lasted),
            watched_us: Some(micros(run.watched)),
            whole_us: Some(micros(run.whole)),
            was_interrupted: run.was_interrupted,
            clients: run.clients,
            received: run.received,
            expected: run.expected,
            offered: run.offered,
            server: run.server.as_ref().map(|server| ServerUsage {
                used: server.used.into(),
                resident_at_rest_bytes: server.at_rest,
                resident_connected_bytes: server.connected,
            }),
            own: OwnUsage {
                used: run.own.used.into(),
                resident_at_rest_bytes: run.own.at_rest,
                resident_connected_bytes: run.own.connected,
            },
            verdict: run.verdict.clone(),
            stages: run.stages.iter().map(|(name, latencies)| (*name, stage(latencies))).collect(),
            seconds: run.seconds.iter().map(OneSecond::from).collect(),
        }
    }
}

impl From<Run> for Measured {
    fn from(run: Run) -> Self {
        let stage = |stage: StageLatencies| Latencies { micros: stage.histogram, errors: stage.errors };
        Self {
            scenario: run.scenario,
            settings: run.settings,
            began_at: run.began_at.0,
            lasted: Duration::from_micros(run.lasted_us),
            watched: Duration::from_micros(run.watched_us.unwrap_or(run.lasted_us)),
            whole: Duration::from_micros(run.whole_us.unwrap_or(run.lasted_us)),
            was_interrupted: run.was_interrupted,
            clients: run.clients,
            stages: run.stages.into_iter().map(|(name, latencies)| (name, stage(latencies))).collect(),
            received: run.received,
            expected: run.expected,
            offered: run.offered,
            seconds: run.seconds.into_iter().map(Second::from).collect(),
            server: run.server.map(|server| Server {
                used: server.used.into(),
                at_rest: server.resident_at_rest_bytes,
                connected: server.resident_connected_bytes,
            }),
            own: Own {
                used: run.own.used.into(),
                at_rest: run.own.resident_at_rest_bytes,
                connected: run.own.resident_connected_bytes,
            },
            verdict: run.verdict,
        }
    }
}

impl From<&Second> for OneSecond {
    fn from(second: &Second) -> Self {
        let stage = |&(count, p50_us, p99_us): &(u64, u64, u64)| StageSecond { count, p50_us, p99_us };
        Self {
            at: second.at,
            connected: second.connected,
            sent: second.sent,
            received: second.received,
            errors: second.errors,
            stages: second.stages.iter().map(|(name, figures)| (*name, stage(figures))).collect(),
            server: second.server.map(ProcessUsage::from),
        }
    }
}

impl From<OneSecond> for Second {
    fn from(second: OneSecond) -> Self {
        let stage = |stage: StageSecond| (stage.count, stage.p50_us, stage.p99_us);
        Self {
            at: second.at,
            connected: second.connected,
            sent: second.sent,
            received: second.received,
            errors: second.errors,
            stages: second.stages.into_iter().map(|(name, figures)| (name, stage(figures))).collect(),
            server: second.server.map(Usage::from),
        }
    }
}
