mod handing;
mod stays;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use self::handing::{Audience, MAX_SAID, Said};
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
    /// Held while sessions are handed frames; taken before `inner`.
    handing: Mutex<()>,
    ring_frames: usize,
    /// Held by whoever compares it with the store: many who ask for it at once share a read.
    pub(super) comparing: tokio::sync::Mutex<()>,
}

struct Inner {
    /// Delivered up to here.
    last_seq: Seq,
    /// The newest frames, dense, ending at `last_seq`.
    ring: VecDeque<(Arc<Message>, Arc<Encoded>)>,
    /// Shared with a round that is under way.
    members: Arc<Vec<Member>>,
    /// What is to be handed to them.
    said: Vec<Said>,
    /// The number of what is said next.
    spoken: u64,
    /// What has a lower number has been handed over, or is just being so.
    taken: u64,
    /// A task is about to hand it over.
    is_round_due: bool,
    handed_at: Instant,
    /// Each user's last change that is delivered but perhaps not stored yet. Who is removed by it must not come back
    /// by an old list, nor by an addition before it.
    unsettled: HashMap<Username, Unsettled>,
    /// Set while entries between `last_seq` and the first of these are fetched.
    ahead: Option<Ahead>,
    /// What was told: everything up to here is delivered to all, and read by all.
    delivered_by_all: Seq,
    read_by_all: Seq,
    /// The log begins behind this, as far as is known.
    purged_seq: Seq,
    /// The senders of what the ring holds up to here have been told that it is stored.
    told: Seq,
    /// What is said of the channel in lists, as of its `last_seq`; `None` when it may be out of date.
    info: Option<ChannelInfo>,
    last_at: Millis,
    used: Instant,
    /// Everything that was stored at this moment is delivered.
    compared: Option<Instant>,
    /// It began at a stored head, and what was said of newer entries before that may have found no room.
    is_unsure: bool,
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

#[derive(Clone)]
struct Member {
    session: Arc<Session>,
    /// It is being sent what it missed: new messages would overtake that.
    paused: bool,
    /// Its user was in the channel when it ended here: only a later entry can remove it.
    since: Seq,
    /// It is to have what is said from this number on; of the log's entries, from the other.
    joined_at: u64,
    live_from: u64,
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
            members: Arc::default(),
            said: Vec::new(),
            spoken: 0,
            taken: 0,
            is_round_due: false,
            handed_at: Instant::now(),
            unsettled: HashMap::new(),
            ahead: None,
            delivered_by_all: 0,
            read_by_all: 0,
            purged_seq: 0,
            told: 0,
            info: None,
            last_at: Millis(i64::MIN),
            used: Instant::now(),
            compared: None,
            is_unsure: false,
        };
        Self {
            id,
            inner: Mutex::new(inner),
            handing: Mutex::default(),
            ring_frames,
            comparing: tokio::sync::Mutex::default(),
        }
    }

    /// One that begins at a stored head while others were forgotten lately.
    pub fn unsure(self) -> Self {
        self.inner.lock().is_unsure = true;
        self
    }

    /// A message from its owner. To be called within the runtime.
    pub fn deliver(self: &Arc<Self>, message: Arc<Message>) -> Delivered {
        // It may change who is in the room.
        if message.kind == Kind::System {
            return self.hold().deliver(message, self);
        }
        let mut inner = self.inner.lock();
        let delivered = inner.deliver(message, self);
        self.hand_over_soon(inner);
        delivered
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

    /// Everything up to `seq` is gone from the log: says so, unless it is known, and forgets it. What of it comes by
    /// still is taken note of, and shown to nobody.
    pub fn purge(&self, seq: Seq) {
        let mut inner = self.hold();
        if seq <= inner.purged_seq {
            return;
        }
        inner.purged_seq = seq;
        let gone = inner.ring.partition_point(|(message, _)| message.seq <= seq);
        inner.ring.drain(..gone);
        inner.say(Arc::new(Encoded::new(Frame::Purged { channel: self.id, seq })), Audience::All);
    }

    /// The log begins behind this, as far as is known.
    pub fn purged_seq(&self) -> Seq {
        self.inner.lock().purged_seq
    }

    /// Takes note of what is said of the channel in lists, unless something newer is known.
    pub fn learn(&self, info: &ChannelInfo, last_at: Option<Millis>) {
        if info.purged_seq > self.purged_seq() {
            self.purge(info.purged_seq);
        }
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
        let info = ChannelInfo { last_seq: inner.last_seq, purged_seq: inner.purged_seq, ..inner.info.clone()? };
        let Inner { last_at, delivered_by_all, read_by_all, .. } = *inner;
        Some(KnownChannel { info, last_at, delivered_by_all, read_by_all })
    }

    /// Whether it has all that was stored at that moment, as far as is known.
    pub fn was_compared_after(&self, moment: Instant) -> bool {
        self.inner.lock().compared.is_some_and(|compared| compared > moment)
    }

    /// Takes note that it has all that was stored at that moment.
    pub fn is_compared(&self, moment: Instant) {
        let mut inner = self.inner.lock();
        inner.compared = inner.compared.max(Some(moment));
        inner.is_unsure = false;
    }

    /// Whether it has all up to `head`, which was read after that moment.
    pub fn reaches(&self, head: Seq, moment: Instant) -> bool {
        let mut inner = self.inner.lock();
        let reaches = head <= inner.last_seq && !inner.is_unsure;
        if reaches {
            inner.compared = inner.compared.max(Some(moment));
        }
        reaches
    }

    /// Stored entries behind the room's end. Returns what is still missing of what it knows of.
    pub fn fill(&self, fetched: Vec<Message>) -> Option<(Seq, Seq)> {
        let mut inner = self.hold();
        for message in fetched {
            if message.seq == inner.last_seq + 1 {
                inner.hand_out_held(Arc::new(message), self);
            }
        }
        inner.catch_up(self)
    }

    /// Gives the missing entries behind `after` up: says so, and goes on behind them. Returns the next hole, if there is one.
    pub fn skip(&self, after: Seq) -> Option<(Seq, Seq)> {
        let mut inner = self.hold();
        // They came after all.
        if inner.last_seq != after {
            return inner.hole();
        }
        inner.skip(self)
    }

    /// Goes on behind what is missing if nobody is here to miss it: who comes begins at the present end.
    pub fn skip_for_nobody(&self) -> bool {
        let mut inner = self.hold();
        if !inner.members.is_empty() {
            return false;
        }
        if inner.ahead.is_some() {
            // What is left out may have changed it.
            inner.info = None;
            while inner.skip(self).is_some() {}
        }
        true
    }

    /// Stops new messages for a session that is going to be sent older ones. Returns the present end; `None` if it
    /// isn't in the room.
    pub fn pause(&self, session: &Session) -> Option<Seq> {
        let mut inner = self.inner.lock();
        if inner.member(session).is_none_or(|member| !inner.is_in_round(member)) {
            return inner.pause(session);
        }
        drop(inner);
        self.hold().pause(session)
    }

    /// Lets new messages through again for a session that has everything up to `after`.
    pub fn unpause_after(&self, session: &Arc<Session>, after: Seq) -> Unpaused {
        let mut inner = self.inner.lock();
        if inner.member(session).is_none() {
            return Unpaused::Gone;
        }
        if let Err(last) = inner.hand_ring(session, after) {
            return Unpaused::Behind(last);
        }
        let spoken = inner.spoken;
        if let Some(member) = inner.member_mut(session) {
            (member.paused, member.live_from) = (false, spoken);
        }
        Unpaused::Live(inner.last_seq)
    }

    /// A frame that is no log entry, to all sessions but one.
    pub fn broadcast(self: &Arc<Self>, frame: Arc<Encoded>, except: Option<&Session>) {
        let mut inner = self.inner.lock();
        inner.say(frame, except.map_or(Audience::All, |session| Audience::AllBut(session.id)));
        self.hand_over_soon(inner);
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
        inner.held(after, last).map(|(message, _)| Arc::clone(message)).collect()
    }

    /// Messages up to `head`, which are stored, whose senders may not have been told so; not those of an earlier call.
    pub fn take_untold(&self, head: Seq) -> Vec<Arc<Message>> {
        let mut inner = self.inner.lock();
        let told = inner.told;
        inner.told = told.max(head.min(inner.last_seq));
        let untold = inner.held(told, head).map(|(message, _)| message);
        // Changes were no sends: nobody waits to be told.
        untold.filter(|message| message.kind != Kind::System).cloned().collect()
    }

    /// When it was last of use, unless somebody is in it or something is under way.
    pub fn idle_since(&self) -> Option<Instant> {
        let inner = self.inner.lock();
        let idle = inner.members.is_empty() && inner.ahead.is_none() && inner.unsettled.is_empty();
        idle.then_some(inner.used)
    }
}

