use super::super::{Report, fake};
use super::*;
use crate::oracle::Unjudged;

fn shown(run: &Measured, expressions: &[&str], earlier: Option<&Measured>) -> String {
    let thresholds: Vec<_> = expressions.iter().map(|expression| expression.parse().unwrap()).collect();
    text(&Report::of(run, &thresholds, earlier), false)
}

fn assert_fits(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        assert_eq!(line.trim_end(), line);
    }
}

/// Without the escapes that colour it.
fn plain(text: &str) -> String {
    let mut pieces = text.split('\u{1b}');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |all, piece| all + piece.split_once('m').map_or(piece, |(_, rest)| rest))
}

#[test]
fn the_end_of_a_run_reads_like_this() {
    let now = fake::measured();
    let mut then = fake::measured();
    then.settings.insert("rate".to_owned(), "500".to_owned());
    if let Some(server) = &mut then.server {
        server.used.cpu *= 2;
        server.used.resident /= 2;
    }
    let text = shown(&now, &["send_to_receive.p99<50ms", "reach>=1", "search.p99<1s"], Some(&then));
    assert_fits(&text);
    assert_eq!(text, include_str!("end.txt"));
}

#[test]
fn broken_promises_are_named_but_not_all() {
    let mut run = fake::measured();
    let verdict = run.verdict.as_mut().unwrap();
    verdict.counts.lost = 23;
    verdict.broken = 5_000;
    let lost =
        |seq| Violation { promise: "P1".to_owned(), seen: format!("seq {seq} is lost\u{1b}[2J"), messages: vec![] };
    verdict.violations = (0..23).map(lost).collect();
    let text = shown(&run, &[], None);
    assert!(text.contains("promises   BROKEN, 5,000 violations: 40,000 sends,"), "{text}");
    assert!(
        text.contains("           P1 seq 19 is lost\\u{1b}[2J\n           … and 4,980 more; --report describes some of each promise\n"),
        "{text}"
    );
}

#[test]
fn colour_is_only_an_addition() {
    let now = fake::measured();
    let thresholds = ["send_to_receive.p99<50ms", "reach>=1"].map(|expression| expression.parse().unwrap());
    let report = Report::of(&now, &thresholds, Some(&now));
    let painted = text(&report, true);
    assert!(painted.contains("\u{1b}[32mkept\u{1b}[0m"), "{painted:?}");
    assert!(painted.contains("\u{1b}[1m\u{1b}[31mcrossed\u{1b}[0m"), "{painted:?}");
    assert_eq!(plain(&painted), text(&report, false));
}

#[test]
fn a_run_of_hours_fits_as_well() {
    let mut run = fake::measured();
    for latencies in run.stages.values_mut() {
        latencies.micros.saturating_record_n(612_345, 1_234_567_890);
        latencies.errors.insert("timeout".to_owned(), 123_456);
    }
    (run.received, run.expected) = (123_456_789_012, 123_456_789_013);
    run.lasted = std::time::Duration::from_secs(36_000);
    run.settings = (0..12).map(|index| (format!("setting-{index}"), "1000".to_owned())).collect();
    assert_fits(&shown(&run, &[], Some(&run)));
}

#[test]
fn an_empty_run_says_so_little() {
    let mut run = fake::measured();
    run.stages.clear();
    (run.received, run.expected) = (0, 0);
    run.server = None;
    run.verdict = None;
    run.offered = Offered::default();
    run.was_interrupted = true;
    let text = shown(&run, &[], None);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "chat for 40s, clients 1000, encoding json, rate 1000");
    assert_eq!(lines[1], "interrupted: the rest of the run is missing");
    assert_eq!(lines[3..], ["load tool  318ms CPU, 11MiB resident, 2.05KiB a client", "promises   not checked"]);
}

#[test]
fn what_was_not_judged_is_said() {
    let mut run = fake::measured();
    let verdict = run.verdict.as_mut().unwrap();
    verdict.counts.retold = 2;
    verdict.unjudged = Unjudged { stream_ends: 12, statuses: 1 };
    let text = shown(&run, &[], None);
    assert_fits(&text);
    let expected = "0 lost, 0 duplicated, 0 unexpected, 3 recovered\n           2 said to be persisted again\n           \
                    not judged: 12 stream ends, 1 status that had not come\n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_tool_that_fell_behind_says_what_to_do() {
    let mut run = fake::measured();
    run.offered = Offered { planned: 40_000, attempted: 38_500, unwritten: 1_500, late_us: 2_300_000 };
    let text = shown(&run, &[], None);
    assert_fits(&text);
    let expected = "sends      40,000 planned, 38,500 offered, 2.30s late at most\n           \
                    the load tool fell behind, and never wrote 1,500\n           \
                    use more --processes or --threads, or a lower --rate\n";
    assert!(text.contains(expected), "{text}");
    // All was written, and much of it late: what was measured is the tool.
    run.offered = Offered { planned: 9, attempted: 9, unwritten: 0, late_us: 1_000_001 };
    assert!(shown(&run, &[], None).contains("the load tool fell behind\n"));
    run.offered.late_us = 1_000_000;
    assert!(!shown(&run, &[], None).contains("fell behind"));
}
