//! Queues that confirm nothing while the broker lives: those that have no majority of their nodes.
//!
//! A few publishes that such a queue keeps unconfirmed are enough to make the broker stop reading from the connection,
//! and then the other queues get nothing either. So nothing is published to it but a probe now and then, until it
//! confirms one.

use std::collections::HashMap;
use std::time::Duration;

use lapin::types::ShortString;
use tokio::time::Instant;

/// How soon the second probe follows the first; each further one after twice the time, to a limit.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const DOUBLINGS: u32 = 5;

/// Exchange and key.
pub(super) type Route = (&'static str, ShortString);

#[derive(Default)]
pub(super) struct Suspects {
    routes: HashMap<Route, Suspect>,
}

struct Suspect {
    probes: u32,
    next: Instant,
}

impl Suspects {
    /// A confirm took too long. Whether that is news.
    pub(super) fn add(&mut self, route: &Route, now: Instant) -> bool {
        let is_new = !self.routes.contains_key(route);
        // What was not confirmed is the first probe.
        let suspect = || Suspect { probes: 0, next: now + FIRST_PAUSE };
        self.routes.entry(route.clone()).or_insert_with(suspect);
        is_new
    }

    /// The broker has answered for it. Whether that is news.
    pub(super) fn clear(&mut self, route: &Route) -> bool {
        self.routes.remove(route).is_some()
    }

    /// Whether something may be published there now; if it is a suspect, as a probe.
    pub(super) fn admits(&mut self, route: &Route, now: Instant) -> bool {
        let Some(suspect) = self.routes.get_mut(route) else { return true };
        if now < suspect.next {
            return false;
        }
        suspect.next = now + FIRST_PAUSE * 2_u32.pow(suspect.probes.min(DOUBLINGS));
        suspect.probes += 1;
        true
    }

    /// With a new channel the probes of the last one are gone.
    pub(super) fn probe_at_once(&mut self, now: Instant) {
        self.routes.values_mut().for_each(|suspect| suspect.next = now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_gets_probes_alone_until_it_is_cleared() {
        let mut suspects = Suspects::default();
        let [bad, good] = ["2.0", "2.1"].map(|key| ("db_tasks", key.into()));
        let begun = Instant::now();
        assert!(suspects.admits(&bad, begun) && suspects.add(&bad, begun) && !suspects.add(&bad, begun));
        let at = |second| begun + Duration::from_secs(second);
        assert!((0..100).all(|second| suspects.admits(&good, at(second))));
        let probes: Vec<u64> = (0..100).filter(|second| suspects.admits(&bad, at(*second))).collect();
        assert_eq!(probes, [10, 20, 40, 80]);
        suspects.probe_at_once(at(100));
        assert!(suspects.admits(&bad, at(100)) && !suspects.admits(&bad, at(100)));
        assert!(suspects.clear(&bad) && !suspects.clear(&bad));
        assert!(suspects.admits(&bad, at(100)) && suspects.admits(&bad, at(100)));
    }
}
