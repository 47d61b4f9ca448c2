//! The oracle: a pure function from what clients saw to the promises that were broken.
//!
//! It knows nothing of the server but the names on the wire. Every rule here follows from the promises' text; where
//! the protocol leaves the server a choice (when exactly a `resume` restarts a stream), each choice is accepted.

pub mod frame;
mod merge;
pub mod record;
mod recorder;
mod symbols;
mod verdict;

pub use record::Record;
pub use recorder::{Full, Recorder};
pub use verdict::{Counts, MessageIds, Promise, Verdict, Violation};

use verdict::Found;

/// What this record shows: what became of the messages, and the promises that were broken.
pub fn check(record: &Record) -> Verdict {
    let found = Found::new(record);
    found.into_verdict(Counts::default())
}
