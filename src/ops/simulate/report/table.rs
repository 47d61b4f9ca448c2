//! The end of a run on a terminal: within 80 columns, numbers to the right, and colour only as an addition to words.

use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table, presets};

use super::super::measured::{KEEP_UP, Latencies, Measured, Offered, Stage, Verdict, Violation};
use super::compare::{Change, Comparison};
use super::unit::{Unit, ratio};
use super::{Judged, Report};
use crate::ops::output::printable;
use crate::oracle::Counts;

/// More violations than this help nobody on a terminal: the reports have more.
const VIOLATIONS_SHOWN: usize = 20;

/// The terminal's width that everything fits in, but for texts that are longer by themselves.
const COLUMNS: usize = 80;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default();

/// Everything that is to be said at the end, as lines. `color` paints what is good and what is bad.
pub fn text(report: &Report<'_>, color: bool) -> String {
    let painter = Painter { color };
    let mut parts = vec![head(report.run, painter), stages(report.run)];
    parts.push(errors(report.run));
    parts.push(summary(report.run, painter));
    parts.push(thresholds(&report.judged, painter));
    if let Some(comparison) = &report.comparison {
        parts.push(compared(comparison, painter));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

#[derive(Clone, Copy)]
struct Painter {
    color: bool,
}

impl Painter {
    fn paint(self, text: &str, style: Style) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

fn head(run: &Measured, painter: Painter) -> String {
    let Measured { scenario, settings, lasted, .. } = run;
    let mut parts =
        vec![format!("{} for {}", printable(scenario), Unit::Microseconds.show(lasted.as_secs_f64() * 1e6))];
    // What was asked for; how long it took in the end is said already.
    let asked = settings.iter().filter(|(name, _)| *name != "duration" && *name != "scenario");
    parts.extend(asked.map(|(name, value)| format!("{} {}", printable(name), printable(value))));
    let mut text = wrapped(&parts);
    if run.was_interrupted {
        text.push_str(&format!("{}: the rest of the run is missing\n", painter.paint("interrupted", DOUBTFUL)));
    }
    text
}

/// `parts` with commas between them, on as many lines as they need.
fn wrapped(parts: &[String]) -> String {
    let mut text = String::new();
    let mut column = 0;
    for (index, part) in parts.iter().enumerate() {
        let part = if index + 1 < parts.len() { format!("{part},") } else { part.clone() };
        let width = part.chars().count();
        match column {
            0 => column = width,
            before if before + 1 + width > COLUMNS => {
                text.push('\n');
                column = width;
            }
            before => {
                text.push(' ');
                column = before + 1 + width;
            }
        }
        text.push_str(&part);
    }
    text.push('\n');
    text
}

/// A row for each stage that has anything.
fn stages(run: &Measured) -> String {
    let met = |latencies: &&Latencies| !latencies.micros.is_empty() || latencies.error_count() > 0;
    let rows = Stage::ALL.into_iter().filter_map(|stage| Some((stage, run.stages.get(&stage).filter(met)?)));
    let rows: Vec<_> = rows.map(|(stage, latencies)| stage_row(stage, latencies)).collect();
    if rows.is_empty() {
        return String::new();
    }
    table(["STAGE", "COUNT", "ERRORS", "P50", "P90", "P99", "P99.9", "MAX"], rows, &[1, 2, 3, 4, 5, 6, 7])
}

fn stage_row(stage: Stage, latencies: &Latencies) -> [String; 8] {
    let Latencies { micros, .. } = latencies;
    let shown = |value: u64| if micros.is_empty() { "-".to_owned() } else { Unit::Microseconds.show(value as f64) };
    let at = |quantile| shown(micros.value_at_quantile(quantile));
    [
        stage.name().to_owned(),
        Unit::Count.show(micros.len() as f64),
        Unit::Count.show(latencies.error_count() as f64),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        shown(micros.max()),
    ]
}

/// The kinds behind the column of errors.
fn errors(run: &Measured) -> String {
    let of_stages =
        run.stages.iter().flat_map(|(stage, latencies)| latencies.errors.iter().map(|error| (*stage, error)));
    let rows: Vec<_> = of_stages
        .filter(|(_, (_, count))| **count > 0)
        .map(|(stage, (kind, count))| [stage.name().to_owned(), printable(kind), Unit::Count.show(*count as f64)])
        .collect();
    if rows.is_empty() { String::new() } else { table(["STAGE", "ERROR", "COUNT"], rows, &[2]) }
}

fn summary(run: &Measured, painter: Painter) -> String {
    let mut lines = Vec::new();
    lines.extend(sends(run, painter).into_iter().map(|line| ("sends", line)));
    if run.expected > 0 {
        let Measured { received, expected, .. } = run;
        let share = Unit::Share.show(run.reach());
        let share = if received == expected { share } else { painter.paint(&share, DOUBTFUL) };
        let count = |value: &u64| Unit::Count.show(*value as f64);
        lines.push(("reach", format!("{share}: {} of {} messages received", count(received), count(expected))));
    }
    lines.extend(server(run).into_iter().map(|line| ("server", line)));
    lines.push(("load tool", own(run)));
    match &run.verdict {
        Some(verdict) => lines.extend(promises(verdict, painter).into_iter().map(|line| ("promises", line))),
        None => lines.push(("promises", painter.paint("not checked", DOUBTFUL))),
    }

    let mut text = String::new();
    let mut last = "";
    for (name, line) in lines {
        let name = if name == last { "" } else { name };
        text.push_str(&format!("{name:<11}{line}\n"));
        last = if name.is_empty() { last } else { name };
    }
    text
}

/// What was to be sent and what was, and whether the tool itself is to blame for the difference.
fn sends(run: &Measured, painter: Painter) -> Vec<String> {
    let Offered { planned, attempted, unwritten, late_us } = run.offered;
    if planned == 0 {
        return Vec::new();
    }
    let count = |value: u64| Unit::Count.show(value as f64);
    let late = Unit::Microseconds.show(late_us as f64);
    let mut lines = vec![format!("{} planned, {} offered, {late} late at most", count(planned), count(attempted))];
    if run.offered.fell_behind() {
        let unwritten = if unwritten > 0 { format!(", and never wrote {}", count(unwritten)) } else { String::new() };
        lines.push(painter.paint(&format!("the load tool fell behind{unwritten}"), DOUBTFUL));
        lines.push(format!("use {KEEP_UP}"));
    }
    lines
}

/// What the server used, where that can be seen: CPU, then memory.
fn server(run: &Measured) -> Vec<String> {
    let Some(used) = run.server.as_ref().map(|server| server.used) else { return Vec::new() };
    let mut cpu = Vec::new();
    if let Some(micros) = run.cpu_per_delivery() {
        cpu.push(format!("{} CPU a delivery", Unit::Microseconds.show(micros)));
    }
    if let Some(share) = run.share_of_core() {
        cpu.push(format!("{:.0}% of a core", 100.0 * share));
    }
    let mut memory = vec![format!("{} resident", Unit::Bytes.show(used.resident as f64))];
    if let Some(bytes) = run.bytes_per_connection() {
        memory.push(format!("{} a connection", Unit::Bytes.show(bytes)));
    }
    [cpu, memory].iter().filter(|figures| !figures.is_empty()).map(|figures| figures.join(", ")).collect()
}

fn own(run: &Measured) -> String {
    let used = run.own.used;
    let cpu = match run.own_cpu_per_received() {
        Some(micros) => format!("{} CPU a message received", Unit::Microseconds.show(micros)),
        None => format!("{} CPU", Unit::Microseconds.show(used.cpu.as_secs_f64() * 1e6)),
    };
    let a_client = run.own_bytes_per_client().map(|bytes| format!(", {} a client", Unit::Bytes.show(bytes)));
    format!("{cpu}, {} resident{}", Unit::Bytes.show(used.resident as f64), a_client.unwrap_or_default())
}

fn promises(verdict: &Verdict, painter: Painter) -> Vec<String> {
    let count = |value: u64| Unit::Count.show(value as f64);
    let Verdict { counts, broken, violations, unjudged } = verdict;
    let Counts { attempts, acknowledged, ok, lost, duplicated, unexpected, recovered, retold } = *counts;
    let state = match *broken {
        0 => painter.paint("kept", GOOD),
        1 => painter.paint("BROKEN, 1 violation", BAD),
        several => painter.paint(&format!("BROKEN, {} violations", count(several)), BAD),
    };
    let (attempts, acknowledged, ok) = (count(attempts), count(acknowledged), count(ok));
    let mut lines = vec![
        format!("{state}: {attempts} sends, {acknowledged} acknowledged, {ok} ok"),
        format!(
            "{} lost, {} duplicated, {} unexpected, {} recovered",
            count(lost),
            count(duplicated),
            count(unexpected),
            count(recovered)
        ),
    ];
    if retold > 0 {
        lines.push(format!("{} said to be persisted again", count(retold)));
    }
    lines.extend(unjudged.text().map(|what| painter.paint(&format!("not judged: {what}"), DOUBTFUL)));
    for Violation { promise, seen, .. } in violations.iter().take(VIOLATIONS_SHOWN) {
        lines.push(format!("{} {}", painter.paint(&printable(promise), BAD), printable(seen)));
    }
    let shown = violations.len().min(VIOLATIONS_SHOWN) as u64;
    if *broken > shown {
        lines.push(format!("… and {} more; --report describes some of each promise", count(broken - shown)));
    }
    lines
}

fn thresholds(judged: &[Judged], painter: Painter) -> String {
    if judged.is_empty() {
        return String::new();
    }
    let row = |judged: &Judged| {
        let word = match (judged.met, judged.actual) {
            (true, _) => painter.paint("met", GOOD),
            (false, Ok(_)) => painter.paint("crossed", BAD),
            (false, Err(_)) => painter.paint("not met", BAD),
        };
        [judged.threshold.to_string(), judged.actual_text(), word]
    };
    table(["THRESHOLD", "ACTUAL", "RESULT"], judged.iter().map(row).collect(), &[1])
}

fn compared(comparison: &Comparison, painter: Painter) -> String {
    let mut text = format!("compared with the run of {}\n", comparison.with);
    for (setting, then, now) in &comparison.differences {
        let line = format!("{} was {}, is {}", printable(setting), printable(then), printable(now));
        text.push_str(&format!("{} {line}\n", painter.paint("not alike:", DOUBTFUL)));
    }
    let rows = comparison.rows.iter().map(|row| {
        let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| row.subject.unit().show(value));
        let style = match row.change {
            Change::Better => GOOD,
            Change::Worse => BAD,
            Change::Unsure | Change::OnlyThen | Change::OnlyNow => DOUBTFUL,
            Change::WithinNoise => Style::new(),
        };
        [
            row.subject.name(),
            shown(row.then),
            shown(row.now),
            row.ratio.map_or("-".to_owned(), ratio),
            row.noise.map_or("-".to_owned(), |noise| format!("{:.0}%", noise * 100.0)),
            painter.paint(row.change.words(), style),
        ]
    });
    text.push_str(&table(["FIGURE", "THEN", "NOW", "RATIO", "NOISE", "CHANGE"], rows.collect(), &[1, 2, 3, 4]));
    text
}

/// As the tables of the other commands, with the columns `right` aligned to the right. Only the last one may be painted:
/// escapes would count as width.
fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>, right: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.trim_fmt().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
