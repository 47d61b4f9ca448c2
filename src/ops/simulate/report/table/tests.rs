use super::super::{Report, fake};
use super::*;

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

#[test]
fn show() {
    let run = fake::measured();
    println!("{}", shown(&run, &["send_to_receive.p99<50ms", "reach>=1", "search.p99<1s"], Some(&run)));
    std::fs::write(
        "/tmp/report-page.html",
        super::super::html::page(&Report::of(
            &run,
            &["send_to_receive.p99<50ms".parse().unwrap(), "reach>=1".parse().unwrap()],
            Some(&run),
        )),
    )
    .unwrap();
}
