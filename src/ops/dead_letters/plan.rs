//! What is to be done, counted before anything is.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;

use serde::Serialize;

use super::filter::Filter;
use super::view::{Detail, View};
use crate::ops::{output, terminal};
use crate::server::queue::{DeadLetters, Family};

/// Letters in one go. Their names are kept, so that one that is put back and dies again meanwhile is left alone.
const MOST: usize = 100_000;
/// Kinds of reasons that are told apart.
const GROUPS: usize = 100;

#[derive(Default)]
pub struct Plan {
    pub families: Vec<Family>,
    pub ids: HashSet<String>,
    pub groups: Vec<Group>,
    /// Chosen, and left out because they have died too often.
    pub held_back: u64,
    /// Not looked at, or too many for one go.
    pub beyond: u64,
    /// Asked for by name, and not there.
    pub missing: Vec<String>,
}

/// Letters that died of the same.
#[derive(Debug, Serialize)]
pub struct Group {
    pub queue: &'static str,
    pub kind: &'static str,
    pub reason: String,
    pub letters: u64,
}

impl Plan {
    pub async fn make(
        letters: &dyn DeadLetters,
        filter: &Filter,
        most_attempts: Option<NonZeroU32>,
    ) -> anyhow::Result<Self> {
        let families = filter.families(letters.families());
        let mut plan = Self { families: families.clone(), ..Self::default() };
        let mut groups: BTreeMap<(&'static str, &'static str, String), u64> = BTreeMap::new();
        let mut missing: HashSet<&String> = filter.ids.iter().collect();
        for family in families {
            let mut walk = letters.walk(family).await?;
            while let Some(letter) = walk.next().await? {
                if !filter.chooses(&letter) {
                    continue;
                }
                missing.remove(&letter.id);
                if most_attempts.is_some_and(|most| letter.deaths >= most.get()) {
                    plan.held_back += 1;
                    continue;
                }
                if plan.ids.len() >= MOST {
                    plan.beyond += 1;
                    continue;
                }
                let view = View::of(&letter, Detail::Line);
                let is_full = groups.len() >= GROUPS;
                let mut key = (view.queue, view.kind, view.reason);
                if is_full && !groups.contains_key(&key) {
                    key.2 = "other reasons".to_owned();
                }
                *groups.entry(key).or_default() += 1;
                plan.ids.insert(letter.id);
            }
            plan.beyond += walk.beyond();
            walk.end().await?;
        }
        let group = |((queue, kind, reason), letters)| Group { queue, kind, reason, letters };
        plan.groups = groups.into_iter().map(group).collect();
        plan.missing = missing.into_iter().cloned().collect();
        plan.missing.sort();
        Ok(plan)
    }

    /// A line for each group.
    pub fn text(&self) -> String {
        let cells = |group: &Group| {
            let reason = output::printable(&group.reason);
            vec![group.letters.to_string(), group.queue.to_owned(), group.kind.to_owned(), reason]
        };
        let rows: Vec<_> = self.groups.iter().map(cells).collect();
        let lines = terminal::columns(&["LETTERS", "QUEUE", "KIND", "REASON"], &rows);
        let width = terminal::width();
        lines.iter().map(|line| terminal::fit(line, width)).collect::<Vec<_>>().join("\n")
    }
}
