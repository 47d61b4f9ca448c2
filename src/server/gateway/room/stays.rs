//! Who is in a room, and since when.
//!
//! A stay is known by a seq at which its user was a member. So news of it may come in any order (the entry that added
//! somebody, the event that says it is stored, a list that was read meanwhile): what removed somebody before that seq
//! does not end the stay.

use std::sync::Arc;

use super::{Inner, Member, Room};
use crate::message::{Change, ChannelId, Message, Seq, Username};
use crate::server::gateway::session::{Coming, Session};
use crate::wire::Frame;

impl Room {
    /// Adds a session whose user was a member when the log ended at `since`, from the present end on. Returns that end;
    /// `None` if the user is just being removed.
    pub fn join(self: &Arc<Self>, session: &Arc<Session>, since: Seq) -> Option<Seq> {
        let mut inner = self.inner.lock();
        if inner.is_removed_after(session.username(), since) || session.has_lost(self.id) {
            return None;
        }
        inner.add(session, self, since);
        Some(inner.last_seq)
    }

    /// Adds a session whose user was added: hands it `created`, then what came since, or tells it of a gap if that is
    /// no longer at hand here. Who was removed again meanwhile is handed that, and not added. `false`, and nothing is
    /// handed, if it is in the room already.
    ///
    /// It is in the room before it can know of it: what it asks for next must find it there.
    pub fn join_after(self: &Arc<Self>, session: &Arc<Session>, coming: Coming, created: &Frame) -> bool {
        let Coming { after, since } = coming;
        let mut inner = self.inner.lock();
        if inner.confirm(session, since) {
            return false;
        }
        if inner.is_gone_again(session, since) {
            session.push(created);
            inner.hand_stay(session, after, since);
            return true;
        }
        let user = session.username();
        if inner.unsettled.get(user).is_some_and(|change| change.seq <= since) {
            inner.unsettled.remove(user);
        }
        inner.add(session, self, since);
        session.push(created);
        if let Err(last_seq) = inner.hand_ring(session, after) {
            session.push(&Frame::Gap { channel: self.id, after, last_seq });
        }
        true
    }

    /// Takes note that the user of a session is a member since `since`, whatever comes of earlier entries. `false` if
    /// the session isn't in the room.
    pub fn confirm(&self, session: &Session, since: Seq) -> bool {
        self.inner.lock().confirm(session, since)
    }

    /// Since when its user is a member, as far as is known; `None` if it isn't in the room.
    pub fn stay(&self, session: &Session) -> Option<Seq> {
        self.inner.lock().member(session).map(|member| member.since)
    }

    /// Takes a session out, unless its user was added again since that stay began.
    pub fn end_stay(&self, session: &Session, since: Seq) {
        let mut inner = self.hold();
        if inner.member(session).is_some_and(|member| member.since == since) {
            session.part(self.id);
            Arc::make_mut(&mut inner.members).retain(|member| member.session.id != session.id);
        }
    }

    /// Everybody in it.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.inner.lock().members.iter().map(|member| Arc::clone(&member.session)).collect()
    }

    /// The session ends.
    pub fn leave(&self, session: &Arc<Session>) {
        let mut inner = self.inner.lock();
        session.part(self.id);
        Arc::make_mut(&mut inner.members).retain(|member| !Arc::ptr_eq(&member.session, session));
    }

    /// The membership change at `seq` is stored: lists read from now on know of it.
    pub fn settle(&self, seq: Seq, added: &[Username], removed: &[Username]) {
        let mut inner = self.hold();
        let is_later =
            |inner: &Inner, user: &Username| inner.unsettled.get(user).is_some_and(|change| change.seq > seq);
        // Who was added again since then stays.
        let gone: Vec<Username> = removed.iter().filter(|user| !is_later(&inner, user)).cloned().collect();
        inner.remove_users(&gone, self.id, seq);
        for user in added.iter().chain(removed) {
            if !is_later(&inner, user) {
                inner.unsettled.remove(user);
            }
        }
    }

    /// Those who came or went by an entry up to `head` of whom nobody has said yet that it is stored.
    pub fn unsettled(&self, head: Seq) -> Vec<Username> {
        let inner = self.inner.lock();
        let until = inner.unsettled.iter().filter(|(_, change)| change.seq <= head);
        until.map(|(user, _)| user.clone()).collect()
    }
}

impl Inner {
    fn add(&mut self, session: &Arc<Session>, room: &Arc<Room>, since: Seq) {
        session.join(room);
        if !self.confirm(session, since) {
            let (session, spoken) = (Arc::clone(session), self.spoken);
            let member = Member { session, paused: false, since, joined_at: spoken, live_from: spoken };
            Arc::make_mut(&mut self.members).push(member);
        }
    }

    fn confirm(&mut self, session: &Session, since: Seq) -> bool {
        let Some(member) = self.member_mut(session) else { return false };
        member.since = member.since.max(since);
        true
    }

    fn is_removed_after(&self, user: &Username, since: Seq) -> bool {
        self.unsettled.get(user).is_some_and(|change| !change.is_member && change.seq > since)
    }

    /// The entry that removes the session's user again, if the ring holds it.
    fn removal_after(&self, session: &Session, since: Seq) -> Option<Seq> {
        let user = session.username();
        let removes = |message: &Message| matches!(Change::of(message), Some(Change::Removed { members }) if members.contains(user));
        let mut later = self.held(since, self.last_seq).map(|(message, _)| message);
        later.find(|message| removes(message)).map(|removal| removal.seq)
    }

    /// Whether the session's user was removed again since `since`, before its coming was stored.
    fn is_gone_again(&self, session: &Session, since: Seq) -> bool {
        self.removal_after(session, since).is_some() || self.is_removed_after(session.username(), since)
    }

    /// Hands who is gone again the entries behind `after` up to the one that removes it, and nothing after that.
    fn hand_stay(&self, session: &Session, after: Seq, since: Seq) {
        let reaches_back = self.ring.front().is_some_and(|(first, _)| first.seq <= after + 1);
        let Some(removal) = self.removal_after(session, since).filter(|_| reaches_back) else { return };
        for (_, frame) in self.held(after, removal) {
            session.push_shared(frame);
        }
    }

    /// Whom the entry at `seq` removes. Who is known to be a member after it was added again.
    pub(super) fn remove_users(&mut self, users: &[Username], room: ChannelId, seq: Seq) {
        if users.is_empty() {
            return;
        }
        Arc::make_mut(&mut self.members).retain(|Member { session, since, .. }| {
            let stays = *since >= seq || !users.contains(session.username());
            if !stays {
                session.part(room);
            }
            stays
        });
    }
}
