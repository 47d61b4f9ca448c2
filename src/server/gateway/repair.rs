//! After events may have been missed (the connection to the broker was broken, or this gateway stood still): the rooms
//! are compared with the store, and the sessions with their users' memberships, before anybody can rely on them again.
//!
//! Events go on meanwhile; a room that one of them shows to be behind repairs itself. Statuses that were missed are said
//! again as far as the ring reaches back; a sender who knows less repeats its send and is told then.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::fanout::say_watermarks;
use super::room::Room;
use super::session::Coming;
use super::{Closing, Gateway, Session};
use crate::message::{ChannelId, Seq, Username};
use crate::server::store::{Membership, Page};
use crate::server::worker::Backoff;
use crate::wire::Frame;
use crate::wire::frame::Status;

/// Users whose memberships are read at the same time; then, rooms of nobody among them.
const CONCURRENCY: usize = 32;
/// For each of them. One that can't be repaired must not keep the others, nor the next repair, waiting for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// Entries read at once of a channel whose members here may all be gone.
const PAGE: usize = 256;

/// The channels that a repair has been to so far.
type Seen = Mutex<HashSet<ChannelId>>;

impl Gateway {
    /// Repairs whenever events may have been missed. Runs until dropped.
    pub async fn repair_when_asked(self: Arc<Self>) {
        loop {
            self.repairs.notified().await;
            self.repair(PATIENCE).await;
        }
    }

    async fn repair(self: &Arc<Self>, patience: Duration) {
        let began = Instant::now();
        let rooms = self.rooms.doubt();
        let users = self.sessions.users();
        let (count, seen) = (users.len(), Arc::new(Seen::default()));
        let each = users.into_iter().map(|user| {
            let (gateway, seen) = (Arc::clone(self), Arc::clone(&seen));
            async move {
                if timeout(patience, gateway.repair_user(&user, &seen)).await.is_err() {
                    tracing::error!(%user, "a user's sessions can't be repaired: they are sent away, to resume");
                    gateway.sessions.of(&user, give_up);
                }
            }
        });
        stream::iter(each).buffer_unordered(CONCURRENCY).for_each(|()| std::future::ready(())).await;
        let each = rooms.into_iter().map(|room| {
            let (gateway, seen) = (Arc::clone(self), Arc::clone(&seen));
            async move {
                if timeout(patience, gateway.repair_abandoned(&room, &seen)).await.is_err() {
                    tracing::error!(channel = %room.id, "a room can't be repaired: its sessions are sent away, to resume");
                    room.sessions().iter().for_each(give_up);
                }
            }
        });
        stream::iter(each).buffer_unordered(CONCURRENCY).for_each(|()| std::future::ready(())).await;
        let seconds = began.elapsed().as_secs_f64();
        tracing::info!(users = count, seconds, "rooms and sessions are up to date again");
    }

    /// Brings the rooms of a user's channels up to the store's heads, and its sessions into those they are missing.
    async fn repair_user(&self, user: &Username, seen: &Seen) {
        let memberships = self.memberships(user).await;
        let ids: HashSet<ChannelId> = memberships.iter().map(|membership| membership.channel.id).collect();
        for membership in memberships {
            let (info, head) = (&membership.channel, membership.channel.last_seq);
            let room = self.rooms.enter(info.id, head);
            room.learn(info, Some(membership.last_at));
            self.catch_up(&room, head);
            // An entry on the way may send this user away and bring it back.
            self.has_come_to(&room, head).await;
            if seen.lock().insert(info.id) {
                self.repair_statuses(&room, &membership);
            }
            self.settle(&room, head);
            self.sessions.of(user, |session| self.enter_anew(session, &room, &membership));
        }
        let mut left = Vec::new();
        self.sessions.of(user, |session| {
            let rooms = session.rooms().into_iter().filter(|room| !ids.contains(&room.id));
            let stays = rooms.filter_map(|room| room.stay(session).map(|since| (room, since)));
            left.extend(stays.map(|(room, since)| (Arc::clone(session), room, since)));
        });
        for (session, room, since) in left {
            self.end_stay(&session, &room, since).await;
        }
    }

