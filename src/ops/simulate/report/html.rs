//! A report as one page: no script, nothing fetched, readable in light and dark.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::super::measured::{KEEP_UP, Measured};
use super::Report;
use super::unit::Unit;
use crate::message::Millis;

mod charts;
mod plot;
mod scale;
mod tables;

const STYLE: &str = include_str!("html/page.css");

/// Nothing may be fetched, whatever stands in the texts of a report.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// `report` as an HTML document.
pub fn page(report: &Report<'_>) -> String {
    let run = report.run;
    let title = format!("{} – aula simulate-clients", run.scenario);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (run.scenario) }
                    p { (described(run)) }
                    p.marks { @for (class, words) in marks(report) { span.mark.(class) { (words) } } }
                }
                main {
                    (figures(run))
                    section {
                        h2 { "Stages" }
                        (tables::stages(run))
                    }
                    section {
                        h2 { "Latency by percentile" }
                        @if let Some(earlier) = report.earlier {
                            p.remark { "Dashed: the earlier run of " (Millis(earlier.began_at)) "." }
                        }
                        (charts::percentiles(run, report.earlier))
                    }
                    section {
                        h2 { "Over time" }
                        (charts::over_time(run))
                    }
                    @if !report.judged.is_empty() {
                        section {
                            h2 { "Thresholds" }
                            (tables::thresholds(&report.judged))
                        }
                    }
                    @if let Some(comparison) = &report.comparison {
                        section {
                            h2 { "Compared with an earlier run" }
                            (tables::comparison(comparison))
                        }
                    }
                    section {
                        h2 { "Promises" }
                        (tables::promises(run.verdict.as_ref()))
                    }
                }
                footer { "aula " (env!("CARGO_PKG_VERSION")) }
            }
        }
    };
    page.into_string()
}

fn described(run: &Measured) -> Markup {
    let lasted = Unit::Microseconds.show(run.lasted.as_secs_f64() * 1e6);
    html! {
        time datetime=(Millis(run.began_at)) { (Millis(run.began_at)) }
        ", for " (lasted)
        @for (name, value) in run.settings.iter().filter(|(name, _)| *name != "duration") { ", " (name) " " b { (value) } }
    }
}

/// What must not be overlooked: its class, and words.
fn marks(report: &Report<'_>) -> Vec<(&'static str, String)> {
    let mut marks = Vec::new();
    match &report.run.verdict {
        Some(verdict) if verdict.broken == 0 => marks.push(("good", "promises kept".to_owned())),
        Some(_) => marks.push(("bad", "promises broken".to_owned())),
        None => marks.push(("doubtful", "promises not checked".to_owned())),
    }
    let met = report.judged.iter().filter(|judged| judged.met).count();
    match report.judged.len() {
        0 => {}
        all if met == all => marks.push(("good", "thresholds met".to_owned())),
        all => marks.push(("bad", format!("{} of {all} thresholds not met", all - met))),
    }
    if report.run.offered.fell_behind() {
        marks.push(("doubtful", format!("the load tool fell behind: use {KEEP_UP}")));
    }
    if report.run.was_interrupted {
        marks.push(("doubtful", "interrupted".to_owned()));
    }
    marks
}

/// The run in a few large numbers.
fn figures(run: &Measured) -> Markup {
    let server = run.server.as_ref();
    let figures = [
        ("clients", Some(Unit::Count.show(run.clients as f64))),
        ("sends planned", (run.offered.planned > 0).then(|| Unit::Count.show(run.offered.planned as f64))),
        ("sends offered", (run.offered.planned > 0).then(|| Unit::Count.show(run.offered.attempted as f64))),
        ("reach", (run.expected > 0).then(|| Unit::Share.show(run.reach()))),
        ("messages received", Some(Unit::Count.show(run.received as f64))),
        ("errors", Some(Unit::Count.show(run.error_count() as f64))),
        ("server’s CPU a delivery", run.cpu_per_delivery().map(|micros| Unit::Microseconds.show(micros))),
        ("server’s CPU, of a core", run.share_of_core().map(|share| format!("{:.0}%", 100.0 * share))),
        ("server’s memory", server.map(|server| Unit::Bytes.show(server.used.resident as f64))),
        ("memory a connection", run.bytes_per_connection().map(|bytes| Unit::Bytes.show(bytes))),
        ("tool’s memory a client", run.own_bytes_per_client().map(|bytes| Unit::Bytes.show(bytes))),
        ("tool’s CPU a message", run.own_cpu_per_received().map(|micros| Unit::Microseconds.show(micros))),
    ];
    html! {
        dl.figures {
            @for (name, value) in &figures {
                @if let Some(value) = value {
                    div {
                        dt { (name) }
                        dd { (value) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
