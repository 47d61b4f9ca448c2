//! What all parts of a run have measured, together.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::hands::read_record;
use super::measured::{Latencies, Offered, Stage};
use super::orders::{Part, Unchecked};
use crate::oracle::Record;

#[derive(Debug, Default)]
pub struct Sum {
    pub stages: BTreeMap<Stage, Latencies>,
    pub received: u64,
    pub expected: u64,
    pub offered: Offered,
    pub unchecked: Unchecked,
    /// What the parts' clients saw.
    pub records: Vec<Record>,
    /// A part had more to record than this.
    pub overflowed: Option<usize>,
}

impl Sum {
    /// Errors: what another process wrote can't be read.
    pub fn of(parts: Vec<Part>) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for stage in Stage::ALL {
            sum.stages.insert(stage, Latencies::new()?);
        }
        for part in parts {
            sum.add(part)?;
        }
        Ok(sum)
    }

    fn add(&mut self, part: Part) -> anyhow::Result<()> {
        for (stage, packed) in Stage::ALL.into_iter().zip(&part.stages) {
            let Some(latencies) = self.stages.get_mut(&stage) else { continue };
            latencies.micros.add(&packed.micros.read()?).context("histograms of different kinds")?;
            for (kind, count) in &packed.errors {
                *latencies.errors.entry(kind.clone()).or_default() += count;
            }
        }
        self.received += part.received;
        self.expected += part.expected;
        self.offered.add(&part.offered);
        self.unchecked.extend(part.unchecked);
        self.overflowed = self.overflowed.or(part.overflowed);
        self.records.extend(part.record);
        if let Some(file) = part.record_file {
            self.records.push(read_record(&file)?);
        }
        Ok(())
    }
}