    /// Ends a stay that began with `since` if its user is no longer a member. It is asked after the stay was seen: one
    /// that began after the list was read is no less true. And who is added after it was asked has another stay by
    /// then, or comes in when the event says so.
    async fn end_stay(&self, session: &Session, room: &Arc<Room>, since: Seq) {
        // The log's own entry ends it, if the room has not come so far yet.
        self.read_on(room).await;
        let mut backoff = Backoff::new();
        loop {
            match self.store.role(room.id, session.username()).await {
                Ok(Some(_)) => return,
                Ok(None) => return room.end_stay(session, since),
                Err(error) => tracing::warn!(%error, "a membership can't be compared with the store yet"),
            }
            backoff.pause().await;
        }
    }

    /// Says again what may have been missed: what is stored, and how far everybody has come.
    fn repair_statuses(&self, room: &Arc<Room>, membership: &Membership) {
        let head = membership.channel.last_seq;
        for message in room.take_untold(head) {
            let (channel, seq, client_id) = (message.channel, message.seq, message.client_id);
            self.tell(&message.sender, Frame::Status(Status::Persisted { channel, seq, client_id }));
        }
        let (delivered, read) = room.raise(Some(membership.delivered_by_all), Some(membership.read_by_all));
        say_watermarks(room, delivered, read);
    }

    /// Until nothing up to `head` is missing any more: whoever fills a hole fills it, or gives it up.
    async fn has_come_to(&self, room: &Room, head: Seq) {
        let mut backoff = Backoff::new();
        while room.last_seq() < head {
            backoff.pause().await;
        }
    }

    /// The changes up to `head` are stored, and who should have said so may have been missed.
    fn settle(&self, room: &Room, head: Seq) {
        let mut users = room.unsettled(head);
        // Who is just connecting may do so by a list from before its removal.
        users.retain(|user| {
            let mut is_connecting = false;
            self.sessions.of(user, |session| is_connecting |= session.is_connecting());
            !is_connecting
        });
        room.settle(head, &users, &[]);
    }

    /// Its user was added while nobody told us: from the present end on, as in a welcome.
    fn enter_anew(&self, session: &Arc<Session>, room: &Arc<Room>, membership: &Membership) {
        let head = membership.channel.last_seq;
        if room.confirm(session, head) {
            return;
        }
        let mut channel = membership.channel.clone();
        channel.last_seq = room.last_seq();
        let coming = Coming { after: channel.last_seq, since: head };
        // The list for its welcome may have been read before.
        if session.joins_later(&channel, coming) {
            return;
        }
        room.join_after(session, coming, &Frame::ChannelCreated { reference: None, channel });
    }

    /// Rooms that none of the users read above is in any more: their end is known from the log alone.
    async fn repair_abandoned(&self, room: &Arc<Room>, seen: &Seen) {
        if !seen.lock().contains(&room.id) && room.idle_since().is_none() {
            self.read_on(room).await;
        }
    }

    /// Delivers all that is stored behind the room's end.
    async fn read_on(&self, room: &Arc<Room>) {
        let mut backoff = Backoff::new();
        loop {
            let end = room.last_seq();
            // With the last one that was delivered: whether it is stored is asked, too.
            match self.store.messages(room.id, Page::After(end.saturating_sub(1)), PAGE).await {
                Ok(entries) => {
                    let Some(head) = entries.last().map(|last| last.seq) else { return };
                    self.catch_up(room, head);
                    self.has_come_to(room, head).await;
                    self.settle(room, head);
                    if head <= end {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, channel = %room.id, "a room can't be compared with the store yet");
                    backoff.pause().await;
                }
            }
        }
    }

    /// Tries until it succeeds: half a repair is none.
    async fn memberships(&self, user: &Username) -> Vec<Membership> {
        let mut backoff = Backoff::new();
        loop {
            match self.store.channels_of(user, 0, usize::MAX).await {
                Ok(memberships) => return memberships,
                Err(error) => tracing::warn!(%error, "memberships can't be compared with the store yet"),
            }
            backoff.pause().await;
        }
    }
}

/// It comes back, to another gateway perhaps, and reads everything anew.
fn give_up(session: &Arc<Session>) {
    metrics::counter!("aula_repairs_given_up_total").increment(1);
    session.close(Closing::new(1013, "it can't be brought up to date here: reconnect and resume"));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
