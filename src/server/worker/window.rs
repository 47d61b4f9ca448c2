use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use uuid::Uuid;

use crate::message::{ChannelId, Millis, Username};
use crate::server::store::Earlier;

/// What became of the most recent requests that this owner decided, stored or not: what a repeat is first checked
/// against.
///
/// Keys are 128 bits of two keyed hashes instead of the names themselves: a few times smaller, and a collision
/// can't be sought from outside.
pub(super) struct Window {
    known: HashMap<u128, Earlier>,
    /// With the time at which the request was accepted.
    oldest: VecDeque<(u128, Millis)>,
    remembers_since: Millis,
    capacity: usize,
    hashers: (RandomState, RandomState),
}

impl Window {
    /// Of an owner that begins at `now`.
    pub(super) fn new(capacity: usize, now: Millis) -> Self {
        Self {
            known: HashMap::new(),
            oldest: VecDeque::new(),
            remembers_since: now,
            capacity: capacity.max(1),
            hashers: (RandomState::new(), RandomState::new()),
        }
    }

    pub(super) fn get(&self, channel: ChannelId, sender: &Username, client_id: Uuid) -> Option<Earlier> {
        self.known.get(&self.key(channel, sender, client_id)).copied()
    }

    /// Whatever was accepted after this and has had its turn is in the window.
    pub(super) fn remembers_since(&self) -> Millis {
        self.remembers_since
    }

    /// `at`: when it was accepted.
    pub(super) fn insert(
        &mut self,
        channel: ChannelId,
        sender: &Username,
        client_id: Uuid,
        at: Millis,
        became: Earlier,
    ) {
        let key = self.key(channel, sender, client_id);
        if self.known.insert(key, became).is_none() {
            self.oldest.push_back((key, at));
        }
        while self.oldest.len() > self.capacity {
            if let Some((oldest, at)) = self.oldest.pop_front() {
                self.known.remove(&oldest);
                self.remembers_since = self.remembers_since.max(at);
            }
        }
    }

    fn key(&self, channel: ChannelId, sender: &Username, client_id: Uuid) -> u128 {
        let parts = (channel, sender.as_str(), client_id);
        u128::from(self.hashers.0.hash_one(parts)) << 64 | u128::from(self.hashers.1.hash_one(parts))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_the_newest_and_tells_senders_apart() {
        let mut window = Window::new(2, Millis(7));
        let (ada, bob) = (Username::new("ada").unwrap(), Username::new("bob").unwrap());
        let channel = ChannelId(Uuid::nil());
        let ids = [1, 2, 3].map(Uuid::from_u128);
        for (seq, id) in (1..).zip(ids) {
            window.insert(channel, &ada, id, Millis(100 + seq as i64), Earlier::Stored(seq));
            let since = if seq <= 2 { 7 } else { 101 };
            assert_eq!(window.remembers_since(), Millis(since));
        }
        assert_eq!(
            ids.map(|id| window.get(channel, &ada, id)),
            [None, Some(Earlier::Stored(2)), Some(Earlier::Stored(3))]
        );
        assert_eq!(window.get(channel, &bob, ids[2]), None);
    }
}
