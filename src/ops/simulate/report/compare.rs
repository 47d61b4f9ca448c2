//! `--compare earlier.json`: what is better or worse than in an earlier run, and what is only noise.
//!
//! A figure of a run is uncertain by itself. How much is seen from the run's own seconds, taken as batches: where a figure
//! goes up and down from one second to the next, its value for the whole run could have come out otherwise, too (the method
//! of batch means, on logarithms, as latencies vary by factors). A change counts only if it is larger than what both
//! runs' seconds explain, and than what two runs of the same differ by on most machines.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::super::measured::{Measured, Second, Stage};
use super::subject::{Metric, Subject};
use crate::message::Millis;

/// Two runs of the same, one after the other, differ by so much through the machine alone.
const BETWEEN_RUNS: f64 = 0.10;

/// Fewer seconds than this say nothing about how much a figure varies.
const FEWEST_BATCHES: usize = 3;

/// Standard errors on either side that hold 95 % of what chance does.
const STANDARD_ERRORS: f64 = 1.96;

/// This run beside an earlier one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// When the earlier run began.
    pub with: Millis,
    /// What was asked for otherwise: the setting, then, now.
    pub differences: Vec<(String, String, String)>,
    pub rows: Vec<Row>,
}

/// One figure of both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    #[serde(serialize_with = "by_name")]
    pub subject: Subject,
    pub then: Option<f64>,
    pub now: Option<f64>,
    /// Now ÷ then.
    pub ratio: Option<f64>,
    /// How far the ratio may be from 1 through noise, as a share; `None` if the runs are too short to tell.
    pub noise: Option<f64>,
    pub change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Better,
    Worse,
    WithinNoise,
    /// It differs, but the runs are too short to tell noise from change.
    Unsure,
    OnlyThen,
    OnlyNow,
}

impl Change {
    pub const fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::WithinNoise => "within noise",
            Self::Unsure => "unsure: too short",
            Self::OnlyThen => "only then",
            Self::OnlyNow => "only now",
        }
    }
}

impl Comparison {
    pub fn of(now: &Measured, then: &Measured) -> Self {
        let stages =
            Stage::ALL.into_iter().flat_map(|stage| [Metric::P50, Metric::P99].map(|m| Subject::Stage(stage, m)));
        let work =
            [Subject::Reach, Subject::Errors, Subject::Stage(Stage::Accepted, Metric::Rate), Subject::ReceivedRate];
        let server = [Subject::ServerCpuPerDelivery, Subject::ServerRss, Subject::ConnectionBytes];
        Self {
            with: Millis(then.began_at),
            differences: differences(now, then),
            rows: stages.chain(work).chain(server).filter_map(|subject| Row::of(subject, now, then)).collect(),
        }
    }
}

impl Row {
    /// `None` if neither run has the figure.
    fn of(subject: Subject, now: &Measured, then: &Measured) -> Option<Self> {
        let value = |run| subject.of(run).ok();
        let (before, after) = (value(then), value(now));
        let ratio = match (before, after) {
            (Some(before), Some(after)) if before > 0.0 => Some(after / before),
            (Some(_), Some(0.0)) => Some(1.0),
            _ => None,
        };
        let noise = match (subject, before, after) {
            (Subject::Errors, Some(before), Some(after)) => Some(noise_of_counts(before, after)),
            _ => noise(subject, now, then),
        };
        let change =
            match (before, after, ratio) {
                (None, None, _) => return None,
                (Some(_), None, _) => Change::OnlyThen,
                // No error before, and more now than chance makes: a handful has no ratio, and is no news.
                (Some(_), Some(after), None) if subject == Subject::Errors => {
                    if after > STANDARD_ERRORS * after.sqrt() { Change::Worse } else { Change::WithinNoise }
                }
                // What was nothing has no ratio: any of it is new.
                (None, _, _) | (_, _, None) => Change::OnlyNow,
                (Some(_), Some(_), Some(ratio)) => change(subject, ratio, noise),
            };
        Some(Self { subject, then: before, now: after, ratio, noise, change })
    }
}

fn change(subject: Subject, ratio: f64, noise: Option<f64>) -> Change {
    let distance = ratio.max(f64::MIN_POSITIVE).ln().abs();
    match noise {
        _ if distance <= between_runs(subject).ln_1p() => Change::WithinNoise,
        None => Change::Unsure,
        Some(noise) if distance <= noise.ln_1p() => Change::WithinNoise,
        Some(_) if (ratio < 1.0) != subject.is_better_larger() => Change::Better,
        Some(_) => Change::Worse,
    }
}

