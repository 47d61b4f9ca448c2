//! Counts and times what the clients of one thread meet: over the whole run, and second by second.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
use serde::{Deserialize, Serialize};

use super::measured::{Latencies, Offered, Stage};

/// A histogram as text, for other processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Packed(String);

/// What came from another process is no histogram.
#[derive(Debug, thiserror::Error)]
#[error("a histogram of another process can't be read: {0}")]
pub struct Unreadable(String);

impl Unreadable {
    pub fn of(error: &impl std::fmt::Debug) -> Self {
        Self(format!("{error:?}"))
    }
}

impl Packed {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let mut bytes = Vec::new();
        // Into memory, of a histogram that is well below the format's limits.
        match V2Serializer::new().serialize(histogram, &mut bytes) {
            Ok(_) => Self(STANDARD_NO_PAD.encode(bytes)),
            Err(error) => {
                tracing::error!(?error, "a histogram could not be written");
                Self(String::new())
            }
        }
    }

    pub fn read(&self) -> Result<Histogram<u64>, Unreadable> {
        let bytes = STANDARD_NO_PAD.decode(&self.0).map_err(|error| Unreadable(error.to_string()))?;
        Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|error| Unreadable(format!("{error:?}")))
    }
}

/// A stage over the whole run, for other processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PackedStage {
    pub micros: Packed,
    pub errors: BTreeMap<String, u64>,
}

/// What changed since the last one, and how things stand.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tick {
    /// Of the run, from 0.
    pub second: u64,
    pub connected: u64,
    pub sent: u64,
    pub received: u64,
    pub errors: u64,
    /// Messages that are not known to be stored.
    pub pending: u64,
    /// Since the run began: what members received, and what they should have.
    pub received_in_all: u64,
    pub expected_in_all: u64,
    pub stages: BTreeMap<u8, Packed>,
}

/// One a thread.
pub struct Meter {
    whole: Vec<Latencies>,
    second: Vec<Histogram<u64>>,
    pub connected: u64,
    pub received: u64,
    pub expected: u64,
    pub offered: Offered,
    sent_now: u64,
    received_before: u64,
    errors_now: u64,
}

impl Meter {
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        let whole = Stage::ALL.iter().map(|_| Latencies::new()).collect::<Result<_, _>>()?;
        // Two digits do for a curve.
        let longest = Duration::from_secs(600).as_micros() as u64;
        let second = Stage::ALL.iter().map(|_| Histogram::new_with_bounds(1, longest, 2)).collect::<Result<_, _>>()?;
        Ok(Self {
            whole,
            second,
            connected: 0,
            received: 0,
            expected: 0,
            offered: Offered::default(),
            sent_now: 0,
            received_before: 0,
            errors_now: 0,
        })
    }

    /// From `begin` to `end`, in nanoseconds of the clock.
    pub fn record(&mut self, stage: Stage, begin: u64, end: u64) {
        let latency = Duration::from_nanos(end.saturating_sub(begin));
        self.whole[stage as usize].record(latency);
        self.second[stage as usize].saturating_record((latency.as_micros() as u64).max(1));
    }

    pub fn error(&mut self, stage: Stage, kind: &str) {
        self.errors(stage, kind, 1);
    }

    pub fn errors(&mut self, stage: Stage, kind: &str, count: u64) {
        if count == 0 {
            return;
        }
        self.errors_now += count;
        let errors = &mut self.whole[stage as usize].errors;
        match errors.get_mut(kind) {
            Some(known) => *known += count,
            None => drop(errors.insert(kind.to_owned(), count)),
        }
    }

    /// A message fell due, and the tool has come to it so many nanoseconds later.
    pub fn due(&mut self, late: u64) {
        self.offered.planned += 1;
        self.offered.late_us = self.offered.late_us.max(late / 1000);
    }

    /// A message fell due, and the tool did not come to it in its time.
    pub fn unwritten(&mut self, late: u64) {
        self.due(late);
        self.offered.unwritten += 1;
    }

    /// A message was given to a connection for the first time.
    pub fn sent(&mut self) {
        self.offered.attempted += 1;
        self.sent_now += 1;
    }

    /// What this second brought; the next one begins.
    pub fn tick(&mut self, second: u64, pending: u64) -> Tick {
        let mut stages = BTreeMap::new();
        for (stage, histogram) in self.second.iter_mut().enumerate() {
            if !histogram.is_empty() {
                stages.insert(stage as u8, Packed::of(histogram));
                histogram.reset();
            }
        }
        let tick = Tick {
            second,
            connected: self.connected,
            sent: std::mem::take(&mut self.sent_now),
            received: self.received - self.received_before,
            errors: std::mem::take(&mut self.errors_now),
            pending,
            received_in_all: self.received,
            expected_in_all: self.expected,
            stages,
        };
        self.received_before = self.received;
        tick
    }

    /// The stages, in their order.
    pub fn pack(&self) -> Vec<PackedStage> {
        let pack = |stage: &Latencies| PackedStage { micros: Packed::of(&stage.micros), errors: stage.errors.clone() };
        self.whole.iter().map(pack).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_told_once_and_the_whole_is_kept() {
        let mut meter = Meter::new().unwrap();
        meter.record(Stage::Accepted, 1_000_000, 3_000_000);
        meter.error(Stage::Connect, "refused");
        meter.received = 5;
        let first = meter.tick(0, 2);
        assert_eq!((first.received, first.errors, first.pending), (5, 1, 2));
        let micros = first.stages[&(Stage::Accepted as u8)].read().unwrap();
        assert_eq!((micros.len(), micros.max() / 100), (1, 20));
        let second = meter.tick(1, 0);
        assert_eq!((second.received, second.errors, second.stages.len()), (0, 0, 0));
        let whole = meter.pack();
        assert_eq!(whole[Stage::Accepted as usize].micros.read().unwrap().len(), 1);
        assert_eq!(whole[Stage::Connect as usize].errors["refused"], 1);
    }
}
