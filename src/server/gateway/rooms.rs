use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::room::Room;
use crate::message::{ChannelId, Seq};
use crate::server::store::{Known, KnownChannel};

/// A room that nobody is in is kept at least this long: meanwhile what was last delivered gets stored, so that the
/// store's head is a right beginning for the next one.
const KEEP_IDLE: Duration = Duration::from_secs(30);
/// Looking for idle rooms is a walk over all of them: not more often than this.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(5);

/// The channels that this gateway has to do with: those with local members, and those lately active.
///
/// A channel is entered at its first event even when no member is here. So where there is no room, nothing was
/// delivered lately, and the stored head is the present end.
pub struct Rooms {
    state: Mutex<State>,
    ring_frames: usize,
    max_idle: usize,
}

struct State {
    rooms: HashMap<ChannelId, Arc<Room>>,
    swept: Instant,
}

impl Rooms {
    pub fn new(ring_frames: usize, max_idle: usize) -> Self {
        let state = State { rooms: HashMap::new(), swept: Instant::now() };
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
        if state.rooms.len() >= self.max_idle && state.swept.elapsed() >= BETWEEN_SWEEPS {
            state.sweep(self.max_idle);
        }
        let room = Arc::new(Room::new(id, last_seq, self.ring_frames));
        state.rooms.insert(id, Arc::clone(&room));
        room
    }

    /// Events may have been missed: forgets the rooms that nobody is in, and what is known of the others. Returns those.
    pub fn doubt(&self) -> Vec<Arc<Room>> {
        let mut state = self.state.lock();
        // Whoever holds a room is about to join it.
        state.rooms.retain(|_, room| Arc::strong_count(room) > 1 || room.idle_since().is_none());
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
    /// Forgets the longest idle rooms, until `max_idle` idle ones are left.
    fn sweep(&mut self, max_idle: usize) {
        self.swept = Instant::now();
        let mut idle: Vec<(Instant, ChannelId)> = self
            .rooms
            .iter()
            // Whoever holds a room is about to join it.
            .filter(|(_, room)| Arc::strong_count(room) == 1)
            .filter_map(|(id, room)| room.idle_since().map(|since| (since, *id)))
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        let excess = idle.len().saturating_sub(max_idle / 2);
        for (since, id) in idle.into_iter().take(excess) {
            if since.elapsed() >= KEEP_IDLE {
                self.rooms.remove(&id);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