/// What did not arrive is no matter of the machine's mood.
fn between_runs(subject: Subject) -> f64 {
    if subject == Subject::Reach { 0.0 } else { BETWEEN_RUNS }
}

/// Of two counts of what comes by chance (Poisson), the one by the other.
fn noise_of_counts(before: f64, after: f64) -> f64 {
    (STANDARD_ERRORS * (1.0 / before.max(1.0) + 1.0 / after.max(1.0)).sqrt()).exp_m1().max(BETWEEN_RUNS)
}

/// What both runs' seconds explain, and at least [`BETWEEN_RUNS`].
fn noise(subject: Subject, now: &Measured, then: &Measured) -> Option<f64> {
    let batches = |run: &Measured| -> Option<f64> {
        let of_second: fn(&Second, Subject) -> Option<f64> = match subject {
            Subject::Stage(..) | Subject::ReceivedRate | Subject::ServerCpuPerDelivery => in_second,
            // Memory doesn't vary by chance from second to second; it grows or it doesn't.
            _ => return Some(0.0),
        };
        let values: Vec<f64> = run.seconds.iter().filter_map(|second| of_second(second, subject)).collect();
        standard_error(&values)
    };
    let together = batches(now)?.hypot(batches(then)?);
    Some((STANDARD_ERRORS * together).exp_m1().max(between_runs(subject)))
}

/// The figure of one second alone; `None` for a second that has none, or nothing but zero.
fn in_second(second: &Second, subject: Subject) -> Option<f64> {
    let value = match subject {
        Subject::Stage(stage, metric) => {
            let (count, p50, p99) = second.stages.get(&stage).filter(|(count, ..)| *count > 0)?;
            let figure = match metric {
                Metric::P50 => p50,
                Metric::P99 => p99,
                // What else there is of a second is how many there were.
                _ => count,
            };
            *figure as f64
        }
        Subject::ReceivedRate => second.received as f64,
        _ if second.received == 0 => return None,
        _ => second.server?.cpu.as_secs_f64() * 1e6 / second.received as f64,
    };
    (value > 0.0).then_some(value)
}

