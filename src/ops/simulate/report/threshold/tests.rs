use proptest::prelude::*;

use super::super::fake;
use super::*;

fn refused(expression: &str) -> String {
    expression.parse::<Threshold>().unwrap_err().to_string()
}

#[test]
fn errors_point_at_the_place_and_name_what_was_meant() {
    assert_eq!(
        refused(" send_to_recieve.p99 < 50ms"),
        "`send_to_recieve` is not a stage; did you mean `send_to_receive`? (column 2)\n  \
         \u{20}send_to_recieve.p99 < 50ms\n  \u{20}^^^^^^^^^^^^^^^"
    );
    assert_eq!(
        refused("accepted.maxx<1s"),
        "`maxx` is not a metric of a stage; did you mean `max`? (column 10)\n  \
         accepted.maxx<1s\n           ^^^^"
    );
    assert_eq!(
        refused("accepted.p99<=50"),
        "`50` is not a value for accepted.p99, which takes a duration such as 50ms, 10us or 1.5s (column 15)\n  \
         accepted.p99<=50\n                ^^"
    );
}

#[test]
fn each_mistake_has_its_own_words() {
    let cases = [
        ("", "an operator is missing"),
        ("reach", "an operator is missing"),
        ("reach=1", "compared with one of <, <=, >, >="),
        ("<5ms", "the figure is missing; use reach, errors,"),
        ("accepted<5ms", "`accepted` needs a metric, as in `accepted.p99`"),
        ("accepted.p95<5ms", "`p95` is not a metric of a stage; use p50, p90, p99, p99.9, max,"),
        ("server.rrs<5MB", "did you mean `server.rss`?"),
        ("rech>0.9", "did you mean `reach`?"),
        ("reach>=", "a value is missing: reach is compared with a share"),
        ("reach>=>1", "`>1` is not a value"),
        ("banana<1", "STAGE.METRIC with one of connect, accepted,"),
    ];
    for (expression, words) in cases {
        let error = refused(expression);
        assert!(error.contains(words), "{expression}: {error}");
    }
}

#[test]
fn an_error_does_not_steer_the_terminal() {
    let error = refused("\u{1b}[2Jp99<5ms");
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn a_run_is_judged() {
    let run = fake::measured();
    let cases = [
        ("send_to_receive.p99<50ms", true),
        ("send_to_receive.p50>=50ms", false),
        ("accepted.p99.9 < 10s", true),
        ("connect.count>=50", true),
        ("accepted.errors<=3", true),
        ("accepted.errors<3", false),
        ("accepted.rate>1/s", true),
        ("reach>=0.999", true),
        ("reach>99.99%", false),
        ("errors<10", true),
        ("server.cpu_per_delivery<10us", true),
        ("server.rss<1MB", false),
        ("connection.bytes<6KiB", true),
    ];
    for (expression, met) in cases {
        let judged = expression.parse::<Threshold>().unwrap().judge(&run);
        assert_eq!(judged.met, met, "{expression}: {}", judged.actual_text());
    }
}

#[test]
fn what_was_not_measured_is_not_met() {
    let mut run = fake::measured();
    run.server = None;
    run.expected = 0;
    let cases = [
        ("search.errors<1", "no samples"),
        ("search.p99<1h", "no samples"),
        ("reach>=0", "nothing was to be received"),
        ("server.rss>=0", "the server's CPU and memory can't be seen"),
    ];
    for (expression, reason) in cases {
        let judged = expression.parse::<Threshold>().unwrap().judge(&run);
        assert_eq!((judged.met, judged.actual_text().as_str()), (false, reason), "{expression}");
    }
}

proptest! {
    #[test]
    fn any_text_is_judged(text in ".{0,60}") {
        if let Err(error) = text.parse::<Threshold>() {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn texts_that_are_nearly_right_are_judged(
        name in "(accepted|send_to_receive|serch|server|reach|)",
        metric in r"(\.(p50|p99\.9|rate|rss|é))?",
        operator in "(<|<=|>|>=|=|)",
        value in "[0-9]{0,3}(ms|%|KiB|/s|é)?",
    ) {
        let text = format!("{name}{metric}{operator}{value}");
        match text.parse::<Threshold>() {
            Ok(threshold) => prop_assert_eq!(threshold.to_string(), text),
            Err(error) => prop_assert!(error.from <= error.expression.chars().count()),
        }
    }

    #[test]
    fn every_figure_can_be_limited(index in 0_usize..77, at_most: bool) {
        let subject = Subject::all().nth(index).unwrap();
        let (value, operator) = (subject.unit().show(12.0), if at_most { "<=" } else { ">" });
        let threshold: Threshold = format!("{} {operator} {value}", subject.name()).parse().unwrap();
        prop_assert_eq!(threshold.subject(), subject);
    }
}
