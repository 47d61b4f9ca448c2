//! The threads that a server's or a worker's tasks run on.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::config::Config;

/// A thread that runs out of work this often in a [`WINDOW`] rests for a [`NAP`] each time.
const OFTEN: u32 = 10;
const WINDOW: Duration = Duration::from_millis(10);
/// What comes meanwhile is done in one go. To sleep and be woken costs more than to read a request and pass it on: a
/// network card lets its interrupts wait for each other for the same reason. A thread that has enough to do never rests.
const NAP: Duration = Duration::from_micros(500);

/// As many threads as `server.threads` says.
///
/// Errors: the system gives no threads, or no poll.
pub fn build(config: &Config) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(config.server_threads()).enable_all().on_thread_park(rest).build()
}

/// Called by a thread that is out of work, before it waits for more.
fn rest() {
    thread_local!(static PAUSES: Cell<Pauses> = const { Cell::new(Pauses::NONE) });
    let mut pauses = PAUSES.get();
    let is_often = pauses.add(Instant::now());
    PAUSES.set(pauses);
    if is_often {
        std::thread::sleep(NAP);
    }
}

/// How often a thread ran out of work.
#[derive(Clone, Copy)]
struct Pauses {
    /// The beginning of this window.
    began: Option<Instant>,
    count: u32,
    /// In the window before this one there were many.
    is_often: bool,
}

impl Pauses {
    const NONE: Self = Self { began: None, count: 0, is_often: false };

    /// Counts one more. Whether they are many.
    fn add(&mut self, now: Instant) -> bool {
        let age = self.began.map_or(Duration::MAX, |began| now.saturating_duration_since(began));
        if age >= WINDOW {
            // A window that nothing ended for long was a quiet one.
            let is_often = self.count >= OFTEN && age < 2 * WINDOW;
            *self = Self { began: Some(now), count: 0, is_often };
        }
        self.count += 1;
        self.is_often
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_woken_often_rests() {
        let began = Instant::now();
        let pauses_every = |micros: u64, pauses: &mut Pauses, from: Instant| {
            let times = (0..50_000 / micros).map(|number| from + Duration::from_micros(number * micros));
            times.filter(|now| pauses.add(*now)).count() as u64
        };
        let mut pauses = Pauses::NONE;
        assert_eq!(pauses_every(1_500, &mut pauses, began), 0);
        let often = pauses_every(500, &mut pauses, began + Duration::from_secs(1));
        // From the second window of the five on.
        assert!((70..=80).contains(&often), "{often}");
        let quiet = began + Duration::from_secs(2);
        assert!(!pauses.add(quiet), "it was woken seldom since");
        assert_eq!(pauses_every(1_500, &mut pauses, quiet), 0);
    }
}
