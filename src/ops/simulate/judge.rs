//! What the oracle says of a run, for its report.

use super::measured::Verdict;
use crate::oracle::{self, Record, Scope};

/// The verdict on what all clients saw, and what it rests on.
pub fn judge(record: &Record) -> (Verdict, Scope) {
    let oracle::Verdict { counts, broken, violations, scope } = oracle::check(record);
    let broken = broken.values().sum::<u64>();
    let violations =
        violations.into_iter().map(|violation| (violation.promise.to_string(), violation.detail)).collect();
    (Verdict { counts, broken, violations }, scope)
}
