//! Lanes as lines that fit the terminal.

use clap::builder::styling::{AnsiColor, Style};

use super::advice::advice;
use super::row::{Picture, Row};
use super::verdict::Verdict;
use crate::ops::output::printable;
use crate::ops::terminal::{age, fit, fitting, leave_out, wrapped};

/// Names, in the order of the cells. The verdict is the last: it is painted where it ends.
const HEADER: [&str; 14] = [
    "QUEUE",
    "SHARD",
    "DEPTH",
    "READY",
    "UNACKED",
    "IN/S",
    "OUT/S",
    "OLDEST",
    "DRAIN",
    "REDELIVERED",
    "DEAD",
    "MEMORY",
    "CONSUMER",
    "VERDICT",
];
/// What a narrow terminal goes without, the first of these first.
const DISPENSABLE: [&str; 9] =
    ["MEMORY", "REDELIVERED", "UNACKED", "READY", "CONSUMER", "DRAIN", "IN/S", "OUT/S", "OLDEST"];

/// What is left out where no lane has anything to tell.
const OPTIONAL: [&str; 6] = ["READY", "UNACKED", "IN/S", "OUT/S", "REDELIVERED", "MEMORY"];
const NOTHING: &str = "-";

/// The table, and below it what to do.
pub fn lines(picture: &Picture, width: Option<usize>, color: bool) -> Vec<String> {
    let mut header = HEADER.to_vec();
    let mut rows: Vec<Vec<String>> = picture.rows.iter().map(cells).collect();
    for name in OPTIONAL {
        let place = header.iter().position(|known| *known == name);
        if let Some(place) = place.filter(|place| rows.iter().all(|row| row[*place] == NOTHING)) {
            leave_out(place, &mut header, &mut rows);
        }
    }
    let lines = fitting(header, rows, &DISPENSABLE, usize::MAX, width);
    let verdicts = std::iter::once(None).chain(picture.rows.iter().map(|row| Some(row.verdict)));
    let mut text: Vec<String> = lines
        .iter()
        .zip(verdicts)
        .map(|(line, verdict)| painted(fit(line, width), verdict.filter(|_| color)))
        .collect();
    if let Some((came, went)) = picture.together {
        text.push(fit(&format!("all lanes: {came:.1}/s in, {went:.1}/s out"), width));
    }
    let advice = advice(picture);
    if !advice.is_empty() {
        text.push(String::new());
        text.extend(advice.iter().flat_map(|line| wrapped(line, width)));
    }
    text
}

fn cells(row: &Row) -> Vec<String> {
    fn or_dash<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
        value.map_or_else(|| NOTHING.to_owned(), text)
    }
    let rate = |rate: Option<f64>| or_dash(rate, |rate| format!("{rate:.1}"));
    let count = |count: Option<u64>| or_dash(count, |count| count.to_string());
    let lane = &row.lane;
    vec![
        lane.queue.clone(),
        lane.shard.to_string(),
        lane.depth.to_string(),
        count(lane.ready),
        count(lane.unacknowledged),
        rate(row.in_per_s),
        rate(row.out_per_s),
        or_dash(lane.oldest_ms, age),
        or_dash(row.drain_s, |seconds| age((seconds * 1000.0) as u64)),
        count(row.redelivered),
        lane.dead_letters.to_string(),
        or_dash(row.memory_bytes, memory),
        or_dash(lane.consumer.as_ref(), |name| {
            let others = lane.consumers.saturating_sub(1);
            let name = printable(name);
            if others > 0 { format!("{name} (+{others})") } else { name }
        }),
        row.verdict.as_str().to_owned(),
    ]
}

fn memory(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let power = (bytes.max(1).ilog2() / 10).min(3);
    let value = bytes as f64 / 1024_f64.powi(power as i32);
    let decimals = usize::from(power > 0 && value < 10.0);
    format!("{value:.decimals$} {}", UNITS[power as usize])
}

fn painted(line: String, verdict: Option<Verdict>) -> String {
    let Some(verdict) = verdict else { return line };
    let style: Style = match verdict {
        Verdict::Ok => AnsiColor::Green.on_default(),
        Verdict::DeadLetters | Verdict::FallingBehind => AnsiColor::Yellow.on_default(),
        Verdict::Stuck => AnsiColor::Red.on_default().bold(),
    };
    // Cut off, it has no colour.
    match line.strip_suffix(verdict.as_str()) {
        Some(rest) => format!("{rest}{style}{}{style:#}", verdict.as_str()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::lane;
    use super::*;

    fn picture() -> Picture {
        let row = |lane, in_per_s, memory_bytes, verdict| Row {
            lane,
            in_per_s,
            out_per_s: in_per_s,
            drain_s: Some(90.0),
            redelivered: None,
            memory_bytes,
            verdict,
        };
        let mut dead = lane("index_tasks", 0, 0, Some("host a, process 7"));
        (dead.dead_letters, dead.consumers) = (2, 3);
        Picture {
            rows: vec![
                row(lane("db_tasks", 0, 12, None), Some(1.26), Some(143_000), Verdict::Stuck),
                row(dead, None, None, Verdict::DeadLetters),
            ],
            together: None,
        }
    }

    #[test]
    fn the_table_says_what_to_do_next() {
        let expected = "\
QUEUE        SHARD  DEPTH  IN/S  OUT/S  OLDEST  DRAIN     DEAD  MEMORY   CONSUMER                VERDICT
db_tasks     0      12     1.3   1.3    1.5 s   1 m 30 s  0     140 KiB  -                       stuck: no consumer
index_tasks  0      0      -     -      -       1 m 30 s  2     -        host a, process 7 (+2)  dead letters

db_tasks 0: nobody works on it: `aula worker --queue db_tasks` (runbooks/queue-grows.md)
index_tasks: 2 dead letters: `aula dead-letters list --queue index_tasks` (runbooks/dead-letters.md)";
        assert_eq!(lines(&picture(), None, false).join("\n"), expected);
    }

    #[test]
    fn a_narrow_terminal_goes_without_some_columns_and_keeps_the_verdict() {
        for width in [120, 80, 60] {
            let lines = lines(&picture(), Some(width), false);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:#?}");
            assert!(lines[0].starts_with("QUEUE") && lines[0].ends_with("VERDICT"), "{width}: {lines:#?}");
            assert!(lines[1].ends_with("stuck: no consumer"), "{width}: {lines:#?}");
        }
        let lines = lines(&picture(), Some(20), true);
        assert!(lines.iter().all(|line| line.chars().count() <= 20), "{lines:#?}");
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        assert!(!lines(&picture(), None, false).concat().contains('\x1b'));
        let painted = lines(&picture(), None, true);
        assert!(painted[1].contains("\x1b[1m\x1b[31mstuck: no consumer\x1b[0m"), "{:?}", painted[1]);
    }

    #[test]
    fn memory_has_units() {
        assert_eq!([0, 900, 2_048, 143_000, 3 << 30].map(memory), ["0 B", "900 B", "2.0 KiB", "140 KiB", "3.0 GiB"]);
    }
}