/// Of the mean of the logarithms of `values`, all positive.
fn standard_error(values: &[f64]) -> Option<f64> {
    if values.len() < FEWEST_BATCHES {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().map(|value| value.ln()).sum::<f64>() / count;
    let variance = values.iter().map(|value| (value.ln() - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Some((variance / count).sqrt())
}

fn differences(now: &Measured, then: &Measured) -> Vec<(String, String, String)> {
    let settings = |run: &Measured| {
        let mut settings: BTreeMap<String, String> = run.settings.clone();
        settings.insert("scenario".to_owned(), run.scenario.clone());
        settings
    };
    let (now, then) = (settings(now), settings(then));
    let keys: BTreeSet<_> = now.keys().chain(then.keys()).collect();
    let value = |of: &BTreeMap<String, String>, key: &str| of.get(key).map_or("-", String::as_str).to_owned();
    keys.into_iter()
        .filter(|key| now.get(*key) != then.get(*key))
        .map(|key| (key.clone(), value(&then, key), value(&now, key)))
        .collect()
}

fn by_name<S: serde::Serializer>(subject: &Subject, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&subject.name())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fake;
    use super::*;

    fn row(comparison: &Comparison, name: &str) -> Row {
        comparison.rows.iter().find(|row| row.subject.name() == name).unwrap().clone()
    }

    /// A run like [`fake::measured`] with all latencies `factor` times as long.
    fn slower(factor: f64) -> Measured {
        let mut run = fake::measured();
        for latencies in run.stages.values_mut() {
            let recorded: Vec<_> =
                latencies.micros.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect();
            latencies.micros.clear();
            for (value, count) in recorded {
                latencies.micros.saturating_record_n((value as f64 * factor) as u64, count);
            }
        }
        run
    }

    #[test]
    fn a_run_is_like_itself() {
        let run = fake::measured();
        let comparison = Comparison::of(&run, &run);
        assert!(comparison.differences.is_empty());
        assert!(comparison.rows.iter().all(|row| row.change == Change::WithinNoise && row.ratio == Some(1.0)));
        // Four stages with p50 and p99, the work done, and the server's three figures.
        assert_eq!(comparison.rows.len(), 15);
    }

    #[test]
    fn twice_as_long_is_worse_and_the_reverse_better() {
        let (fast, slow) = (fake::measured(), slower(2.0));
        let worse = row(&Comparison::of(&slow, &fast), "accepted.p50");
        assert!((worse.ratio.unwrap() - 2.0).abs() < 0.01, "{worse:?}");
        assert_eq!(worse.change, Change::Worse);
        assert_eq!(row(&Comparison::of(&fast, &slow), "accepted.p50").change, Change::Better);
    }

    #[test]
    fn a_figure_that_jumps_from_second_to_second_proves_nothing() {
        let (mut now, then) = (slower(1.3), fake::measured());
        assert_eq!(row(&Comparison::of(&now, &then), "accepted.p99").change, Change::Worse);
        for (index, second) in now.seconds.iter_mut().enumerate() {
            if let Some((_, _, p99)) = second.stages.get_mut(&Stage::Accepted) {
                *p99 = if index % 2 == 0 { 300 } else { 90_000 };
            }
        }
        let noisy = row(&Comparison::of(&now, &then), "accepted.p99");
        assert_eq!(noisy.change, Change::WithinNoise);
        assert!(noisy.noise.unwrap() > 0.5, "{noisy:?}");
    }

    #[test]
    fn a_short_run_makes_nothing_sure_but_what_is_equal() {
        let (mut now, then) = (slower(3.0), fake::measured());
        now.seconds.truncate(2);
        assert_eq!(row(&Comparison::of(&now, &then), "accepted.p99").change, Change::Unsure);
        assert_eq!(row(&Comparison::of(&now, &then), "server.rss").change, Change::WithinNoise);
    }

    #[test]
    fn what_only_one_run_has_is_said() {
        let (mut now, mut then) = (fake::measured(), fake::measured());
        now.stages.remove(&Stage::Accepted);
        then.server = None;
        now.settings.insert("rate".to_owned(), "2000".to_owned());
        then.scenario = "idle".to_owned();
        let comparison = Comparison::of(&now, &then);
        assert_eq!(row(&comparison, "accepted.p50").change, Change::OnlyThen);
        assert_eq!(row(&comparison, "server.rss").change, Change::OnlyNow);
        let differences = [("rate", "1000", "2000"), ("scenario", "idle", "chat")];
        assert_eq!(comparison.differences, differences.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    }

    #[test]
    fn work_that_is_not_done_is_worse() {
        let then = fake::measured();
        let mut now = fake::measured();
        now.received -= 2_000;
        now.stages.get_mut(&Stage::Accepted).unwrap().errors.insert("overloaded".to_owned(), 400);
        let comparison = Comparison::of(&now, &then);
        // A share of 98 % is within 10 %, and still no noise.
        assert_eq!(row(&comparison, "reach").change, Change::Worse);
        assert_eq!(row(&comparison, "errors").change, Change::Worse);
        assert_eq!(row(&comparison, "received.rate").change, Change::WithinNoise);
        assert_eq!(row(&Comparison::of(&then, &now), "reach").change, Change::Better);
        now.received /= 2;
        now.lasted *= 2;
        let comparison = Comparison::of(&now, &then);
        assert_eq!(row(&comparison, "received.rate").change, Change::Worse);
        assert_eq!(row(&comparison, "accepted.rate").change, Change::Worse);
        assert_eq!(row(&Comparison::of(&then, &now), "received.rate").change, Change::Better);
    }

    #[test]
    fn a_few_errors_more_are_chance() {
        let mut then = fake::measured();
        let mut now = fake::measured();
        let mut change = |before: u64, after: u64| {
            for (run, count) in [(&mut then, before), (&mut now, after)] {
                run.stages.get_mut(&Stage::Accepted).unwrap().errors = [("timeout".to_owned(), count)].into();
            }
            row(&Comparison::of(&now, &then), "errors").change
        };
        assert_eq!(change(0, 2), Change::WithinNoise);
        assert_eq!(change(0, 20), Change::Worse);
        assert_eq!(change(10, 14), Change::WithinNoise);
        assert_eq!(change(100, 200), Change::Worse);
        assert_eq!(change(200, 100), Change::Better);
        assert_eq!(change(20, 0), Change::Better);
    }

    #[test]
    fn cpu_is_compared_by_the_work_done() {
        let then = fake::measured();
        let with_cpu = |cpu: Duration| {
            let mut now = fake::measured();
            let server = now.server.get_or_insert_default();
            server.used.cpu = cpu;
            row(&Comparison::of(&now, &then), "server.cpu_per_delivery").change
        };
        assert_eq!(with_cpu(Duration::from_millis(984)), Change::Worse);
        assert_eq!(with_cpu(Duration::from_millis(500)), Change::WithinNoise);
        assert_eq!(with_cpu(Duration::ZERO), Change::Better);
    }
}
