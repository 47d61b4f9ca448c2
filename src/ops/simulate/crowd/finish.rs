//! The end: everybody goes, and what was measured is handed over.

use super::super::engine::Net;
use super::super::measured::Stage;
use super::super::orders::{Part, Report};
use super::{Act, Crowd, Timer};
use crate::oracle::Recorder;

impl Crowd {
    pub(super) fn finish(&mut self, net: &mut Net<Timer>, at: u64) {
        self.act = Act::Over;
        for client in 0..self.people.len() as u32 {
            if self.people[client as usize].is_here() {
                net.close(client);
                self.gone(client, at);
            } else {
                net.cut(client);
            }
        }
        self.count_unanswered();
        self.tick(at);
        let (record, overflowed) = match self.recorder.take().map(Recorder::into_record) {
            Some(Ok(record)) => (Some(record), None),
            Some(Err(full)) => (None, Some(full.max_events)),
            None => (None, None),
        };
        let part = Part {
            stages: self.meter.pack(),
            received: self.meter.received,
            expected: self.meter.expected,
            offered: self.meter.offered,
            unchecked: self.checks.take_unchecked(),
            record,
            record_file: None,
            overflowed,
        };
        self.report(Report::Over(Box::new(part)));
        net.stop();
    }

    /// What never came to an end.
    fn count_unanswered(&mut self) {
        for pending in self.people.iter().flat_map(|person| &person.pending) {
            match (pending.is_accepted, pending.attempts) {
                (true, _) => self.meter.error(Stage::Persisted, "no_answer"),
                (false, 0) => self.meter.error(Stage::Accepted, "not_sent"),
                (false, _) => self.meter.error(Stage::Accepted, "no_answer"),
            }
        }
    }
}
