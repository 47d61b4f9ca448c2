//! How far it is, on stderr: one line that changes on a terminal, else one now and then.

use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, Instant};

const BETWEEN_PICTURES: Duration = Duration::from_millis(200);
const BETWEEN_LINES: Duration = Duration::from_secs(5);

pub struct Progress {
    began: Instant,
    told: Instant,
    total: u64,
    is_quiet: bool,
    is_terminal: bool,
    is_drawn: bool,
}

impl Progress {
    pub fn new(total: u64, is_quiet: bool) -> Self {
        let (now, is_terminal) = (Instant::now(), io::stderr().is_terminal());
        Self { began: now, told: now, total, is_quiet, is_terminal, is_drawn: false }
    }

    pub fn tell(&mut self, done: u64) {
        let between = if self.is_terminal { BETWEEN_PICTURES } else { BETWEEN_LINES };
        if self.is_quiet || self.told.elapsed() < between {
            return;
        }
        self.told = Instant::now();
        let line = line(done, self.total, self.began.elapsed());
        // A remark that can't be made is no reason to stop.
        let _ = if self.is_terminal {
            self.is_drawn = true;
            write!(io::stderr(), "\r{line}\x1b[K")
        } else {
            writeln!(io::stderr(), "{line}")
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_drawn {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(done: u64, total: u64, took: Duration) -> String {
    let rate = done as f64 / took.as_secs_f64().max(0.001);
    let left = total.saturating_sub(done) as f64 / rate.max(0.001);
    format!("{done} of {total}, {rate:.0}/s, about {left:.0} s to go")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_long_it_takes() {
        assert_eq!(line(50, 200, Duration::from_secs(5)), "50 of 200, 10/s, about 15 s to go");
    }
}
