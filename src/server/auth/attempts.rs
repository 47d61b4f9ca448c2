//! How often somebody may try.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

/// Keys remembered at a time; 10,000 take about 1 MiB.
const MAX_KEYS: usize = 10_000;
/// Looking for keys that may be forgotten reads all of them.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);

type Limiter<K> = RateLimiter<K, DashMapStateStore<K>, MonotonicClock, NoOpMiddleware<Instant>>;

/// A number of attempts a minute for each key, all of them at once if need be.
pub struct Attempts<K: Hash + Eq + Clone> {
    limiter: Limiter<K>,
    swept_at: Mutex<Instant>,
    max_keys: usize,
}

impl<K: Hash + Eq + Clone> Attempts<K> {
    pub fn per_minute(limit: NonZeroU32) -> Self {
        Self::bounded(limit, MAX_KEYS)
    }

    fn bounded(limit: NonZeroU32, max_keys: usize) -> Self {
        let limiter = RateLimiter::new(Quota::per_minute(limit), DashMapStateStore::default(), MonotonicClock);
        Self { limiter, swept_at: Mutex::new(Instant::now()), max_keys }
    }

    /// Counts an attempt. `Err`: it is one too many; how long to wait for the next.
    pub fn check(&self, key: &K) -> Result<(), Duration> {
        if self.limiter.len() >= self.max_keys && !self.sweep() {
            // So many different ones within a minute are an attack: refused, rather than remembered without bound.
            return Err(BETWEEN_SWEEPS);
        }
        self.limiter.check_key(key).map_err(|not_until| not_until.wait_time_from(MonotonicClock.now()))
    }

    /// Forgets those that have their full allowance again. Whether there is room now.
    fn sweep(&self) -> bool {
        let mut swept_at = self.swept_at.lock();
        if swept_at.elapsed() >= BETWEEN_SWEEPS {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
            *swept_at = Instant::now();
        }
        self.limiter.len() < self.max_keys
    }
}

/// What of a client's address counts as one client: in IPv6 its /64, within which a host may take any address.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_allowance() {
        let attempts = Attempts::per_minute(NonZeroU32::new(3).unwrap());
        for _ in 0..3 {
            assert!(attempts.check(&"ada").is_ok());
        }
        let wait = attempts.check(&"ada").unwrap_err();
        assert!(wait > Duration::from_secs(15) && wait <= Duration::from_secs(20), "{wait:?}");
        assert!(attempts.check(&"bob").is_ok());
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let attempts = Attempts::bounded(NonZeroU32::new(1).unwrap(), 100);
        let accepted = (0..1000).filter(|key| attempts.check(key).is_ok()).count();
        assert_eq!((accepted, attempts.limiter.len()), (100, 100));
    }

    #[test]
    fn addresses_of_one_host_are_one_client() {
        let network = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
