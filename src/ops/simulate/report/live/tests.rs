use std::io;
use std::sync::Arc;

use indicatif::InMemoryTerm;
use parking_lot::Mutex;

use super::*;

fn progress(phase: &str, millis: u64) -> Progress {
    Progress {
        phase: phase.to_owned(),
        elapsed: Duration::from_millis(millis),
        planned: Some(Duration::from_secs(60)),
        connected: 5000,
        clients: 5000,
        sent: 1000.0,
        received: 99_980.4,
        p99: Some(Duration::from_micros(4_123)),
        errors: 1,
    }
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_has_a_line_for_each_phase_and_every_five_seconds() {
    let written = Written::default();
    let mut live = Live::of(Kind::Lines(Lines(Box::new(written.clone()))));
    for millis in (0..12_000).step_by(50) {
        live.show(&progress(if millis < 1000 { "ramp" } else { "hold" }, millis));
    }
    live.note("the server was restarted");
    drop(live);
    let figures = "5,000 of 5,000 clients, 1,000 sent/s, 99,980 received/s, p99 4.12ms, 1 error";
    let lines = [
        format!("0:00 of 1:00 ramp: {figures}"),
        format!("0:01 of 1:00 hold: {figures}"),
        format!("0:06 of 1:00 hold: {figures}"),
        format!("0:11 of 1:00 hold: {figures}"),
        "the server was restarted".to_owned(),
    ];
    assert_eq!(String::from_utf8(written.0.lock().clone()).unwrap(), lines.map(|line| line + "\n").concat());
}

#[test]
fn a_terminal_has_two_lines_that_change_and_are_gone_in_the_end() {
    let terminal = InMemoryTerm::new(24, 80);
    let mut live = Live::on(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
    live.show(&progress("ramp", 1_000));
    live.show(&progress("hold", 30_000));
    assert_eq!(
        terminal.contents(),
        "[================>               ] 0:30 of 1:00 hold\n\
         5,000 of 5,000 clients, 1,000 sent/s, 99,980 received/s, p99 4.12ms, 1 error"
    );
    drop(live);
    assert_eq!(terminal.contents(), "");
}

#[test]
fn pictures_that_come_too_soon_are_left_out() {
    let terminal = InMemoryTerm::new(24, 80);
    let mut live = Live::on(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
    let mut pictures = 0;
    for millis in 0..1000 {
        live.show(&progress("hold", millis));
        pictures += usize::from(!terminal.moves_since_last_check().is_empty());
    }
    assert_eq!(pictures, 10);
}

#[test]
fn a_run_without_an_estimate_or_samples_is_shown_as_well() {
    let unknown = Progress { phase: "bad\u{1b}[2J".to_owned(), ..Progress::default() };
    assert_eq!(line(&unknown), "0:00 bad\\u{1b}[2J: 0 of 0 clients, 0 sent/s, 0 received/s, p99 -, 0 errors");
    let late = Progress { elapsed: Duration::from_secs(3_665), ..progress("settling", 0) };
    assert!(line(&late).starts_with("1:01:05 of 1:00 settling"), "{}", line(&late));
}