impl Inner {
    fn member(&self, session: &Session) -> Option<&Member> {
        self.members.iter().find(|member| member.session.id == session.id)
    }

    /// All members are copied if a round is under way.
    fn member_mut(&mut self, session: &Session) -> Option<&mut Member> {
        let index = self.members.iter().position(|member| member.session.id == session.id)?;
        Arc::make_mut(&mut self.members).get_mut(index)
    }

    /// See [`Room::pause`].
    fn pause(&mut self, session: &Session) -> Option<Seq> {
        self.member_mut(session)?.paused = true;
        Some(self.last_seq)
    }

    /// See [`Room::deliver`].
    fn deliver(&mut self, message: Arc<Message>, room: &Room) -> Delivered {
        self.used = Instant::now();
        if message.seq <= self.last_seq {
            return Delivered::Again;
        }
        if let Some(ahead) = &mut self.ahead {
            ahead.last = ahead.last.max(message.seq);
            if ahead.waiting.len() < MAX_AHEAD {
                ahead.waiting.push_back(message);
            }
            return Delivered::Waits;
        }
        if message.seq > self.last_seq + 1 {
            let missing = Delivered::Missing { after: self.last_seq, before: message.seq };
            self.ahead = Some(Ahead { last: message.seq, waiting: VecDeque::from([message]) });
            return missing;
        }
        Delivered::To(self.hand_out(message, room))
    }

