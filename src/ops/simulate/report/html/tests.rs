use super::super::super::measured::{Second, Stage, Violation};
use super::super::fake;
use super::*;
use crate::oracle::Unjudged;

fn written(run: &Measured, earlier: Option<&Measured>) -> String {
    let thresholds = ["send_to_receive.p99<50ms", "reach>=1"].map(|expression| expression.parse().unwrap());
    page(&Report::of(run, &thresholds, earlier))
}

#[test]
fn a_page_needs_nothing_from_elsewhere() {
    let page = written(&fake::measured(), Some(&fake::measured()));
    for fetching in ["<script", "<link", "<img", "<iframe", "src=", "href=", "url(", "@import", "http://", "https://"] {
        assert!(!page.contains(fetching), "{fetching}");
    }
}

#[test]
fn texts_from_elsewhere_stay_texts() {
    let mut run = fake::measured();
    run.scenario = "<script>alert(1)</script>".to_owned();
    run.settings.insert("<i>".to_owned(), "\"><svg onload=x>".to_owned());
    if let Some(verdict) = &mut run.verdict {
        verdict.broken = 1;
        let seen = "</style><b>lost</b>".to_owned();
        verdict.violations.push(Violation { promise: "P1".to_owned(), seen, messages: Vec::new() });
    }
    let page = written(&run, None);
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    for raw in ["<script", "<i>", "<svg onload", "<b>lost"] {
        assert!(!page.contains(raw), "{raw}");
    }
}

#[test]
fn every_stage_with_samples_has_its_lines_and_every_class_a_style() {
    let page = written(&fake::measured(), None);
    for stage in Stage::ALL {
        let class = format!("s-{}", stage.name());
        assert!(STYLE.contains(&format!(".{class} {{")), "{class}");
        let lines = page.matches(&format!("class=\"line {class}\"")).count();
        // One of percentiles, one over time.
        assert_eq!(lines, if fake::measured().stages.contains_key(&stage) { 2 } else { 0 }, "{class}");
    }
    let numbers = page.split("d=\"M").skip(1).filter_map(|rest| rest.split('"').next());
    for path in numbers {
        assert!(path.chars().all(|c| c.is_ascii_digit() || matches!(c, 'L' | '.' | ' ')), "{path}");
    }
}

#[test]
fn a_long_run_makes_no_larger_page_than_it_needs() {
    let mut run = fake::measured();
    let short = written(&run, None).len();
    let pattern = run.seconds.clone();
    run.seconds = (0..100_000).map(|at| Second { at, ..pattern[at as usize % pattern.len()].clone() }).collect();
    assert!(written(&run, None).len() < 12 * short);
}

#[test]
fn an_empty_run_is_a_page_as_well() {
    let mut run = fake::measured();
    run.stages.clear();
    run.seconds.clear();
    run.server = None;
    run.verdict = None;
    run.received = 0;
    run.lasted = std::time::Duration::ZERO;
    let page = written(&run, Some(&fake::measured()));
    assert!(page.contains("promises not checked"));
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}

#[test]
fn what_was_not_judged_is_said() {
    let mut run = fake::measured();
    assert!(!written(&run, None).contains("Not judged"));
    run.verdict.as_mut().unwrap().unjudged = Unjudged { stream_ends: 1, statuses: 0 };
    assert!(written(&run, None).contains("Not judged: 1 stream end."));
}

#[test]
fn a_tool_that_fell_behind_is_marked() {
    let mut run = fake::measured();
    assert!(!written(&run, None).contains("fell behind"));
    run.offered.unwritten = 3;
    assert!(written(&run, None).contains("the load tool fell behind: use more --processes"));
}
