use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::load::median;

/// A second counts as one of the burst if so many times the usual rate was sent.
const BURST: f64 = 3.0;
/// Latencies are as before once a second's median is at most so many times that of the slowest second before the burst.
const AS_BEFORE: f64 = 2.0;
/// Whole seconds until then, at most.
const RECOVERY: usize = 5;
/// Of resident memory, in MiB: the window of recent sends, and as much again.
const GROWTH: f64 = 64.0;
/// The stages that must come back to what they were.
const STAGES: [&str; 2] = ["persisted", "send_to_receive"];
const MIB: f64 = 1024.0 * 1024.0;

/// What came of a run, from its report.
pub struct Figures {
    /// A second of the burst.
    offered: f64,
    accepted: f64,
    delivered: f64,
    seconds: usize,
    /// Seconds in which the load tool was too late to count anything: what it measured then is its own lateness.
    held_up: usize,
    refused_at_clients: BTreeMap<String, u64>,
    refused_in_metrics: BTreeMap<String, u64>,
    resident: Resident,
    stages: Vec<Stage>,
    attempts: u64,
    acknowledged: u64,
    lost: u64,
    duplicated: u64,
    unexpected: u64,
    violations: Vec<String>,
}

/// Of the server, in MiB.
struct Resident {
    before: f64,
    peak: f64,
    after: f64,
    /// MiB a second over the second half of the burst.
    slope: f64,
}

struct Stage {
    name: &'static str,
    before: Latencies,
    in_burst: Latencies,
    /// Once they are as before.
    after: Latencies,
    /// Whole seconds from the end of the burst until then; none if that never came.
    slow_seconds: Option<usize>,
}

/// p50 and p99 of a second in the middle, in milliseconds.
struct Latencies {
    p50: f64,
    p99: f64,
}

impl Figures {
    pub fn of(report: &Value, refused_in_metrics: BTreeMap<String, u64>) -> Self {
        let rate: f64 = report["settings"]["rate"].as_str().and_then(|rate| rate.parse().ok()).expect("a rate");
        let seconds = report["seconds"].as_array().expect("seconds");
        let sent = |second: &Value| second["sent"].as_f64().unwrap_or_default();
        let is_burst = |second: &Value| sent(second) > BURST * rate;
        let first = seconds.iter().position(is_burst).expect("a burst");
        let last = seconds.iter().rposition(is_burst).expect("a burst");
        // Before the first message people connect, and the first seconds warm up.
        let begin = seconds.iter().position(|second| sent(second) > 0.0).map_or(0, |second| second + 2).min(first - 1);
        // Behind the last message all comes to rest.
        let end = seconds.iter().rposition(|second| sent(second) > 0.0).expect("messages");
        let (before, burst, after) = (&seconds[begin..first], &seconds[first..=last], &seconds[last + 1..=end]);

        let count = |stage: &str, of: &[Value]| {
            of.iter().filter_map(|second| second["stages"][stage]["count"].as_f64()).sum::<f64>() / of.len() as f64
        };
        let text = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).expect("a verdict");
        let violations = report["verdict"]["violations"].as_array().expect("violations");
        let errors = report["stages"]["accepted"]["errors"].as_object().expect("errors");
        Self {
            offered: burst.iter().map(sent).sum::<f64>() / burst.len() as f64,
            accepted: count("accepted", burst),
            delivered: count("send_to_receive", burst),
            seconds: burst.len(),
            held_up: seconds[begin..=end].iter().filter(|second| sent(second) == 0.0).count(),
            refused_at_clients: errors.iter().filter_map(|(code, n)| Some((code.clone(), n.as_u64()?))).collect(),
            refused_in_metrics,
            resident: Resident::of(before, burst, after),
            stages: STAGES.iter().map(|name| Stage::of(name, before, burst, after)).collect(),
            attempts: text("/verdict/attempts"),
            acknowledged: text("/verdict/acknowledged"),
            lost: text("/verdict/lost"),
            duplicated: text("/verdict/duplicated"),
            unexpected: text("/verdict/unexpected"),
            violations: violations.iter().map(violation).collect(),
        }
    }

    /// What must not be, in words.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.violations.clone();
        if self.lost + self.duplicated + self.unexpected > 0 {
            faults.push("messages are lost, duplicated or unexpected".to_owned());
        }
        let late = |stage: &&Stage| stage.slow_seconds.is_none_or(|seconds| seconds > RECOVERY);
        faults.extend(self.stages.iter().filter(late).map(|stage| format!("{} does not recover in time", stage.name)));
        if self.resident.peak > self.resident.before + GROWTH {
            faults.push(format!("resident memory grows by more than {GROWTH} MiB"));
        }
        let counted = |counts: &BTreeMap<String, u64>| counts.get("overloaded").copied().unwrap_or_default();
        // A client that was sent away doesn't hear of all.
        if counted(&self.refused_at_clients) == 0
            || counted(&self.refused_at_clients) > counted(&self.refused_in_metrics)
        {
            faults.push("what was refused is not what was counted".to_owned());
        }
        faults
    }

    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["", &format!("{} s of overload", self.seconds)]);
        let mut row = |what: String, figure: String| {
            table.add_row([Cell::new(what), Cell::new(figure).set_alignment(CellAlignment::Right)]);
        };
        let Self { offered, accepted, delivered, resident, .. } = self;
        row("offered, accepted, delivered a second".to_owned(), format!("{offered:.0}, {accepted:.0}, {delivered:.0}"));
        row("offered, as a multiple of accepted".to_owned(), format!("{:.1}×", offered / accepted));
        row("seconds in which the load tool was held up".to_owned(), self.held_up.to_string());
        row("refused, as the clients count".to_owned(), listed(&self.refused_at_clients));
        row("refused, in /metrics".to_owned(), listed(&self.refused_in_metrics));
        let Resident { before, peak, after, slope } = resident;
        row("resident before, at most, after, MiB".to_owned(), format!("{before:.1}, {peak:.1}, {after:.1}"));
        row("… its slope over the second half, MiB a second".to_owned(), format!("{slope:.2}"));
        for Stage { name, before, in_burst, after, slow_seconds } in &self.stages {
            let [before, in_burst, after] =
                [before, in_burst, after].map(|of| format!("{:.1} / {:.1}", of.p50, of.p99));
            row(format!("{name} before, p50 / p99 of a second, ms"), before);
            row("… in the overload".to_owned(), in_burst);
            row("… afterwards".to_owned(), after);
            let seconds = slow_seconds.map_or_else(|| "never".to_owned(), |seconds| seconds.to_string());
            row("… seconds until it was as before".to_owned(), seconds);
        }
        let Self { attempts, acknowledged, lost, duplicated, unexpected, violations, .. } = self;
        row("sent, accepted".to_owned(), format!("{attempts}, {acknowledged}"));
        row("lost, duplicated, unexpected".to_owned(), format!("{lost}, {duplicated}, {unexpected}"));
        row("promises broken".to_owned(), violations.len().to_string());
        violations.iter().take(10).for_each(|violation| row("…".to_owned(), violation.clone()));
        table
    }

    pub fn json(&self) -> Value {
        let Resident { before, peak, after, slope } = self.resident;
        let stages = self.stages.iter().map(|stage| {
            let ms = |of: &Latencies| json!({"p50_ms": of.p50, "p99_ms": of.p99});
            let [before, in_burst, after] = [&stage.before, &stage.in_burst, &stage.after].map(ms);
            let told =
                json!({"before": before, "in_burst": in_burst, "after": after, "slow_seconds": stage.slow_seconds});
            (stage.name.to_owned(), told)
        });
        json!({
            "seconds": self.seconds,
            "seconds_held_up": self.held_up,
            "offered_per_second": self.offered.round(),
            "accepted_per_second": self.accepted.round(),
            "delivered_per_second": self.delivered.round(),
            "refused_at_clients": self.refused_at_clients,
            "refused_in_metrics": self.refused_in_metrics,
            "resident_mib": {"before": before, "peak": peak, "after": after, "slope_per_second": slope},
            "stages": stages.collect::<serde_json::Map<_, _>>(),
            "attempts": self.attempts,
            "acknowledged": self.acknowledged,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "unexpected": self.unexpected,
            "violations": self.violations,
        })
    }
}

