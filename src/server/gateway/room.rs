use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::encoded::Encoded;
use super::session::Session;
use crate::message::{Change, ChannelId, Kind, Message, Millis, Seq, Username};
use crate::server::store::KnownChannel;
use crate::wire::Frame;
use crate::wire::frame::ChannelInfo;

/// Messages that wait while earlier ones are fetched, at most; beyond it the clients are told of a gap.
const MAX_AHEAD: usize = 4096;

/// A channel as this gateway sees it: how far it was delivered, its newest frames, and the local members' sessions.
pub struct Room {
    pub id: ChannelId,
    inner: Mutex<Inner>,
    ring_frames: usize,
}

struct Inner {
    /// Delivered up to here.
    last_seq: Seq,
    /// The newest frames, dense, ending at `last_seq`.
    ring: VecDeque<(Arc<Message>, Arc<Encoded>)>,
    members: Vec<Member>,
    /// Each user's last change that is delivered but perhaps not stored yet. Who is removed by it must not come back
    /// by an old list, nor by an addition before it.
    unsettled: HashMap<Username, Unsettled>,
    /// Set while entries between `last_seq` and the first of these are fetched.
    ahead: Option<Ahead>,
    /// What was told: everything up to here is delivered to all, and read by all.
    delivered_by_all: Seq,
    read_by_all: Seq,
    /// The senders of what the ring holds up to here have been told that it is stored.
    told: Seq,
    /// What is said of the channel in lists, as of its `last_seq`; `None` when it may be out of date.
    info: Option<ChannelInfo>,
    last_at: Millis,
    used: Instant,
}

#[derive(Clone, Copy)]
struct Unsettled {
    seq: Seq,
    is_member: bool,
}

/// Messages that wait for earlier ones.
struct Ahead {
    waiting: VecDeque<Arc<Message>>,
    /// The newest that was seen, whether or not there was place for it.
    last: Seq,
}

struct Member {
    session: Arc<Session>,
    /// It is being sent what it missed: new messages would overtake that.
    paused: bool,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivered {
    /// Handed to this many sessions.
    To(usize),
    /// It was delivered before.
    Again,
    /// It waits for earlier ones, which are being fetched.
    Waits,
    /// It waits for earlier ones: whoever gets this answer must fetch them.
    Missing { after: Seq, before: Seq },
}

/// How a session came back to the present.
#[derive(Debug, PartialEq, Eq)]
pub enum Unpaused {
    /// It has, or will be handed, everything up to here, and all that follows.
    Live(Seq),
    /// It is still paused: more must be sent from the store first. The present end.
    Behind(Seq),
    /// It is no longer in the room.
    Gone,
}

impl Room {
    pub fn new(id: ChannelId, last_seq: Seq, ring_frames: usize) -> Self {
        let inner = Inner {
            last_seq,
            ring: VecDeque::new(),
            members: Vec::new(),
            unsettled: HashMap::new(),
            ahead: None,
            delivered_by_all: 0,
            read_by_all: 0,
            told: 0,
            info: None,
            last_at: Millis(i64::MIN),
            used: Instant::now(),
        };
        Self { id, inner: Mutex::new(inner), ring_frames }
    }

    /// A message from its owner.
    pub fn deliver(&self, message: Arc<Message>) -> Delivered {
        let mut inner = self.inner.lock();
        inner.used = Instant::now();
        if message.seq <= inner.last_seq {
            return Delivered::Again;
        }
        if let Some(ahead) = &mut inner.ahead {
            ahead.last = ahead.last.max(message.seq);
            if ahead.waiting.len() < MAX_AHEAD {
                ahead.waiting.push_back(message);
            }
            return Delivered::Waits;
        }
        if message.seq > inner.last_seq + 1 {
            let missing = Delivered::Missing { after: inner.last_seq, before: message.seq };
            inner.ahead = Some(Ahead { last: message.seq, waiting: VecDeque::from([message]) });
            return missing;
        }
        Delivered::To(inner.hand_out(message, self))
    }

