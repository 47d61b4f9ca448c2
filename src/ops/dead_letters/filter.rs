//! Which dead letters are meant.

use std::collections::HashSet;

use crate::message::Millis;
use crate::ops::arguments;
use crate::server::queue::{DeadLetter, Family};

/// What all of the subcommands choose by; each further option narrows the choice.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Filter {
    /// Only of this queue
    #[arg(long, value_name = "NAME")]
    pub queue: Option<Family>,
    /// Only of this shard
    #[arg(long, value_name = "N")]
    shard: Option<u16>,
    /// Only those whose reason contains this, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only those that died then or later: a time (2026-11-22T20:00:00Z), or how long ago (2h)
    #[arg(long, value_name = "TIME", value_parser = arguments::moment)]
    since: Option<Millis>,
    /// Only those that died before
    #[arg(long, value_name = "TIME", value_parser = arguments::moment)]
    before: Option<Millis>,
    #[arg(skip)]
    pub ids: HashSet<String>,
}

impl Filter {
    /// Those with one of these names alone; all if there is none.
    pub fn of(mut self, ids: &[String]) -> Self {
        self.ids = ids.iter().cloned().collect();
        self
    }

    /// Whether it chooses all there are.
    pub fn is_everything(&self) -> bool {
        let Self { queue, shard, reason, since, before, ids } = self;
        let none = queue.is_none() && shard.is_none() && reason.is_none() && since.is_none() && before.is_none();
        none && ids.is_empty()
    }

    pub fn families(&self, all: &[Family]) -> Vec<Family> {
        all.iter().copied().filter(|family| self.queue.is_none_or(|only| only == *family)).collect()
    }

    pub fn chooses(&self, letter: &DeadLetter) -> bool {
        let in_time = match letter.died_at {
            Some(at) => self.since.is_none_or(|since| at >= since) && self.before.is_none_or(|before| at < before),
            // Who asks for a time means those that have one.
            None => self.since.is_none() && self.before.is_none(),
        };
        let contains = |text: &String| letter.reason.to_lowercase().contains(&text.to_lowercase());
        in_time
            && self.queue.is_none_or(|family| family == letter.lane.family)
            && self.shard.is_none_or(|shard| shard == letter.lane.shard)
            && self.reason.as_ref().is_none_or(contains)
            && (self.ids.is_empty() || self.ids.contains(&letter.id))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::server::queue::Lane;

    fn letter(id: u32, family: Family, shard: u16, reason: &str, died_at: Option<i64>) -> DeadLetter {
        DeadLetter {
            id: id.to_string(),
            lane: Lane { family, shard },
            payload: Bytes::new(),
            reason: reason.to_owned(),
            deaths: 1,
            enqueued_at: None,
            first_died_at: None,
            died_at: died_at.map(Millis),
        }
    }

    proptest! {
        /// Each option by itself takes away; together they take away what any of them does.
        #[test]
        fn options_narrow_the_choice(
            shard in 0..3_u16, reason in "[a-cA-C]{0,3}", died_at in proptest::option::of(0..100_i64),
            only_shard in proptest::option::of(0..3_u16), text in proptest::option::of("[a-cA-C]{1,2}"),
            since in proptest::option::of(0..100_i64), before in proptest::option::of(0..100_i64),
            queue in proptest::option::of(0..2_usize), id in 0..4_u32, ids in proptest::collection::hash_set(0..4_u32, 0..3),
        ) {
            let letter = letter(id, Family::DbTasks, shard, &reason, died_at);
            let queue = queue.map(|index| Family::ALL[index]);
            let ids: HashSet<String> = ids.iter().map(u32::to_string).collect();
            let filter = Filter {
                queue, shard: only_shard, reason: text.clone(), since: since.map(Millis), before: before.map(Millis),
                ids: ids.clone(),
            };
            let expected = [
                queue != Some(Family::IndexTasks),
                only_shard.is_none() || only_shard == Some(shard),
                text.is_none_or(|text| reason.to_uppercase().contains(&text.to_uppercase())),
                since.is_none() || died_at.is_some_and(|at| at >= since.unwrap()),
                before.is_none() || died_at.is_some_and(|at| at < before.unwrap()),
                ids.is_empty() || ids.contains(&letter.id),
            ];
            prop_assert_eq!(filter.chooses(&letter), expected.iter().all(|holds| *holds));
        }
    }
}