impl Resident {
    fn of(before: &[Value], burst: &[Value], after: &[Value]) -> Self {
        let resident = |of: &[Value]| -> Vec<f64> {
            of.iter()
                .filter_map(|second| second["server"]["resident_bytes"].as_f64())
                .map(|bytes| bytes / MIB)
                .collect()
        };
        let (before, burst, after) = (resident(before), resident(burst), resident(after));
        let peak = burst.iter().chain(&after).copied().fold(0.0, f64::max);
        Self {
            before: before.last().copied().unwrap_or_default(),
            peak,
            after: after.last().copied().unwrap_or_default(),
            slope: slope(&burst[burst.len() / 2..]),
        }
    }
}

impl Stage {
    fn of(name: &'static str, before: &[Value], burst: &[Value], after: &[Value]) -> Self {
        let p50 = |second: &Value| Some(second["stages"][name]["p50_us"].as_f64()? / 1000.0);
        let limit = AS_BEFORE * before.iter().filter_map(p50).fold(0.0, f64::max);
        let slow_seconds = after.iter().position(|second| p50(second).is_some_and(|p50| p50 <= limit));
        Self {
            name,
            before: Latencies::of(name, before),
            in_burst: Latencies::of(name, burst),
            after: Latencies::of(name, &after[slow_seconds.unwrap_or(0)..]),
            slow_seconds,
        }
    }
}

impl Latencies {
    fn of(stage: &str, seconds: &[Value]) -> Self {
        let middle = |key: &str| {
            let of = seconds.iter().filter_map(|second| second["stages"][stage][key].as_f64());
            median(of.map(|micros| micros / 1000.0).collect())
        };
        Self { p50: middle("p50_us"), p99: middle("p99_us") }
    }
}

fn violation(violation: &Value) -> String {
    let text = |key: &str| violation[key].as_str().unwrap_or_default().to_owned();
    format!("{}: {}", text("promise"), text("seen"))
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<String> = counts.iter().map(|(code, count)| format!("{count} {code}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

/// Of one number a second, by least squares.
fn slope(numbers: &[f64]) -> f64 {
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    let middle = (n - 1.0) / 2.0;
    let spread: f64 = (0..numbers.len()).map(|at| (at as f64 - middle).powi(2)).sum();
    let rise: f64 = numbers.iter().enumerate().map(|(at, number)| (at as f64 - middle) * (number - mean)).sum();
    if spread > 0.0 { rise / spread } else { 0.0 }
}
