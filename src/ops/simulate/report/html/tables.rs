//! The tables of a page.

use maud::{Markup, html};

use super::super::super::measured::{Latencies, Measured, Stage, Verdict, Violation};
use super::super::Judged;
use super::super::compare::{Change, Comparison};
use super::super::unit::{Unit, ratio};
use super::charts::class;
use crate::oracle::Counts;

/// More violations than this make the page too large to look at: the JSON report has more.
const VIOLATIONS_SHOWN: usize = 1000;

fn count(value: u64) -> String {
    Unit::Count.show(value as f64)
}

/// A row for each stage that has anything; it is the charts' legend as well.
pub fn stages(run: &Measured) -> Markup {
    let met = |latencies: &&Latencies| !latencies.micros.is_empty() || latencies.error_count() > 0;
    let rows = Stage::ALL.into_iter().filter_map(|stage| Some((stage, run.stages.get(&stage).filter(met)?)));
    html! {
        .wide {
            table {
                thead {
                    tr {
                        th { "stage" }
                        @for name in ["count", "errors", "p50", "p90", "p99", "p99.9", "max"] { th.number { (name) } }
                        th { "errors by kind" }
                    }
                }
                tbody { @for (stage, latencies) in rows { (stage_row(stage, latencies)) } }
            }
        }
    }
}

fn stage_row(stage: Stage, latencies: &Latencies) -> Markup {
    let Latencies { micros, errors } = latencies;
    let shown = |value: u64| if micros.is_empty() { "–".to_owned() } else { Unit::Microseconds.show(value as f64) };
    let kinds: Vec<_> = errors.iter().map(|(kind, number)| format!("{kind} {}", count(*number))).collect();
    html! {
        tr {
            th { span.swatch.(class(stage)) {} (stage.name()) }
            td.number { (count(micros.len())) }
            td.number { (count(latencies.error_count())) }
            @for quantile in [0.5, 0.9, 0.99, 0.999] { td.number { (shown(micros.value_at_quantile(quantile))) } }
            td.number { (shown(micros.max())) }
            td { (kinds.join(", ")) }
        }
    }
}

pub fn thresholds(judged: &[Judged]) -> Markup {
    html! {
        .wide {
            table {
                thead { tr { th { "threshold" } th.number { "actual" } th { "result" } } }
                tbody {
                    @for judged in judged {
                        tr {
                            th { code { (judged.threshold) } }
                            td.number { (judged.actual_text()) }
                            @if judged.met { td.good { "met" } }
                            @else if judged.actual.is_ok() { td.bad { "crossed" } }
                            @else { td.bad { "not met" } }
                        }
                    }
                }
            }
        }
    }
}

pub fn comparison(comparison: &Comparison) -> Markup {
    let class = |change| match change {
        Change::Better => "good",
        Change::Worse => "bad",
        Change::Unsure | Change::OnlyThen | Change::OnlyNow => "doubtful",
        Change::WithinNoise => "same",
    };
    html! {
        p { "Then is " (comparison.with) "." }
        @if !comparison.differences.is_empty() {
            p.doubtful { "The runs were not alike:" }
            ul { @for (name, then, now) in &comparison.differences { li { (name) " was " b { (then) } ", is " b { (now) } } } }
        }
        .wide {
            table {
                thead {
                    tr {
                        th { "figure" }
                        @for name in ["then", "now", "now ÷ then", "noise"] { th.number { (name) } }
                        th { "change" }
                    }
                }
                tbody {
                    @for row in &comparison.rows {
                        @let shown = |value: Option<f64>| value.map_or("–".to_owned(), |value| row.subject.unit().show(value));
                        tr {
                            th { (row.subject.name()) }
                            td.number { (shown(row.then)) }
                            td.number { (shown(row.now)) }
                            td.number { (row.ratio.map_or("–".to_owned(), ratio)) }
                            td.number { (row.noise.map_or("–".to_owned(), |noise| format!("±{:.0}%", noise * 100.0))) }
                            td.(class(row.change)) { (row.change.words()) }
                        }
                    }
                }
            }
        }
    }
}

pub fn promises(verdict: Option<&Verdict>) -> Markup {
    let Some(verdict) = verdict else {
        return html! { p { "They were not checked in this run." } };
    };
    let Verdict { counts, broken, violations, unjudged } = verdict;
    let shown = violations.len().min(VIOLATIONS_SHOWN) as u64;
    let Counts { attempts, acknowledged, ok, lost, duplicated, unexpected, recovered, retold } = *counts;
    let counts = [
        ("attempts", attempts),
        ("acknowledged", acknowledged),
        ("ok", ok),
        ("lost", lost),
        ("duplicated", duplicated),
        ("unexpected", unexpected),
        ("recovered", recovered),
        ("retold", retold),
    ];
    html! {
        .wide {
            table {
                thead { tr { @for (name, _) in &counts { th.number { (name) } } } }
                tbody { tr { @for (_, number) in &counts { td.number { (count(*number)) } } } }
            }
        }
        @if let Some(what) = unjudged.text() { p.doubtful { "Not judged: " (what) "." } }
        @if *broken == 0 { p.good { "All promises were kept." } }
        @else {
            p.bad { (count(*broken)) " violations:" }
            ul {
                @for Violation { promise, seen, .. } in violations.iter().take(VIOLATIONS_SHOWN) { li { b { (promise) } " " (seen) } }
            }
            @if *broken > shown {
                p { "… and " (count(*broken - shown)) " more; the JSON report describes some of each promise." }
            }
        }
    }
}
