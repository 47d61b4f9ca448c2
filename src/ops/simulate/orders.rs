//! What is said between the one who conducts a run and the threads, here or in other processes, that are its clients.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::measured::Offered;
use super::meter::{PackedStage, Tick};
use crate::oracle::Record;

/// To each part. Times are of the machine's clock ([`super::engine::clock`]), in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Connect, evenly over this many nanoseconds from now; then say [`Report::Connected`].
    Connect { within: u64 },
    /// Make the channels; say [`Report::Created`] when all of yours are known to all who are in them.
    Create,
    /// Begin to send at this time.
    Go { at: u64 },
    /// Send nothing new.
    Settle,
    /// Read the histories that the oracle compares; then say [`Report::Checked`].
    Check,
    /// Leave the run's channels; then say [`Report::Left`].
    Leave,
    /// Disconnect, and say [`Report::Over`].
    Finish,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    Connected,
    Created,
    /// Once a second.
    Tick(Tick),
    Checked,
    Left,
    /// It goes on no more, and why.
    Failed(String),
    Over(Box<Part>),
}

/// What was to be checked and was refused for good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unchecked {
    pub count: u64,
    /// Why, of the first few.
    pub reasons: Vec<String>,
    /// Why no search is allowed at all.
    pub forbidden: Option<String>,
}

impl Unchecked {
    /// Reasons that are kept.
    const REASONS: usize = 3;

    pub fn add(&mut self, reason: String) {
        self.count += 1;
        if self.reasons.len() < Self::REASONS {
            self.reasons.push(reason);
        }
    }

    /// With those of another part.
    pub fn extend(&mut self, other: Self) {
        self.count += other.count;
        self.reasons.extend(other.reasons);
        self.reasons.truncate(Self::REASONS);
        self.forbidden = self.forbidden.take().or(other.forbidden);
    }
}

/// What a part has measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Part {
    /// In the order of `Stage::ALL`.
    pub stages: Vec<PackedStage>,
    pub received: u64,
    pub expected: u64,
    pub offered: Offered,
    /// What the oracle could not be given.
    pub unchecked: Unchecked,
    #[serde(skip)]
    pub record: Option<Record>,
    /// Where the record is, if it comes from another process.
    pub record_file: Option<PathBuf>,
    /// There was more to record than room for it.
    pub overflowed: Option<usize>,
}
