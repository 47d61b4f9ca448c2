//! What a verification says at its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use serde::Serialize;

use super::Exit;
use super::finding::{Finding, What};
use crate::message::{ChannelId, Username};
use crate::ops::output::counted;

/// Findings that are kept, at most; more are only counted.
const KEPT: usize = 1_000;
/// Findings named for people, at most; the JSON report has more.
const NAMED: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Clean,
    /// Something is wrong, and nothing was changed.
    Found,
    Repaired,
    PartlyRepaired,
    /// All was tried, and nothing could be repaired.
    NotRepaired,
    Interrupted,
}

#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    finding: Finding,
    repaired: bool,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Count {
    found: u64,
    repaired: u64,
}

#[derive(Debug, Serialize)]
pub struct Report {
    outcome: Option<Outcome>,
    place: String,
    pub channels: u64,
    pub entries: u64,
    /// Rows of users' lists.
    pub list_rows: u64,
    found: u64,
    repaired: u64,
    counts: BTreeMap<&'static str, Count>,
    findings: Vec<Told>,
    /// Entries that are not in the index, while tasks wait to be indexed: theirs may be among them.
    pub on_their_way: u64,
    seconds: f64,
    #[serde(skip)]
    began: Instant,
    #[serde(skip)]
    repair: bool,
}

impl Report {
    pub fn new(place: &str, repair: bool) -> Self {
        Self {
            outcome: None,
            place: place.to_owned(),
            channels: 0,
            entries: 0,
            list_rows: 0,
            found: 0,
            repaired: 0,
            counts: BTreeMap::new(),
            findings: Vec::new(),
            on_their_way: 0,
            seconds: 0.0,
            began: Instant::now(),
            repair,
        }
    }

    pub fn add(&mut self, finding: Finding, repaired: bool) {
        let count = self.counts.entry(finding.what.kind()).or_default();
        for (found, mended) in [(&mut self.found, &mut self.repaired), (&mut count.found, &mut count.repaired)] {
            *found += 1;
            *mended += u64::from(repaired);
        }
        if self.findings.len() < KEPT {
            self.findings.push(Told { finding, repaired });
        }
    }

    /// Whether it was told that the user is a member, and is missing among the members: then the list is right.
    pub fn is_missing_member(&self, channel: Option<ChannelId>, user: &Username) -> bool {
        self.findings.iter().any(|told| {
            let is_it = matches!(&told.finding.what, What::Member { user: missing, .. } if missing == user);
            is_it && told.finding.channel == channel
        })
    }

    pub fn has_repaired(&self) -> bool {
        self.repaired > 0
    }

    /// How the command ends.
    pub fn end(&mut self, interrupted: bool) -> Exit {
        self.seconds = (self.began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let (outcome, exit) = match (interrupted, self.repair, self.found, self.repaired) {
            (true, ..) => (Outcome::Interrupted, Exit::Partly),
            (_, _, 0, _) => (Outcome::Clean, Exit::Done),
            (_, false, ..) => (Outcome::Found, Exit::Failed),
            (_, _, found, repaired) if found == repaired => (Outcome::Repaired, Exit::Done),
            (_, _, _, 0) => (Outcome::NotRepaired, Exit::Failed),
            _ => (Outcome::PartlyRepaired, Exit::Partly),
        };
        self.outcome = Some(outcome);
        exit
    }

    /// For people.
    pub fn text(&self) -> String {
        let Self { place, channels, entries, seconds, found, repaired, .. } = self;
        let rate = *entries as f64 / seconds.max(0.1);
        let channels = counted(*channels, "channel");
        let mut text =
            format!("{place}: {entries} entries of {channels} looked through in {seconds} s ({rate:.0}/s)\n");
        text.push_str(&match self.outcome {
            Some(Outcome::Clean) => "nothing is wrong".to_owned(),
            Some(Outcome::Found) => format!("{}; `aula verify --repair` mends what it can", things(*found)),
            Some(Outcome::Repaired) => format!("{}, all repaired", things(*found)),
            Some(Outcome::PartlyRepaired) => format!("{}, {repaired} repaired", things(*found)),
            Some(Outcome::NotRepaired) => format!("{}, none of which can be repaired", things(*found)),
            Some(Outcome::Interrupted) | None => {
                format!("interrupted, with {} until then; begun again, it looks at all", things(*found))
            }
        });
        // A String takes everything.
        for (kind, Count { found, repaired }) in &self.counts {
            let _ = write!(text, "\n  {kind}: {found}");
            if self.repair {
                let _ = write!(text, ", {repaired} repaired");
            }
        }
        // Those that are left are what somebody has to see.
        let (left, done): (Vec<_>, Vec<_>) = self.findings.iter().partition(|told| !told.repaired);
        for Told { finding, repaired } in left.into_iter().chain(done).take(NAMED) {
            let of = finding.channel.map_or(String::new(), |channel| format!("channel {channel}: "));
            let _ = write!(text, "\n{of}{}", finding.what.text());
            match (self.repair, repaired) {
                (_, true) => text.push_str(" [repaired]"),
                (true, false) => {
                    let _ = write!(text, " [not repaired: {}]", finding.what.why_not());
                }
                (false, false) => {}
            }
        }
        if *found > NAMED as u64 {
            let _ = write!(text, "\n… and {} more (--output json names up to {KEPT})", found - NAMED as u64);
        }
        if self.on_their_way > 0 {
            let _ = write!(
                text,
                "\n{} entries are not in the search index, and index_tasks is not empty: they may be on their way; \
                 look again when `aula queue-stats --queue index_tasks` shows none",
                self.on_their_way
            );
        }
        text
    }
}

fn things(count: u64) -> String {
    format!("{count} {} wrong", if count == 1 { "thing is" } else { "things are" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hole(first: u64) -> Finding {
        Finding { channel: None, what: What::Hole { first, last: first } }
    }

    fn ended(repair: bool, repaired: &[bool], interrupted: bool) -> (Exit, String) {
        let mut report = Report::new("here", repair);
        repaired.iter().enumerate().for_each(|(first, repaired)| report.add(hole(first as u64), *repaired));
        let exit = report.end(interrupted);
        (exit, report.text())
    }

    #[test]
    fn the_exit_says_what_is_left() {
        assert_eq!(ended(false, &[], false).0, Exit::Done);
        assert_eq!(ended(false, &[false], false).0, Exit::Failed);
        assert_eq!(ended(true, &[true, true], false).0, Exit::Done);
        assert_eq!(ended(true, &[true, false], false).0, Exit::Partly);
        assert_eq!(ended(true, &[false], false).0, Exit::Failed);
        assert_eq!(ended(false, &[], true).0, Exit::Partly);
    }

    #[test]
    fn what_is_left_is_named_first_and_no_more_than_a_page() {
        let (_, text) = ended(true, &[[true; 30].as_slice(), &[false]].concat(), false);
        assert!(
            text.contains("31 things are wrong, 30 repaired\n  hole: 31, 30 repaired\nentry 30 is missing"),
            "{text}"
        );
        assert!(text.ends_with("… and 11 more (--output json names up to 1000)"), "{text}");
        assert_eq!(text.lines().count(), 3 + NAMED + 1, "{text}");
    }
}
