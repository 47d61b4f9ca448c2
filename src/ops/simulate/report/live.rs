//! The display while a run goes on, on stderr: two lines that change on a terminal, else a line now and then.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::unit::{Unit, clock, grouped, rate};
use crate::ops::output::printable;

/// Between two pictures on a terminal; more often can't be read.
const BETWEEN_PICTURES: Duration = Duration::from_millis(100);

/// Between two lines where there is no terminal: a log.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// The message goes on on a second line. Both fit in 80 columns.
const TEMPLATE: &str = "[{bar:32}] {msg}";

/// How a run stands.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The scenario's phase, or `connecting`, `settling`, …
    pub phase: String,
    /// Since the run began.
    pub elapsed: Duration,
    /// How long the whole run should take; `None` if that can't be told.
    pub planned: Option<Duration>,
    pub connected: u64,
    pub clients: u64,
    /// A second.
    pub sent: f64,
    /// A second.
    pub received: f64,
    /// Of messages received in the last second, from their scheduled time.
    pub p99: Option<Duration>,
    pub errors: u64,
}

/// Shows [`Progress`]. It may be told as often as one likes: what comes too soon is left out. What is on the terminal is
/// removed when this is dropped, whichever way the run ends; a caught signal must lead there, too.
#[derive(Debug)]
pub struct Live {
    shown_at: Option<Duration>,
    phase: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Quiet,
    Terminal(ProgressBar),
    Lines(Lines),
}

impl Live {
    /// On stderr; nothing if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let is_terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        if quiet {
            Self::of(Kind::Quiet)
        } else if is_terminal {
            Self::on(ProgressDrawTarget::stderr_with_hz(20))
        } else {
            Self::of(Kind::Lines(Lines(Box::new(io::stderr()))))
        }
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target);
        // A wrong template is a mistake that the tests find; without it the bar would still be one.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self::of(Kind::Terminal(bar))
    }

    fn of(kind: Kind) -> Self {
        Self { shown_at: None, phase: String::new(), kind }
    }

    /// Shows `progress`, unless something was shown just before. A new phase is shown at once where lines are printed.
    pub fn show(&mut self, progress: &Progress) {
        let between = match self.kind {
            Kind::Quiet => return,
            Kind::Terminal(_) => BETWEEN_PICTURES,
            Kind::Lines(_) if self.phase != progress.phase => Duration::ZERO,
            Kind::Lines(_) => BETWEEN_LINES,
        };
        if self.shown_at.is_some_and(|at| progress.elapsed.saturating_sub(at) < between) {
            return;
        }
        self.shown_at = Some(progress.elapsed);
        self.phase.clone_from(&progress.phase);
        match &mut self.kind {
            Kind::Quiet => {}
            Kind::Terminal(bar) => picture(bar, progress),
            Kind::Lines(lines) => lines.add(&line(progress)),
        }
    }

    /// A remark above the display, or a line of its own.
    pub fn note(&mut self, text: &str) {
        match &mut self.kind {
            Kind::Quiet => {}
            Kind::Terminal(bar) => bar.suspend(|| Lines(Box::new(io::stderr())).add(text)),
            Kind::Lines(lines) => lines.add(text),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Kind::Terminal(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

fn picture(bar: &ProgressBar, progress: &Progress) {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let text = format!("{} {}\n{}", times(progress), printable(&progress.phase), figures(progress));
    // A handle of the same bar: taken in this way the text waits for the picture below, where `set_message` would draw
    // one of its own.
    drop(bar.clone().with_message(text));
    // Without an estimate the bar stays empty. A run that takes longer than planned has a full one.
    bar.update(|state| {
        state.set_len(progress.planned.map_or(1, millis).max(1));
        state.set_pos(progress.planned.map_or(0, |planned| millis(planned.min(progress.elapsed))));
    });
}

fn line(progress: &Progress) -> String {
    format!("{} {}: {}", times(progress), printable(&progress.phase), figures(progress))
}

fn times(progress: &Progress) -> String {
    match progress.planned {
        Some(planned) => format!("{} of {}", clock(progress.elapsed.as_secs()), clock(planned.as_secs())),
        None => clock(progress.elapsed.as_secs()),
    }
}

fn figures(progress: &Progress) -> String {
    let Progress { connected, clients, sent, received, p99, errors, .. } = progress;
    let clients = format!("{} of {} clients", grouped(*connected as f64), grouped(*clients as f64));
    let p99 = p99.map_or("-".to_owned(), |p99| Unit::Microseconds.show(p99.as_micros() as f64));
    let errors = if *errors == 1 { "1 error".to_owned() } else { format!("{} errors", grouped(*errors as f64)) };
    format!("{clients}, {} sent/s, {} received/s, p99 {p99}, {errors}", rate(*sent), rate(*received))
}

struct Lines(Box<dyn Write + Send>);

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}

impl Lines {
    fn add(&mut self, line: &str) {
        // A display that can't be written is no reason to stop a run.
        let _ = writeln!(self.0, "{line}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
