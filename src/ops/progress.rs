//! How far work has come, on stderr: a bar on a terminal, else a line now and then.

use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines where there is no terminal: a log.
const BETWEEN_LINES: Duration = Duration::from_secs(5);
/// Of the bar; the rest of its line is text.
const STEPS: u64 = 1_000;
/// Fits in 80 columns.
const TEMPLATE: &str = "[{bar:30}] {msg}";

/// Shows how far a command has come. What is on the terminal is removed when this is dropped.
pub struct Progress {
    began: Instant,
    /// Where it was when it began: resumed work is not faster for what was done before.
    first: Option<(f64, u64)>,
    /// The last line; work that is done before the first needs none.
    shown: Instant,
    kind: Kind,
}

enum Kind {
    Quiet,
    Terminal(ProgressBar),
    Lines,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        let is_terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let kind = if quiet {
            Kind::Quiet
        } else if is_terminal {
            let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr_with_hz(10));
            // A wrong template is a mistake that the tests find; without it the bar would still be one.
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(style.progress_chars("=> "));
            }
            Kind::Terminal(bar)
        } else {
            Kind::Lines
        };
        let now = Instant::now();
        Self { began: now, first: None, shown: now, kind }
    }

    /// `fraction` is done, 0 to 1: so many `things` so far.
    pub fn show(&mut self, fraction: f64, count: u64, things: &str) {
        let (elapsed, first) = (self.began.elapsed(), *self.first.get_or_insert((fraction, count)));
        match &self.kind {
            Kind::Quiet => {}
            Kind::Terminal(bar) => {
                bar.set_position((fraction * STEPS as f64) as u64);
                bar.set_message(line(elapsed, first, (fraction, count), things));
            }
            Kind::Lines => {
                if self.shown.elapsed() >= BETWEEN_LINES {
                    self.shown = Instant::now();
                    // A remark that can't be made is no reason to stop.
                    let _ = writeln!(io::stderr(), "{}", line(elapsed, first, (fraction, count), things));
                }
            }
        }
    }

    /// Removes what is on the terminal.
    pub fn clear(&self) {
        if let Kind::Terminal(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(elapsed: Duration, first: (f64, u64), now: (f64, u64), things: &str) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let (done, since) = (now.0 - first.0, now.1.saturating_sub(first.1));
    let left = if elapsed.as_secs() >= 1 && done > 0.0 {
        format!(", {} left", short(Duration::from_secs_f64((1.0 - now.0).max(0.0) * seconds / done)))
    } else {
        String::new()
    };
    format!("{:3.0} %  {} {things}, {:.0}/s{left}", now.0 * 100.0, now.1, since as f64 / seconds)
}

/// In the two largest units.
fn short(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_long_it_will_take() {
        let at = |seconds, first, now| line(Duration::from_secs(seconds), first, now, "entries");
        assert_eq!(at(0, (0.0, 0), (0.0, 0)), "  0 %  0 entries, 0/s");
        assert_eq!(at(10, (0.0, 0), (0.25, 5_000)), " 25 %  5000 entries, 500/s, 30 s left");
        assert_eq!(at(10, (0.5, 10_000), (0.6, 12_000)), " 60 %  12000 entries, 200/s, 40 s left");
        assert_eq!(at(3600, (0.0, 0), (0.01, 1)), "  1 %  1 entries, 0/s, 99 h 0 min left");
        assert_eq!(at(100, (0.0, 0), (0.5, 100)), " 50 %  100 entries, 1/s, 1 min 40 s left");
    }

    #[test]
    fn the_bar_is_one() {
        ProgressStyle::with_template(TEMPLATE).unwrap();
    }
}
