//! What an import says at its end.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::message::ChannelId;
use crate::ops::Exit;

/// Channels and accounts that are named, at most; more are only counted.
const KEPT: usize = 1_000;
/// Of them, for people.
const SHOWN: usize = 20;

/// What became of what the export has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub channels: Tally,
    pub accounts: Tally,
    /// Entries that were not there before.
    pub entries_added: u64,
    /// Entries of channels that were looked at.
    pub entries: u64,
    pub left_alone: Vec<LeftAlone>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Were not there.
    pub added: u64,
    /// Were there in part: an earlier import's, or an earlier state.
    pub completed: u64,
    /// Were there as they are, or had gone on since.
    pub unchanged: u64,
    /// Are something else there.
    pub left_alone: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftAlone {
    /// `channel ID` or `account NAME`
    pub what: String,
    pub why: String,
}

/// What became of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Added,
    Completed,
    Unchanged,
    LeftAlone(String),
}

impl Counts {
    pub fn channel(&mut self, id: ChannelId, fate: Fate) {
        let why = self.channels.count(fate);
        self.name(format!("channel {id}"), why);
    }

    pub fn account(&mut self, name: &str, fate: Fate) {
        let why = self.accounts.count(fate);
        self.name(format!("account {name}"), why);
    }

    fn name(&mut self, what: String, why: Option<String>) {
        if let Some(why) = why
            && self.left_alone.len() < KEPT
        {
            self.left_alone.push(LeftAlone { what, why });
        }
    }
}

impl Tally {
    fn count(&mut self, fate: Fate) -> Option<String> {
        let (counter, why) = match fate {
            Fate::Added => (&mut self.added, None),
            Fate::Completed => (&mut self.completed, None),
            Fate::Unchanged => (&mut self.unchanged, None),
            Fate::LeftAlone(why) => (&mut self.left_alone, Some(why)),
        };
        *counter += 1;
        why
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All that the export has is there.
    Imported,
    /// But for what is something else there.
    Partly,
    /// `--dry-run`: nothing was changed.
    Foretold,
    Interrupted,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub outcome: Outcome,
    pub place: String,
    #[serde(flatten)]
    pub counts: Counts,
    /// Of this command alone.
    pub seconds: f64,
}

impl Report {
    pub fn exit(&self) -> Exit {
        let left_alone = self.counts.channels.left_alone + self.counts.accounts.left_alone;
        match self.outcome {
            Outcome::Imported | Outcome::Foretold if left_alone == 0 => Exit::Done,
            _ => Exit::Partly,
        }
    }

    /// For people; `folder` is the export's.
    pub fn text(&self, folder: &str) -> String {
        let Self { outcome, place, counts, seconds } = self;
        let (would, are) = match outcome {
            Outcome::Foretold => ("would be ", "would go"),
            _ => ("", "went"),
        };
        let mut text = String::new();
        if *outcome == Outcome::Interrupted {
            text.push_str("interrupted: ");
        }
        // A String takes everything, here and below.
        let _ = write!(text, "{} entries {are} into {place}, in {seconds} s", counts.entries_added);
        for (things, tally) in [("channels", counts.channels), ("accounts", counts.accounts)] {
            let Tally { added, completed, unchanged, left_alone } = tally;
            let _ = write!(
                text,
                "\n{things}: {added} {would}added, {completed} {would}completed, {unchanged} there already, \
                 {left_alone} {would}left alone"
            );
        }
        for LeftAlone { what, why } in counts.left_alone.iter().take(SHOWN) {
            let _ = write!(text, "\n  {what}: {why}");
        }
        let named = counts.left_alone.len().min(SHOWN) as u64;
        let more = (counts.channels.left_alone + counts.accounts.left_alone).saturating_sub(named);
        if more > 0 {
            let _ = write!(text, "\n  and {more} more; --output json names up to {KEPT}");
        }
        match outcome {
            Outcome::Interrupted => {
                let _ = write!(text, "\n`aula import {folder} --resume` goes on");
            }
            Outcome::Foretold => {
                let _ = write!(text, "\nnothing was changed");
            }
            Outcome::Imported | Outcome::Partly => {}
        }
        text
    }
}
