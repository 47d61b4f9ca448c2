use std::time::Duration;

const SMALLEST: usize = 50;
/// As many as a walk has at hand.
const LARGEST: usize = 1_000;
/// What counts as faster: less is chance.
const MARGIN: f64 = 1.05;

/// How many documents a bulk should have, by what was measured: larger as long as that is faster, smaller when it is
/// slower, half when the server has no room.
#[derive(Debug)]
pub(super) struct BulkSize {
    size: usize,
    /// Documents a second, of the size before.
    before: f64,
    grows: bool,
}

impl BulkSize {
    pub fn new() -> Self {
        Self { size: 250, before: 0.0, grows: true }
    }

    pub fn get(&self) -> usize {
        self.size
    }

    /// What became of a bulk of `size`. One that was cut short says nothing about the size.
    pub fn learn(&mut self, size: usize, took: Duration, was_refused: bool) {
        if was_refused {
            (self.size, self.before, self.grows) = ((self.size / 2).max(SMALLEST), 0.0, true);
            return;
        }
        if size != self.size {
            return;
        }
        let rate = size as f64 / took.as_secs_f64().max(1e-6);
        if rate * MARGIN < self.before {
            self.grows = !self.grows;
        } else if rate < self.before * MARGIN {
            // No difference: where it is, it is well.
            self.before = rate.max(self.before);
            return;
        }
        self.before = rate;
        let wanted = if self.grows { size * 2 } else { size / 2 };
        self.size = wanted.clamp(SMALLEST, LARGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it ends with a server that takes so long for a bulk.
    fn settled(took_ms: impl Fn(usize) -> f64) -> usize {
        let mut size = BulkSize::new();
        for _ in 0..50 {
            let now = size.get();
            size.learn(now, Duration::from_secs_f64(took_ms(now) / 1000.0), false);
        }
        size.get()
    }

    #[test]
    fn it_finds_the_size_that_is_fastest() {
        assert_eq!(settled(|size| 20.0 + size as f64 * 0.05), LARGEST, "each bulk costs something");
        let small = settled(|size| size as f64 * 0.05 + (size as f64 / 100.0).powi(3));
        assert!(small <= 250, "{small}: large ones cost more than they bring");
    }

    #[test]
    fn a_server_without_room_gets_less() {
        let mut size = BulkSize::new();
        for _ in 0..20 {
            size.learn(size.get(), Duration::from_millis(1), true);
        }
        assert_eq!(size.get(), SMALLEST);
        size.learn(SMALLEST, Duration::from_millis(5), false);
        assert!(size.get() > SMALLEST, "and more when it has room again");
    }
}
