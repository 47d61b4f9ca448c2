//! What the oracle says of a run, for its report.

use super::measured::Verdict;
use crate::oracle::{self, Record};

/// The verdict on what all clients saw; `unfound` are searches that found nothing in time.
pub fn judge(record: &Record, unfound: &[String]) -> Verdict {
    let oracle::Verdict { counts, broken, violations } = oracle::check(record);
    let broken = broken.values().sum::<u64>() + unfound.len() as u64;
    let mut violations: Vec<_> =
        violations.into_iter().map(|violation| (violation.promise.to_string(), violation.detail)).collect();
    violations.extend(unfound.iter().map(|detail| (oracle::Promise::P10.to_string(), detail.clone())));
    Verdict { counts, broken, violations }
}