    /// Takes note that the log reaches to `head`, by other news than the entries themselves. Returns the hole that
    /// whoever gets this answer must fill; `None` if there is none, or it is being filled already.
    pub fn expect(&self, head: Seq) -> Option<(Seq, Seq)> {
        let mut inner = self.inner.lock();
        if head <= inner.last_seq {
            return None;
        }
        if let Some(ahead) = &mut inner.ahead {
            ahead.last = ahead.last.max(head);
            return None;
        }
        inner.ahead = Some(Ahead { waiting: VecDeque::new(), last: head });
        Some((inner.last_seq, head + 1))
    }

    /// Takes note of what is said of the channel in lists, unless something newer is known.
    pub fn learn(&self, info: &ChannelInfo, last_at: Option<Millis>) {
        let mut inner = self.inner.lock();
        if inner.info.as_ref().is_none_or(|known| known.last_seq <= info.last_seq) {
            inner.info = Some(info.clone());
        }
        inner.last_at = inner.last_at.max(last_at.unwrap_or(inner.last_at));
    }

    /// What is known of it may be out of date.
    pub fn doubt(&self) {
        self.inner.lock().info = None;
    }

    /// What is said of it in lists, if that is known and nothing is under way.
    pub fn known(&self) -> Option<KnownChannel> {
        let inner = self.inner.lock();
        if inner.ahead.is_some() || !inner.unsettled.is_empty() || inner.last_at.0 == i64::MIN {
            return None;
        }
        let info = ChannelInfo { last_seq: inner.last_seq, ..inner.info.clone()? };
        let Inner { last_at, delivered_by_all, read_by_all, .. } = *inner;
        Some(KnownChannel { info, last_at, delivered_by_all, read_by_all })
    }

    /// Entries fetched to fill the hole. Returns what is still missing.
    pub fn fill(&self, fetched: Vec<Message>) -> Option<(Seq, Seq)> {
        let mut inner = self.inner.lock();
        for message in fetched {
            if message.seq == inner.last_seq + 1 {
                inner.hand_out(Arc::new(message), self);
            }
        }
        inner.catch_up(self)
    }

    /// Gives the missing entries up: says so, and goes on behind them. Returns the next hole, if there is one.
    pub fn skip(&self) -> Option<(Seq, Seq)> {
        let mut inner = self.inner.lock();
        let ahead = inner.ahead.as_ref()?;
        let next = ahead.waiting.front().map_or(ahead.last + 1, |message| message.seq);
        let gap = Encoded::new(Frame::Gap { channel: self.id, after: inner.last_seq, last_seq: next - 1 });
        inner.broadcast(&gap, None);
        inner.ring.clear();
        inner.last_seq = next - 1;
        inner.catch_up(self)
    }

    /// Adds a session, from the present end on. Returns that end; `None` if its user is just being removed.
    pub fn join(self: &Arc<Self>, session: &Arc<Session>) -> Option<Seq> {
        let mut inner = self.inner.lock();
        let removed = inner.unsettled.get(session.username()).is_some_and(|change| !change.is_member);
        if removed || session.has_lost(self.id) {
            return None;
        }
        inner.add(session, self);
        Some(inner.last_seq)
    }

    /// Adds a session whose user was added by the entry behind `after`: hands it what came since. `Err` with the present end if
    /// that is no longer at hand here; then the session is not added. Nor is one whose user is just being removed.
    pub fn join_after(self: &Arc<Self>, session: &Arc<Session>, after: Seq) -> Result<Seq, Seq> {
        let mut inner = self.inner.lock();
        if inner.hand_stay(session, after) {
            return Ok(inner.last_seq);
        }
        let user = session.username();
        if inner.unsettled.get(user).is_some_and(|change| change.seq <= after + 1) {
            inner.unsettled.remove(user);
        }
        inner.hand_ring(session, after)?;
        inner.add(session, self);
        Ok(inner.last_seq)
    }

    /// Stops new messages for a session that is going to be sent older ones. Returns the present end; `None` if it
    /// isn't in the room.
    pub fn pause(&self, session: &Session) -> Option<Seq> {
        let mut inner = self.inner.lock();
        inner.member(session)?.paused = true;
        Some(inner.last_seq)
    }

    /// Lets new messages through again for a session that has everything up to `after`.
    pub fn unpause_after(&self, session: &Arc<Session>, after: Seq) -> Unpaused {
        let mut inner = self.inner.lock();
        if inner.member(session).is_none() {
            return Unpaused::Gone;
        }
        match inner.hand_ring(session, after) {
            Err(last) => Unpaused::Behind(last),
            Ok(()) => {
                if let Some(member) = inner.member(session) {
                    member.paused = false;
                }
                Unpaused::Live(inner.last_seq)
            }
        }
    }