    /// What the ring holds above `after` and up to `last`, ascending.
    fn held(&self, after: Seq, last: Seq) -> impl Iterator<Item = &(Arc<Message>, Arc<Encoded>)> {
        let first = self.ring.front().map_or(0, |(message, _)| message.seq);
        // Dense: an entry's place follows from its seq.
        let place = |seq: Seq| (seq.saturating_add(1).saturating_sub(first) as usize).min(self.ring.len());
        let (begin, end) = (place(after), place(last));
        self.ring.range(begin.min(end)..end)
    }

    /// Everything after `after`; `Err` with the present end, and nothing handed, if some of it is not in the ring or
    /// it is too much for the outbox: a reader must not count as slow for what it is handed in one piece.
    fn hand_ring(&self, session: &Session, after: Seq) -> Result<(), Seq> {
        let first_held = self.ring.front().map_or(self.last_seq + 1, |(message, _)| message.seq);
        if after < self.last_seq && after + 1 < first_held {
            return Err(self.last_seq);
        }
        let newer = self.held(after, self.last_seq);
        let frames: Vec<_> = newer.map(|(_, frame)| frame.encoded(session.encoding).clone()).collect();
        if !session.outbox.fits(&frames) {
            return Err(self.last_seq);
        }
        session.outbox.push_all(&frames);
        Ok(())
    }

    /// How many sessions it goes to.
    fn hand_out(&mut self, message: Arc<Message>, room: &Room) -> usize {
        let frame = Arc::new(Encoded::new(Frame::Message(Arc::clone(&message))));
        let is_purged = message.seq <= self.purged_seq;
        let mut reached = 0;
        if !is_purged {
            reached = self.members.iter().filter(|member| !member.paused).count();
            self.say(Arc::clone(&frame), Audience::Live);
        }
        self.last_seq = message.seq;
        self.last_at = self.last_at.max(message.at);
        match Change::of(&message) {
            // The removed see the entry that removes them, and nothing after it (promise P11).
            Some(Change::Removed { members }) => {
                self.hand_over();
                self.remove_users(&members, room.id, message.seq);
                let change = Unsettled { seq: message.seq, is_member: false };
                self.unsettled.extend(members.into_iter().map(|user| (user, change)));
            }
            Some(Change::Added { members }) => {
                let change = Unsettled { seq: message.seq, is_member: true };
                self.unsettled.extend(members.into_iter().map(|user| (user, change)));
            }
            _ => {}
        }
        if !is_purged {
            if self.ring.len() >= room.ring_frames {
                self.ring.pop_front();
            }
            self.ring.push_back((message, frame));
        }
        reached
    }

    /// For who holds `handing`, and may have many: each outbox is given some at a time.
    fn hand_out_held(&mut self, message: Arc<Message>, room: &Room) {
        self.hand_out(message, room);
        if self.said.len() >= MAX_SAID {
            self.hand_over();
        }
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
            self.hand_out_held(message, room);
        }
        // What found no place among those that wait is fetched, too.
        if ahead.last > self.last_seq {
            let hole = (self.last_seq, ahead.last + 1);
            self.ahead = Some(ahead);
            return Some(hole);
        }
        None
    }

    /// What is missing now.
    fn hole(&self) -> Option<(Seq, Seq)> {
        let ahead = self.ahead.as_ref()?;
        Some((self.last_seq, ahead.waiting.front().map_or(ahead.last + 1, |message| message.seq)))
    }

    /// See [`Room::skip`].
    fn skip(&mut self, room: &Room) -> Option<(Seq, Seq)> {
        let (after, next) = self.hole()?;
        let gap = Encoded::new(Frame::Gap { channel: room.id, after, last_seq: next - 1 });
        self.say(Arc::new(gap), Audience::All);
        self.ring.clear();
        self.last_seq = next - 1;
        self.catch_up(room)
    }
}

#[cfg(test)]
mod tests;
