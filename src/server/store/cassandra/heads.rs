//! The heads of the channels that this process loaded or wrote, so that a write need not read first.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::message::{ChannelId, Millis, Seq};

/// Channels whose head is kept. One that is forgotten costs a read.
const MAX_HEADS: usize = 100_000;

/// How far a channel is complete in all tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) last_seq: Seq,
    /// The newest moment of the entries up to there.
    pub(super) last_at: Millis,
    pub(super) delivered_by_all: Seq,
    pub(super) read_by_all: Seq,
}

#[derive(Default)]
pub(super) struct Heads(Mutex<HashMap<ChannelId, Head>>);

impl Heads {
    pub(super) fn get(&self, id: ChannelId) -> Option<Head> {
        self.0.lock().get(&id).copied()
    }

    /// A head only rises: who read it earlier may come later.
    pub(super) fn raise(&self, id: ChannelId, head: Head) {
        let mut heads = self.0.lock();
        if heads.len() >= MAX_HEADS && !heads.contains_key(&id) {
            // Any half will do, and the keys are in no order.
            let mut keep = false;
            heads.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        let known = heads.entry(id).or_insert(head);
        if head.last_seq >= known.last_seq {
            known.last_seq = head.last_seq;
            known.last_at = known.last_at.max(head.last_at);
        }
        known.delivered_by_all = known.delivered_by_all.max(head.delivered_by_all);
        known.read_by_all = known.read_by_all.max(head.read_by_all);
    }

    pub(super) fn forget(&self, id: ChannelId) {
        self.0.lock().remove(&id);
    }
}