    /// Whether the session was in it.
    pub fn leave(&self, session: &Arc<Session>) -> bool {
        session.part(self.id);
        let mut inner = self.inner.lock();
        let before = inner.members.len();
        inner.members.retain(|member| !Arc::ptr_eq(&member.session, session));
        before != inner.members.len()
    }

    /// The membership change at `seq` is stored: lists read from now on know of it.
    pub fn settle(&self, seq: Seq, added: &[Username], removed: &[Username]) {
        let mut inner = self.inner.lock();
        let is_later =
            |inner: &Inner, user: &Username| inner.unsettled.get(user).is_some_and(|change| change.seq > seq);
        // Who was added again since then stays.
        let gone: Vec<Username> = removed.iter().filter(|user| !is_later(&inner, user)).cloned().collect();
        inner.remove_users(&gone, self.id);
        for user in added.iter().chain(removed) {
            if !is_later(&inner, user) {
                inner.unsettled.remove(user);
            }
        }
    }

    /// A frame that is no log entry, to all sessions but one.
    pub fn broadcast(&self, frame: &Encoded, except: Option<&Session>) -> usize {
        self.inner.lock().broadcast(frame, except)
    }

    /// Takes note of watermarks; returns those that are news. What an owner that was overtaken says late is none
    /// (promise P9).
    pub fn raise(&self, delivered: Option<Seq>, read: Option<Seq>) -> (Option<Seq>, Option<Seq>) {
        let mut inner = self.inner.lock();
        let Inner { delivered_by_all, read_by_all, .. } = &mut *inner;
        let raise = |known: &mut Seq, said: Option<Seq>| {
            let risen = said.filter(|said| said > known)?;
            *known = risen;
            Some(risen)
        };
        (raise(delivered_by_all, delivered), raise(read_by_all, read))
    }

    /// What was last told: delivered to all, read by all up to here.
    pub fn watermarks(&self) -> (Seq, Seq) {
        let inner = self.inner.lock();
        (inner.delivered_by_all, inner.read_by_all)
    }

    pub fn last_seq(&self) -> Seq {
        self.inner.lock().last_seq
    }

    /// The newest messages with a seq above `after` and up to `last`, as far as they are held here, ascending.
    pub fn newest(&self, after: Seq, last: Seq) -> Vec<Arc<Message>> {
        let inner = self.inner.lock();
        let held = inner.ring.iter().map(|(message, _)| message);
        held.filter(|message| message.seq > after && message.seq <= last).cloned().collect()
    }

    /// Messages up to `head`, which are stored, whose senders may not have been told so; not those of an earlier call.
    pub fn take_untold(&self, head: Seq) -> Vec<Arc<Message>> {
        let mut inner = self.inner.lock();
        let told = inner.told;
        inner.told = told.max(head.min(inner.last_seq));
        let held = inner.ring.iter().map(|(message, _)| message);
        // Changes were no sends: nobody waits to be told.
        let untold = held.filter(|message| message.seq > told && message.seq <= head && message.kind != Kind::System);
        untold.cloned().collect()
    }

    /// Those who came or went by an entry up to `head` of whom nobody has said yet that it is stored.
    pub fn unsettled(&self, head: Seq) -> Vec<Username> {
        let inner = self.inner.lock();
        let until = inner.unsettled.iter().filter(|(_, change)| change.seq <= head);
        until.map(|(user, _)| user.clone()).collect()
    }

    /// When it was last of use, unless somebody is in it or something is under way.
    pub fn idle_since(&self) -> Option<Instant> {
        let inner = self.inner.lock();
        let idle = inner.members.is_empty() && inner.ahead.is_none() && inner.unsettled.is_empty();
        idle.then_some(inner.used)
    }
}

impl Inner {
    fn add(&mut self, session: &Arc<Session>, room: &Arc<Room>) {
        session.join(room);
        if self.member(session).is_none() {
            self.members.push(Member { session: Arc::clone(session), paused: false });
        }
    }

