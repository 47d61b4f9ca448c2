//! Whether a batch fits to the stored log, and what of it is new.

use std::collections::HashSet;
use std::sync::Arc;

use super::heads::Head;
use crate::message::{Message, Millis, Seq};
use crate::server::store::ChannelBatch;

/// A batch, seen from a head.
pub(super) struct Plan<'b> {
    pub(super) batch: &'b ChannelBatch,
    /// `None`: the batch makes the channel, or has nothing for it.
    pub(super) head: Option<Head>,
    /// Those that should be there already.
    pub(super) stored: &'b [Arc<Message>],
    pub(super) fresh: &'b [Arc<Message>],
}

impl<'b> Plan<'b> {
    /// `None`: the batch was made for another log.
    pub(super) fn of(batch: &'b ChannelBatch, head: Option<Head>) -> Option<Self> {
        if !is_dense(&batch.entries) || has_repeats(&batch.entries) {
            return None;
        }
        let has_nothing = batch.entries.is_empty() && batch.members.is_empty() && batch.departed.is_empty();
        if head.is_none() && batch.create.is_none() && (!has_nothing || batch.refused.is_empty()) {
            return None;
        }
        let last_seq = head.map_or(0, |head| head.last_seq);
        let first_fresh = batch.entries.partition_point(|entry| entry.seq <= last_seq);
        let (stored, fresh) = batch.entries.split_at(first_fresh);
        if fresh.first().is_some_and(|first| first.seq != last_seq + 1) {
            return None;
        }
        Some(Self { batch, head, stored, fresh })
    }

    pub(super) fn makes_channel(&self) -> bool {
        self.head.is_none() && self.batch.create.is_some()
    }

    /// Whether members may come, go or change: that is the business of batches with new entries.
    pub(super) fn has_news(&self) -> bool {
        self.makes_channel() || !self.fresh.is_empty()
    }

    pub(super) fn last_seq(&self) -> Seq {
        self.head.map_or(0, |head| head.last_seq)
    }

    /// Whether a membership since this seq begins with this batch.
    pub(super) fn begins(&self, joined_seq: Seq) -> bool {
        self.makes_channel() || joined_seq > self.last_seq()
    }

    /// Whether somebody comes or goes, and so may have a new role.
    pub(super) fn changes_members(&self) -> bool {
        let comes = || self.batch.members.iter().any(|(_, member)| self.begins(member.joined_seq));
        self.has_news() && (!self.batch.departed.is_empty() || comes())
    }

    /// The head when all is stored.
    pub(super) fn new_head(&self) -> Head {
        let old = self.head.unwrap_or(Head::NONE);
        // The newest of all, not the last: it must not depend on how the entries were cut into batches.
        let newest = self.fresh.iter().map(|entry| entry.at).chain(self.head.map(|head| head.last_at)).max();
        Head {
            last_seq: self.fresh.last().map_or(old.last_seq, |last| last.seq),
            last_at: newest.unwrap_or(Millis(0)),
            delivered_by_all: old.delivered_by_all.max(self.batch.delivered_by_all),
            read_by_all: old.read_by_all.max(self.batch.read_by_all),
        }
    }
}

fn is_dense(entries: &[Arc<Message>]) -> bool {
    entries.first().is_none_or(|first| first.seq > 0)
        && entries.windows(2).all(|pair| pair[0].seq.checked_add(1) == Some(pair[1].seq))
}

/// Whether two of the entries are one send.
fn has_repeats(entries: &[Arc<Message>]) -> bool {
    let mut seen = HashSet::with_capacity(entries.len());
    entries.len() > 1 && !entries.iter().all(|entry| seen.insert((entry.client_id, &entry.sender)))
}
