//! What is told about a run: while it goes on, at its end, and in files.
//!
//! | file | idea |
//! |---|---|
//! | `live.rs` | the display while the run goes on |
//! | `options.rs` | `--report`, `--compare`, `--threshold`: checked before the run, obeyed after it |
//! | `subject.rs`, `unit.rs` | the figures of a run by their names; how they are read and written |
//! | `threshold.rs` | `send_to_receive.p99<50ms` |
//! | `compare.rs` | better, worse, or noise |
//! | `table.rs` | the end, on a terminal |
//! | `json.rs` | the end, for machines and for later comparisons |
//! | `html.rs`, `html/` | the end, as a page |
//!
//! Whoever runs a load needs these: flatten [`Options`] into the command's arguments and call [`Options::prepare`] before
//! anything is begun; feed a [`Live`] with [`Progress`] while it goes on; give what was measured to
//! [`Reporter::conclude`], which prints and writes everything and says how the process should exit. A search for the
//! largest load judges each of its runs by [`Reporter::judge`], without a report.

pub mod compare;
pub mod html;
pub mod json;
pub mod live;
pub mod options;
pub mod subject;
pub mod table;
pub mod threshold;
pub mod unit;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub(super) mod fake;

pub use live::{Live, Progress};
pub use options::{Options, Reporter};
pub use threshold::{Judged, Threshold};

use super::measured::Measured;
use crate::ops::Exit;
use compare::Comparison;

/// A run, and what follows from it.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    pub run: &'a Measured,
    pub judged: Vec<Judged>,
    pub earlier: Option<&'a Measured>,
    pub comparison: Option<Comparison>,
}

impl<'a> Report<'a> {
    pub fn of(run: &'a Measured, thresholds: &[Threshold], earlier: Option<&'a Measured>) -> Self {
        Self {
            run,
            judged: thresholds.iter().map(|threshold| threshold.judge(run)).collect(),
            earlier,
            comparison: earlier.map(|earlier| Comparison::of(run, earlier)),
        }
    }

    /// A broken promise weighs more than a crossed threshold.
    pub fn exit(&self) -> Exit {
        let broken = self.run.verdict.as_ref().is_some_and(|verdict| verdict.broken > 0);
        if broken {
            Exit::Failed
        } else if self.judged.iter().any(|judged| !judged.met) {
            Exit::Threshold
        } else {
            Exit::Done
        }
    }
}
