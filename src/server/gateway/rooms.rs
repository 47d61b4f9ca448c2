use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::room::Room;
use crate::message::{ChannelId, Seq};
use crate::server::store::{Known, KnownChannel};

/// A room that nobody is in is kept this long if there is place: meanwhile what was last delivered gets stored, so that
/// the store's head is a right beginning for the next one.
const KEEP_IDLE: Duration = Duration::from_secs(30);
/// Looking for idle rooms is a walk over all of them: not more often than this.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(5);

/// The channels that this gateway has to do with: those with local members, and those lately active.
///
/// A channel is entered at its first event even when no member is here. So where there is no room, nothing was
/// delivered lately, and the stored head is the present end. When younger ones had to be forgotten, that is not sure: a
/// room that is made then is compared with the store by those who join it.
pub struct Rooms {
    state: Mutex<State>,
    ring_frames: usize,
    max_idle: usize,
}

struct State {
    rooms: HashMap<ChannelId, Arc<Room>>,
    swept: Instant,
    /// Rooms made since then.
    made: usize,
    /// When one was last forgotten that is younger than [`KEEP_IDLE`].
    forgot_young: Option<Instant>,
}

impl Rooms {
    pub fn new(ring_frames: usize, max_idle: usize) -> Self {
        let state = State { rooms: HashMap::new(), swept: Instant::now(), made: 0, forgot_young: None };
        Self { state: Mutex::new(state), ring_frames, max_idle }
    }

    pub fn get(&self, id: ChannelId) -> Option<Arc<Room>> {
        self.state.lock().rooms.get(&id).cloned()
    }

    /// The room, made at `last_seq` if it isn't there.
    pub fn enter(&self, id: ChannelId, last_seq: Seq) -> Arc<Room> {
        let mut state = self.state.lock();
        if let Some(room) = state.rooms.get(&id) {
            return Arc::clone(room);
        }
        // By time for those that people have left, by number for those that events make.
        let is_due = state.swept.elapsed() >= BETWEEN_SWEEPS || state.made >= self.max_idle / 4;
        if state.rooms.len() >= self.max_idle && is_due {
            state.sweep(self.max_idle);
        }
        state.made += 1;
        let room = Room::new(id, last_seq, self.ring_frames);
        let is_sure = state.forgot_young.is_none_or(|forgot| forgot.elapsed() > KEEP_IDLE);
        let room = Arc::new(if is_sure { room } else { room.unsure() });
        state.rooms.insert(id, Arc::clone(&room));
        room
    }

    /// Events may have been missed: forgets the rooms that nobody is in, and what is known of the others. Returns those.
    pub fn doubt(&self) -> Vec<Arc<Room>> {
        let mut state = self.state.lock();
        // Whoever holds a room is about to join it.
        state.rooms.retain(|_, room| Arc::strong_count(room) > 1 || room.idle_since().is_none());
        state.forgot_young = Some(Instant::now());
        let kept: Vec<_> = state.rooms.values().cloned().collect();
        drop(state);
        kept.iter().for_each(|room| room.doubt());
        kept
    }

    pub fn len(&self) -> usize {
        self.state.lock().rooms.len()
    }
}

impl Known for Rooms {
    fn channel(&self, id: ChannelId) -> Option<KnownChannel> {
        self.get(id)?.known()
    }
}

impl State {
    /// Forgets the longest idle rooms: those of [`KEEP_IDLE`] until half of `max_idle` are left, younger ones until
    /// there is place for as many as are made before the next time.
    fn sweep(&mut self, max_idle: usize) {
        self.swept = Instant::now();
        self.made = 0;
        let mut idle: Vec<(Instant, ChannelId)> = self
            .rooms
            .iter()
            // Whoever holds a room is about to join it.
            .filter(|(_, room)| Arc::strong_count(room) == 1)
            .filter_map(|(id, room)| room.idle_since().map(|since| (since, *id)))
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        let mut left = idle.len();
        for (since, id) in idle {
            let is_young = since.elapsed() < KEEP_IDLE;
            if left <= max_idle / 2 || (is_young && left <= max_idle - max_idle / 4) {
                break;
            }
            self.rooms.remove(&id);
            left -= 1;
            if is_young {
                self.forgot_young = Some(Instant::now());
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