    fn member(&mut self, session: &Session) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.session.id == session.id)
    }

    /// Everything after `after`; `Err` with the present end, and nothing handed, if some of it is not in the ring or
    /// it is too much for the outbox: a reader must not count as slow for what it is handed in one piece.
    fn hand_ring(&self, session: &Session, after: Seq) -> Result<(), Seq> {
        let first_held = self.ring.front().map_or(self.last_seq + 1, |(message, _)| message.seq);
        if after < self.last_seq && after + 1 < first_held {
            return Err(self.last_seq);
        }
        let newer = self.ring.iter().filter(|(message, _)| message.seq > after);
        let frames: Vec<_> = newer.map(|(_, frame)| frame.encoded(session.encoding)).collect();
        if !session.outbox.fits(&frames) {
            return Err(self.last_seq);
        }
        for frame in frames {
            session.outbox.push(frame);
        }
        Ok(())
    }

    /// Whether the session's user was removed again since `after`, before its coming was stored. Then it is handed
    /// the entries up to the one that removes it, and nothing after that.
    fn hand_stay(&self, session: &Session, after: Seq) -> bool {
        let user = session.username();
        let since = || self.ring.iter().filter(|(message, _)| message.seq > after);
        let removes = |message: &Message| matches!(Change::of(message), Some(Change::Removed { members }) if members.contains(user));
        let Some((removal, _)) = since().find(|(message, _)| removes(message)) else {
            return self.unsettled.get(user).is_some_and(|change| !change.is_member && change.seq > after);
        };
        let reaches_back = self.ring.front().is_some_and(|(first, _)| first.seq <= after + 1);
        for (_, frame) in since().filter(|(message, _)| reaches_back && message.seq <= removal.seq) {
            session.push_shared(frame);
        }
        true
    }

    fn hand_out(&mut self, message: Arc<Message>, room: &Room) -> usize {
        let frame = Arc::new(Encoded::new(Frame::Message(Arc::clone(&message))));
        let mut reached = 0;
        for member in self.members.iter().filter(|member| !member.paused) {
            member.session.push_shared(&frame);
            reached += 1;
        }
        self.last_seq = message.seq;
        self.last_at = self.last_at.max(message.at);
        match Change::of(&message) {
            // The removed see the entry that removes them, and nothing after it (promise P11).
            Some(Change::Removed { members }) => {
                self.remove_users(&members, room.id);
                let change = Unsettled { seq: message.seq, is_member: false };
                self.unsettled.extend(members.into_iter().map(|user| (user, change)));
            }
            Some(Change::Added { members }) => {
                let change = Unsettled { seq: message.seq, is_member: true };
                self.unsettled.extend(members.into_iter().map(|user| (user, change)));
            }
            _ => {}
        }
        if self.ring.len() >= room.ring_frames {
            self.ring.pop_front();
        }
        self.ring.push_back((message, frame));
        reached
    }

    /// Delivers what waited and is next. Returns the hole in front of the rest, if any waits still.
    fn catch_up(&mut self, room: &Room) -> Option<(Seq, Seq)> {
        let mut ahead = self.ahead.take()?;
        while let Some(message) = ahead.waiting.pop_front() {
            if message.seq <= self.last_seq {
                continue;
            }
            if message.seq > self.last_seq + 1 {
                let hole = (self.last_seq, message.seq);
                ahead.waiting.push_front(message);
                self.ahead = Some(ahead);
                return Some(hole);
            }
            self.hand_out(message, room);
        }
        // What found no place among those that wait is fetched, too.
        if ahead.last > self.last_seq {
            let hole = (self.last_seq, ahead.last + 1);
            self.ahead = Some(ahead);
            return Some(hole);
        }
        None
    }

    fn broadcast(&self, frame: &Encoded, except: Option<&Session>) -> usize {
        let mut reached = 0;
        for Member { session, .. } in &self.members {
            if except.is_none_or(|not_this| not_this.id != session.id) {
                session.push_shared(frame);
                reached += 1;
            }
        }
        reached
    }

    fn remove_users(&mut self, users: &[Username], room: ChannelId) {
        if users.is_empty() {
            return;
        }
        self.members.retain(|Member { session, .. }| {
            let stays = !users.contains(session.username());
            if !stays {
                session.part(room);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests;
