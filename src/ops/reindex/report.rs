//! What a reindex says at its end.

use std::fmt::Write as _;
use std::time::Instant;

use serde::Serialize;

use super::checkpoint::Checkpoint;
use super::{Exit, Indexes, Rejected};
use crate::ops::output::counted;
use crate::server::search::rebuild::Comparison;

/// Messages named for people, at most; the JSON report has more.
const NAMED: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new index is in use.
    Replaced,
    /// The index in use has what was asked for.
    Mended,
    MendedPartly,
    RolledBack,
    Abandoned,
    DroppedFormer,
    Interrupted,
    InterruptedMending,
    /// Some messages can't be indexed.
    Rejected,
    /// The new index is not what the store has.
    Differs,
}

impl Outcome {
    pub fn exit(self) -> Exit {
        match self {
            Self::Replaced | Self::Mended | Self::RolledBack | Self::Abandoned | Self::DroppedFormer => Exit::Done,
            Self::Interrupted | Self::InterruptedMending | Self::MendedPartly => Exit::Partly,
            Self::Rejected | Self::Differs => Exit::Failed,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Report {
    outcome: Option<Outcome>,
    pub index: String,
    /// Kept for the way back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub former: Option<String>,
    /// Entries that are in the index and were walked by.
    pub entries: u64,
    rejected_count: u64,
    rejected: Vec<Rejected>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared: Option<Comparison>,
    /// Of this command alone.
    seconds: f64,
    #[serde(skip)]
    began: Instant,
}

impl Report {
    pub fn new(index: &str) -> Self {
        Self {
            outcome: None,
            index: index.to_owned(),
            former: None,
            entries: 0,
            rejected_count: 0,
            rejected: Vec::new(),
            compared: None,
            seconds: 0.0,
            began: Instant::now(),
        }
    }

    pub fn walked(&mut self, checkpoint: &Checkpoint) {
        self.entries = checkpoint.entries;
        self.rejected_count = checkpoint.rejected_count;
        self.rejected.clone_from(&checkpoint.rejected);
    }

    pub fn ended(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self.seconds = (self.began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        self
    }

    /// For people.
    pub fn text(&self) -> String {
        let Self { index, entries, rejected_count, seconds, .. } = self;
        let mut text = match self.outcome {
            Some(Outcome::Replaced) => {
                let sampled = self.compared.as_ref().map_or(0, |compared| compared.sampled);
                format!(
                    "{index} is in use: {entries} entries in {seconds} s, {sampled} of them compared with the store\n\
                     the index before is kept: `aula reindex --rollback` goes back, `aula reindex --drop-former` frees \
                     its space"
                )
            }
            Some(Outcome::Mended) => format!("{entries} entries are in {index}, in {seconds} s"),
            Some(Outcome::MendedPartly) => {
                format!("{entries} entries are in {index}, and {rejected_count} can't be indexed:")
            }
            Some(Outcome::RolledBack) => format!(
                "{index} is in use again: {entries} entries that were sent meanwhile are in it\n\
                 the other one is kept: `aula reindex --rollback` goes back to it"
            ),
            Some(Outcome::Abandoned) if index.is_empty() => "no index was being built".to_owned(),
            Some(Outcome::DroppedFormer) if index.is_empty() => "there was no former index".to_owned(),
            Some(Outcome::Abandoned | Outcome::DroppedFormer) => format!("{index} is dropped"),
            Some(Outcome::Interrupted) => format!(
                "interrupted: {entries} entries are in {index}, which is not in use\n`aula reindex --resume` goes on, \
                 `aula reindex --abandon` gives it up"
            ),
            Some(Outcome::InterruptedMending) => {
                format!("interrupted: {entries} entries are in {index}; the same command again does the rest")
            }
            Some(Outcome::Rejected) => format!(
                "{index} is not used: {rejected_count} messages can't be indexed. The index in use is what it was; \
                 `aula reindex --abandon` drops the new one"
            ),
            Some(Outcome::Differs) => format!(
                "{index} is not used: it is not what the store has. The index in use is what it was; \
                 `aula reindex --abandon` drops the new one, for another try"
            ),
            None => String::new(),
        };
        for Rejected { channel, seq, id, why } in self.rejected.iter().take(NAMED) {
            // A String takes everything.
            let _ = write!(text, "\n  channel {channel}, seq {seq}, message {id}: {why}");
        }
        if let Some(compared) = self.compared.as_ref().filter(|compared| !compared.agrees()) {
            let _ = write!(text, "\n  {} entries of at least {}", compared.found, compared.expected);
            for (channel, seq) in compared.different.iter().take(NAMED) {
                let _ = write!(text, "\n  channel {channel}, seq {seq}: missing or other than stored");
            }
        }
        text
    }
}

/// Of `--dry-run`.
#[derive(Serialize)]
pub struct Foretold<'a> {
    #[serde(flatten)]
    pub indexes: &'a Indexes,
    pub channels: u64,
    /// Changes of membership, which are not indexed, among them.
    pub entries: u64,
}

pub fn foretold(indexes: &Indexes, channels: u64, entries: u64, place: &str) -> String {
    let Indexes { live, next, former } = indexes;
    let named = |name: &Option<String>| name.as_deref().unwrap_or("none").to_owned();
    let then = match next {
        Some(_) => "`aula reindex --resume` would go on with the one being built",
        None => "`aula reindex` would build a new one",
    };
    let channels = counted(channels, "channel");
    format!(
        "{place}: {entries} entries in {channels}\nin use: {live}; being built: {}; before it: {}\n{then}",
        named(next),
        named(former)
    )
}
