//! Who was in a channel at which seq, as far as its log's own entries say so.

use std::collections::HashMap;

use super::log::{Log, Standing};
use super::record::{ChannelNo, MembershipChange, Record, UserNo};
use crate::message::Seq;

/// The changes of those who were removed from a channel; nobody else needs a look.
pub struct Members {
    /// By channel: whether anybody was removed.
    has_removals: Vec<bool>,
    /// In the order of the seqs: (seq, added).
    changes: HashMap<(UserNo, ChannelNo), Vec<(Seq, bool)>>,
}

/// How an entry stands to somebody's membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    Member,
    /// This entry removes it, and is the last that it may see.
    Leaving,
    /// This entry adds it.
    Added,
    /// It had been removed by the entry `at`, and was added `again` later or not.
    Removed {
        at: Seq,
        again: bool,
    },
}

impl Members {
    pub fn of(record: &Record, log: &Log) -> Self {
        let mut members = Self { has_removals: vec![false; record.channels.len()], changes: HashMap::new() };
        let in_log = |change: &&MembershipChange| log.standing(change.entry) == Standing::InLog;
        for change in record.changes.iter().filter(in_log).filter(|change| !change.added) {
            let channel = record.entry(change.entry).channel;
            members.has_removals[channel.0 as usize] = true;
            for user in &change.members {
                members.changes.entry((*user, channel)).or_default();
            }
        }
        for change in record.changes.iter().filter(in_log) {
            let entry = record.entry(change.entry);
            if !members.has_removals[entry.channel.0 as usize] {
                continue;
            }
            for user in &change.members {
                if let Some(changes) = members.changes.get_mut(&(*user, entry.channel)) {
                    changes.push((entry.seq, change.added));
                }
            }
        }
        members.changes.values_mut().for_each(|changes| changes.sort_unstable());
        members
    }

    pub fn at(&self, user: UserNo, channel: ChannelNo, seq: Seq) -> Membership {
        if !self.has_removals[channel.0 as usize] {
            return Membership::Member;
        }
        let Some(changes) = self.changes.get(&(user, channel)) else { return Membership::Member };
        let next = changes.partition_point(|(at, _)| *at <= seq);
        let again = || changes[next..].iter().any(|(_, added)| *added);
        match changes[..next].last() {
            Some((at, true)) if *at == seq => Membership::Added,
            Some((at, false)) if *at == seq => Membership::Leaving,
            Some((at, false)) => Membership::Removed { at: *at, again: again() },
            _ => Membership::Member,
        }
    }
}
