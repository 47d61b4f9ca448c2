use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use uuid::Uuid;

use super::encoded::{Encoded, encode};
use super::outbox::{Closing, Outbox};
use super::room::Room;
use crate::config::Session as Limits;
use crate::message::{ChannelId, Seq, Username};
use crate::server::auth::Identity;
use crate::wire::frame::ChannelInfo;
use crate::wire::{Encoding, Frame};

/// One authenticated connection.
pub struct Session {
    pub id: Uuid,
    pub identity: Identity,
    pub encoding: Encoding,
    pub outbox: Outbox,
    rate: DefaultDirectRateLimiter,
    in_flight: AtomicUsize,
    max_in_flight: usize,
    /// In the order of their ids. Taken after a room's lock, never before it.
    rooms: Mutex<Vec<Joined>>,
    /// What has changed since the session began to connect; `None` once it is connected. The list of channels that
    /// it connects by may be older or newer than that.
    connecting: Mutex<Option<Box<Connecting>>>,
}

#[derive(Default)]
struct Connecting {
    /// Channels that the user was removed from.
    lost: HashSet<ChannelId>,
    /// Channels that the user was added to.
    joined: Vec<(ChannelInfo, Coming)>,
}

/// How a session comes to a channel that its user was added to.
#[derive(Clone, Copy)]
pub struct Coming {
    /// Its stream begins right behind this.
    pub after: Seq,
    /// The user was a member when the log ended here.
    pub since: Seq,
}

impl Coming {
    /// With the entry that adds its user.
    pub fn by(seq: Seq) -> Self {
        Self { after: seq - 1, since: seq }
    }
}

struct Joined {
    room: Arc<Room>,
    typed: Option<Instant>,
}

impl Session {
    pub fn new(identity: Identity, encoding: Encoding, limits: &Limits) -> Self {
        let per_second = std::num::NonZeroU32::new(limits.requests_per_second).unwrap_or(std::num::NonZeroU32::MIN);
        let burst = std::num::NonZeroU32::new(limits.request_burst).unwrap_or(per_second);
        Self {
            id: Uuid::now_v7(),
            identity,
            encoding,
            outbox: Outbox::new(limits.outbox_frames, limits.outbox_bytes),
            rate: RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)),
            in_flight: AtomicUsize::new(0),
            max_in_flight: limits.max_in_flight,
            rooms: Mutex::default(),
            connecting: Mutex::new(Some(Box::default())),
        }
    }

    pub fn username(&self) -> &Username {
        &self.identity.username
    }

    pub fn push(&self, frame: &Frame) {
        self.outbox.push(&encode(frame, self.encoding));
    }

    /// Puts a frame where the next one takes it along. Whether it is the first that waits.
    pub(super) fn hold(&self, frame: &Frame) -> bool {
        self.outbox.hold(&encode(frame, self.encoding))
    }

    pub fn push_shared(&self, frame: &Encoded) {
        self.outbox.push(frame.encoded(self.encoding));
    }

    pub fn close(&self, closing: Closing) {
        self.outbox.close(closing);
    }

    /// How long to wait, if this request is one too many.
    pub fn over_rate(&self) -> Option<Duration> {
        self.rate.check().err().map(|refused| refused.wait_time_from(DefaultClock::default().now()))
    }

    /// Counts a request that is answered later; `None` if too many are.
    pub fn begin(self: &Arc<Self>) -> Option<InFlight> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let in_flight = InFlight(Arc::clone(self));
        (before < self.max_in_flight).then_some(in_flight)
    }

    pub fn room(&self, channel: ChannelId) -> Option<Arc<Room>> {
        let rooms = self.rooms.lock();
        place(&rooms, channel).ok().map(|index| Arc::clone(&rooms[index].room))
    }

    pub fn rooms(&self) -> Vec<Arc<Room>> {
        self.rooms.lock().iter().map(|joined| Arc::clone(&joined.room)).collect()
    }

    /// Its welcome is being prepared, and will say what is so then.
    pub(super) fn is_connecting(&self) -> bool {
        self.connecting.lock().is_some()
    }

    /// Whether the user may be shown as typing again; says yes at most once an interval.
    pub fn may_type(&self, channel: ChannelId, interval: Duration) -> bool {
        let mut rooms = self.rooms.lock();
        let Ok(index) = place(&rooms, channel) else { return false };
        let joined = &mut rooms[index];
        let now = Instant::now();
        let may = joined.typed.is_none_or(|before| now.duration_since(before) >= interval);
        if may {
            joined.typed = Some(now);
        }
        may
    }

    /// So many are about to be joined, which is all that most sessions ever are in.
    pub(super) fn expect_rooms(&self, count: usize) {
        self.rooms.lock().reserve_exact(count);
    }

    /// For [`Room`] alone, which holds the other half.
    pub(super) fn join(&self, room: &Arc<Room>) {
        let mut rooms = self.rooms.lock();
        if let Err(index) = place(&rooms, room.id) {
            rooms.insert(index, Joined { room: Arc::clone(room), typed: None });
        }
    }

    /// For [`Room`] alone.
    pub(super) fn part(&self, channel: ChannelId) {
        let mut rooms = self.rooms.lock();
        if let Ok(index) = place(&rooms, channel) {
            rooms.remove(index);
        }
    }

    /// The removal of its user from a channel is stored.
    pub(super) fn lose(&self, channel: ChannelId) {
        if let Some(connecting) = &mut *self.connecting.lock() {
            connecting.lost.insert(channel);
        }
    }

    /// Its user was added to a channel (again).
    pub(super) fn regain(&self, channel: ChannelId) {
        if let Some(connecting) = &mut *self.connecting.lock() {
            connecting.lost.remove(&channel);
        }
    }

    pub(super) fn has_lost(&self, channel: ChannelId) -> bool {
        self.connecting.lock().as_ref().is_some_and(|connecting| connecting.lost.contains(&channel))
    }

    /// Whether it is still connecting; then the channel is remembered for [`Session::next_joined`].
    pub(super) fn joins_later(&self, info: &ChannelInfo, coming: Coming) -> bool {
        let mut connecting = self.connecting.lock();
        let Some(connecting) = connecting.as_mut() else { return false };
        connecting.joined.push((info.clone(), coming));
        true
    }

    /// Channels to be joined before it is connected; `None` when there are no more, and it is.
    pub(super) fn next_joined(&self) -> Option<Vec<(ChannelInfo, Coming)>> {
        let mut state = self.connecting.lock();
        let joined = state.as_mut().map(|connecting| std::mem::take(&mut connecting.joined));
        let joined = joined.filter(|joined| !joined.is_empty());
        if joined.is_none() {
            *state = None;
        }
        joined
    }

    /// The end: leaves all rooms.
    pub(super) fn leave_all(self: &Arc<Self>) {
        let rooms = std::mem::take(&mut *self.rooms.lock());
        for joined in rooms {
            joined.room.leave(self);
        }
    }
}

/// Where a channel's room is, or would be.
fn place(rooms: &[Joined], channel: ChannelId) -> Result<usize, usize> {
    rooms.binary_search_by_key(&channel, |joined| joined.room.id)
}

/// A request that is answered later.
pub struct InFlight(Arc<Session>);

impl InFlight {
    /// Its end: who is answered may ask for the next thing at once.
    pub fn end(self) -> Arc<Session> {
        Arc::clone(&self.0)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
