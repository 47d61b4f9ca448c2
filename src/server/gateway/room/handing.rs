//! How what is said in a room gets to the sessions in it.
//!
//! What is said is put in a list, under the room's lock; whoever put it there sees to it that it is handed over. In a
//! small room that is done at once, by the same thread, which writes to each socket. In a large one a task does it, so
//! that a channel's owner is not held up by thousands of writes; what is said meanwhile goes out with the next round,
//! as one write a socket.
//!
//! A round takes what was said so far, and the members as they are; what is said and who comes later is none of its
//! business. What is said has a number, so that who comes, or comes back to the present, gets what is said from then
//! on and not what waits for a round. `handing` is held for a round. Whoever must know that a member has been handed
//! everything (because it is removed, or is going to be sent something older) holds it, too: [`Room::hold`].

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::MutexGuard;
use uuid::Uuid;

use super::{Inner, Member, Room};
use crate::server::gateway::encoded::Encoded;
use crate::server::gateway::outbox::{MAX_PIECE, in_one_piece};
use crate::wire::Encoding;

/// Up to so many members, frames are handed over by the thread that has them.
const SMALL: usize = 64;
/// Rounds in a large room begin this far apart for each member, some four times as long as a write takes: one room's
/// rounds take a part of a processor and no more. A room that has been quiet for as long is not held up.
const PACE_PER_MEMBER: Duration = Duration::from_micros(16);
const LONGEST_PACE: Duration = Duration::from_millis(50);
/// What may wait for a round.
pub(super) const MAX_SAID: usize = 64;

pub(super) struct Said {
    number: u64,
    frame: Arc<Encoded>,
    to: Audience,
}

/// Who in a room is to get a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Those whose stream isn't held back.
    Live,
    All,
    AllBut(Uuid),
}

impl Said {
    fn is_for(&self, member: &Member) -> bool {
        match self.to {
            Audience::Live => !member.paused && self.number >= member.live_from,
            Audience::All => self.number >= member.joined_at,
            Audience::AllBut(session) => self.number >= member.joined_at && member.session.id != session,
        }
    }
}

/// A room of which everybody has been handed everything.
pub(super) struct Held<'a> {
    // Let go in this order.
    inner: MutexGuard<'a, Inner>,
    _handing: MutexGuard<'a, ()>,
}

impl Deref for Held<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.inner.hand_over();
    }
}

impl Room {
    pub(super) fn hold(&self) -> Held<'_> {
        let handing = self.handing.lock();
        // First without the lock that every message needs: what is left then is little.
        self.hand_round();
        let mut inner = self.inner.lock();
        inner.hand_over();
        Held { inner, _handing: handing }
    }

    /// Sees to it that what was said is handed over.
    pub(super) fn hand_over_soon(self: &Arc<Self>, mut inner: MutexGuard<'_, Inner>) {
        if inner.said.is_empty() {
            return;
        }
        if inner.members.len() <= SMALL || inner.said.len() >= MAX_SAID {
            drop(inner);
            self.hand_over();
        } else if !inner.is_round_due {
            inner.is_round_due = true;
            let pace = (PACE_PER_MEMBER * inner.members.len() as u32).min(LONGEST_PACE);
            let wait = pace.saturating_sub(inner.handed_at.elapsed());
            drop(inner);
            let room = Arc::clone(self);
            tokio::spawn(async move {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                room.hand_over();
            });
        }
    }

    fn hand_over(&self) {
        let _handing = self.handing.lock();
        self.hand_round();
    }

    /// For who holds `handing`.
    fn hand_round(&self) {
        let (members, said) = {
            let mut inner = self.inner.lock();
            inner.is_round_due = false;
            inner.handed_at = Instant::now();
            inner.taken = inner.spoken;
            (Arc::clone(&inner.members), std::mem::take(&mut inner.said))
        };
        hand(&members, &said);
    }
}

impl Inner {
    pub(super) fn say(&mut self, frame: Arc<Encoded>, to: Audience) {
        if !self.members.is_empty() {
            self.said.push(Said { number: self.spoken, frame, to });
            self.spoken += 1;
        }
    }

    /// Whether a round that is under way may still have something for a member.
    pub(super) fn is_in_round(&self, member: &Member) -> bool {
        member.joined_at < self.taken
    }

    /// For who holds `handing`.
    pub(super) fn hand_over(&mut self) {
        self.taken = self.spoken;
        let said = std::mem::take(&mut self.said);
        hand(&self.members, &said);
    }
}

/// To each its frames, in one write.
fn hand(members: &[Member], said: &[Said]) {
    if said.is_empty() {
        return;
    }
    let (mut json, mut msgpack) = (None, None);
    for member in members {
        let encoding = member.session.encoding;
        let whole = match encoding {
            Encoding::Json => json.get_or_insert_with(|| all(said, encoding)),
            Encoding::Msgpack => msgpack.get_or_insert_with(|| all(said, encoding)),
        };
        if said.iter().all(|said| said.is_for(member)) {
            member.session.outbox.push_all(whole);
        } else {
            let of_them = said.iter().filter(|said| said.is_for(member));
            let part: Vec<Bytes> = of_them.map(|said| said.frame.encoded(encoding).clone()).collect();
            member.session.outbox.push_all(&part);
        }
    }
}

/// What is said, for those who get all of it.
fn all(said: &[Said], encoding: Encoding) -> Vec<Bytes> {
    let frames: Vec<Bytes> = said.iter().map(|said| said.frame.encoded(encoding).clone()).collect();
    if frames.len() > 1 && frames.iter().map(Bytes::len).sum::<usize>() <= MAX_PIECE {
        return vec![in_one_piece(frames.iter())];
    }
    frames
}
