//! What the oracle says of a run, for its report.

use super::measured::{Verdict, Violation};
use crate::oracle::{self, Record, Scope};

/// The verdict on what all clients saw, and what it rests on.
pub fn judge(record: &Record) -> (Verdict, Scope) {
    let oracle::Verdict { counts, broken, violations, scope } = oracle::check(record);
    let broken = broken.values().sum::<u64>();
    let violations = violations.into_iter().map(|oracle::Violation { promise, detail, messages }| Violation {
        promise: promise.to_string(),
        seen: detail,
        messages,
    });
    (Verdict { counts, broken, violations: violations.collect(), unjudged: scope.unjudged }, scope)
}
