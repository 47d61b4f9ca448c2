//! The run second by second, gathered from all its parts.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::measured::{Second, Stage, Usage};
use super::meter::{Tick, Unreadable};

/// Seconds behind the newest whose histograms are kept: parts may be late.
const LATE: u64 = 10;

/// How a part stands.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    connected: u64,
    pending: u64,
    received: u64,
    expected: u64,
}

/// All ticks so far.
pub struct Series {
    parts: Vec<Standing>,
    seconds: BTreeMap<u64, Second>,
    open: BTreeMap<u64, BTreeMap<Stage, Histogram<u64>>>,
    errors: u64,
}

impl Series {
    pub fn new(parts: u32) -> Self {
        Self {
            parts: vec![Standing::default(); parts as usize],
            seconds: BTreeMap::new(),
            open: BTreeMap::new(),
            errors: 0,
        }
    }

    /// Errors: a histogram of another process can't be read.
    pub fn add(&mut self, part: u32, tick: &Tick) -> Result<(), Unreadable> {
        if let Some(standing) = self.parts.get_mut(part as usize) {
            *standing = Standing {
                connected: tick.connected,
                pending: tick.pending,
                received: tick.received_in_all,
                expected: tick.expected_in_all,
            };
        }
        let connected = self.connected();
        self.errors += tick.errors;
        let at = tick.second;
        let second = self.seconds.entry(at).or_insert_with(|| Second { at, ..Second::default() });
        second.connected = connected;
        second.sent += tick.sent;
        second.received += tick.received;
        second.errors += tick.errors;
        let open = self.open.entry(at).or_default();
        for (stage, packed) in &tick.stages {
            let Some(stage) = Stage::ALL.get(usize::from(*stage)) else { continue };
            let more = packed.read()?;
            match open.get_mut(stage) {
                Some(histogram) => histogram.add(&more).map_err(|error| Unreadable::of(&error))?,
                None => drop(open.insert(*stage, more)),
            }
            if let Some(histogram) = open.get(stage) {
                second.stages.insert(*stage, (histogram.len(), p(histogram, 0.5), p(histogram, 0.99)));
            }
        }
        while self.open.first_key_value().is_some_and(|(oldest, _)| oldest + LATE < at) {
            self.open.pop_first();
        }
        Ok(())
    }

    /// What the server used in this second.
    pub fn add_server(&mut self, at: u64, used: Usage) {
        self.seconds.entry(at).or_insert_with(|| Second { at, ..Second::default() }).server = Some(used);
    }

    pub fn connected(&self) -> u64 {
        self.parts.iter().map(|part| part.connected).sum()
    }

    pub const fn errors(&self) -> u64 {
        self.errors
    }

    /// Nothing is under way any more: all that was sent is stored, and everybody has it.
    pub fn is_settled(&self) -> bool {
        let pending: u64 = self.parts.iter().map(|part| part.pending).sum();
        let received: u64 = self.parts.iter().map(|part| part.received).sum();
        let expected: u64 = self.parts.iter().map(|part| part.expected).sum();
        pending == 0 && received >= expected
    }

    /// The newest second that all parts have probably told of.
    pub fn last(&self) -> Option<&Second> {
        self.seconds.iter().rev().nth(1).or_else(|| self.seconds.iter().next_back()).map(|(_, second)| second)
    }

    pub fn into_seconds(self) -> Vec<Second> {
        self.seconds.into_values().collect()
    }
}

/// The newest second's p99 of messages received.
pub fn p99_of_received(second: &Second) -> Option<Duration> {
    second.stages.get(&Stage::SendToReceive).map(|(_, _, p99)| Duration::from_micros(*p99))
}

fn p(histogram: &Histogram<u64>, quantile: f64) -> u64 {
    histogram.value_at_quantile(quantile)
}

#[cfg(test)]
mod tests {
    use super::super::meter::Meter;
    use super::*;

    #[test]
    fn the_parts_of_a_second_are_added_up() {
        let mut series = Series::new(2);
        for (part, latency) in [(0, 1_000_000), (1, 9_000_000)] {
            let mut meter = Meter::new().unwrap();
            meter.connected = 5;
            meter.record(Stage::Accepted, 0, latency);
            meter.expected = 3;
            meter.received = u64::from(part) * 6;
            series.add(part, &meter.tick(0, 0)).unwrap();
        }
        let second = series.last().unwrap();
        assert_eq!((second.at, second.connected, second.received), (0, 10, 6));
        let (count, p50, p99) = second.stages[&Stage::Accepted];
        assert_eq!((count, p50 / 100, p99 / 100), (2, 10, 90));
        assert!(series.is_settled());
    }
}
