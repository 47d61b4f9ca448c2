//! Stage 6: from an event of a worker to the sockets of those concerned.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Gateway;
use super::encoded::Encoded;
use super::room::{Delivered, Room};
use super::session::{Coming, Session};
use crate::message::{Message, Millis, Seq, Username};
use crate::server::events::{Event, EventSink};
use crate::server::queue::Origin;
use crate::wire::frame::{ChannelInfo, Error, MembersChanged, Status};
use crate::wire::{ErrorCode, Frame};

impl EventSink for Gateway {
    fn deliver(&self, event: Event) {
        match event {
            Event::Message(message) => self.deliver_message(message),
            Event::Stored(message) => self.deliver_stored(message),
            Event::Persisted { channel, seq, sender, client_id } => {
                if let Some(room) = self.rooms.get(channel) {
                    observe(&room, "persisted", seq);
                    self.catch_up(&room, seq);
                }
                self.tell(&sender, Frame::Status(Status::Persisted { channel, seq, client_id }));
            }
            Event::Rejected { channel, sender, client_id, code } => {
                count_refusal(code);
                self.tell(&sender, Frame::Status(Status::Rejected { channel, client_id, code }));
            }
            Event::Watermarks { channel, delivered, read } => {
                let Some(room) = self.rooms.get(channel) else { return };
                let (delivered, read) = room.raise(delivered, read);
                for (status, seq) in [("delivered", delivered), ("read", read)] {
                    seq.into_iter().for_each(|seq| observe(&room, status, seq));
                }
                say_watermarks(&room, delivered, read);
            }
            Event::Joined { channel, joined, joined_seq, origin } => {
                self.joined(&channel, &joined, joined_seq, origin.as_ref());
            }
            Event::MembersChanged { channel, seq, added, removed, by, origin } => {
                self.members_changed(&channel, seq, added, removed, by, origin);
            }
            Event::Purged { channel, seq } => {
                if let Some(room) = self.rooms.get(channel) {
                    room.purge(seq);
                }
            }
            Event::Typing { channel, username, session } => {
                let Some(room) = self.rooms.get(channel) else { return };
                let typist = self.sessions.by_id(session);
                room.broadcast(Arc::new(Encoded::new(Frame::Typing { channel, username })), typist.as_deref());
            }
            Event::Refused { origin, code, message } => {
                let Some(session) = self.sessions.by_id(origin.session) else { return };
                let error = Error { reference: origin.reference, code, message, retry: false, retry_after_ms: None };
                self.refuse(&session, error);
            }
        }
    }

    fn missed(&self) {
        tracing::warn!("events may have been missed: all rooms are compared with the store");
        metrics::counter!("aula_events_missed_total").increment(1);
        // Before the repair looks at the sessions: one that connects meanwhile sees this, or is seen by it.
        self.misses.fetch_add(1, Ordering::SeqCst);
        self.repairs.notify_one();
    }
}

impl Gateway {
    /// Its sender hears that it is persisted together with the message itself.
    fn deliver_stored(&self, message: Arc<Message>) {
        let Message { channel, seq, client_id, at, .. } = *message;
        let persisted = Frame::Status(Status::Persisted { channel, seq, client_id });
        self.sessions.of(&message.sender, |session| self.answers.put(session, &persisted));
        metrics::histogram!("aula_status_seconds", "status" => "persisted").record(seconds_since(at));
        self.deliver_message(message);
    }

    fn deliver_message(&self, message: Arc<Message>) {
        let room = self.rooms.enter(message.channel, message.seq - 1);
        let at = message.at;
        match room.deliver(message) {
            Delivered::To(sessions) => {
                metrics::counter!("aula_deliveries_total").increment(sessions as u64);
                metrics::histogram!("aula_status_seconds", "status" => "broadcast").record(seconds_since(at));
            }
            Delivered::Again => metrics::counter!("aula_redeliveries_dropped_total").increment(1),
            Delivered::Waits => {}
            Delivered::Missing { after, before } => self.fill_later(&room, (after, before)),
        }
    }

    fn joined(&self, info: &ChannelInfo, joined: &[Username], joined_seq: Seq, origin: Option<&Origin>) {
        self.joining.stored(info.id, joined);
        if let Some(room) = self.rooms.get(info.id) {
            room.learn(info, None);
        }
        // Who has asked is told last: by then the others are in it, as far as they are here.
        let requester = origin.and_then(|origin| self.sessions.by_id(origin.session));
        let asked = |user: &&Username| requester.as_ref().is_some_and(|requester| requester.username() == *user);
        let others = joined.iter().filter(|user| !asked(user));
        for user in others.chain(joined.iter().filter(asked)) {
            self.sessions.of(user, |session| {
                session.regain(info.id);
                // One that still connects may or may not find the channel in its list.
                let coming = Coming::by(joined_seq);
                if !session.joins_later(info, coming) {
                    self.enter(session, info, coming, reference_for(session, origin));
                }
            });
        }
    }

    /// Brings a session into a channel that its user was added to, if it isn't there.
    pub(super) fn enter(&self, session: &Arc<Session>, info: &ChannelInfo, coming: Coming, reference: Option<u64>) {
        let room = self.rooms.enter(info.id, info.last_seq);
        room.learn(info, None);
        let created = Frame::ChannelCreated { reference, channel: info.clone() };
        // Already in it, and not the one who asks: no news.
        if !room.join_after(session, coming, &created) && reference.is_some() {
            session.push(&created);
        }
    }

    fn members_changed(
        &self,
        info: &ChannelInfo,
        seq: Seq,
        added: Vec<Username>,
        removed: Vec<Username>,
        by: Username,
        origin: Option<Origin>,
    ) {
        let room = self.rooms.enter(info.id, info.last_seq);
        // Marked before the room forgets them: whoever connects by an older list finds the one or the other.
        for user in &removed {
            self.sessions.of(user, |session| session.lose(info.id));
        }
        // What is known of it is said as soon as the change is settled.
        room.learn(info, None);
        room.settle(seq, &added, &removed);
        let requester = origin.as_ref().and_then(|origin| self.sessions.by_id(origin.session));
        let nothing_changed = added.is_empty() && removed.is_empty();
        let mut change = MembersChanged {
            reference: None,
            channel: info.id,
            seq,
            added,
            removed: removed.clone(),
            by,
            member_count: info.member_count,
        };
        if !nothing_changed {
            let frame = Arc::new(Encoded::new(Frame::MembersChanged(change.clone())));
            let is_requester =
                |session: &Session| requester.as_ref().is_some_and(|requester| requester.id == session.id);
            room.broadcast(Arc::clone(&frame), requester.as_deref());
            for user in &removed {
                self.sessions.of(user, |session| {
                    if !is_requester(session) {
                        session.push_shared(&frame);
                    }
                });
            }
        }
        if let (Some(requester), Some(origin)) = (requester, origin) {
            change.reference = origin.reference;
            requester.push(&Frame::MembersChanged(change));
        }
    }

    pub(super) fn tell(&self, user: &Username, frame: Frame) {
        let frame = Encoded::new(frame);
        self.sessions.of(user, |session| session.push_shared(&frame));
    }

    /// Refuses a request, and counts it by its code.
    pub(super) fn refuse(&self, session: &Session, error: Error) {
        count_refusal(error.code);
        session.push(&Frame::Error(error));
    }
}

/// Tells everybody in the room what all members have, as far as that has risen.
pub(super) fn say_watermarks(room: &Arc<Room>, delivered: Option<Seq>, read: Option<Seq>) {
    let channel = room.id;
    let delivered = delivered.map(|seq| Status::Delivered { channel, seq });
    let read = read.map(|seq| Status::Read { channel, seq });
    for status in delivered.into_iter().chain(read) {
        room.broadcast(Arc::new(Encoded::new(Frame::Status(status))), None);
    }
}

/// Counts a refusal for `aula_refused_total`.
pub fn count_refusal(code: ErrorCode) {
    metrics::counter!("aula_refused_total", "reason" => code.as_str()).increment(1);
}

/// How long a message took to a status, if the room still holds it.
fn observe(room: &Room, status: &'static str, seq: Seq) {
    if let Some(message) = room.newest(seq - 1, seq).pop() {
        metrics::histogram!("aula_status_seconds", "status" => status).record(seconds_since(message.at));
    }
}

fn reference_for(session: &Session, origin: Option<&Origin>) -> Option<u64> {
    origin.filter(|origin| origin.session == session.id).and_then(|origin| origin.reference)
}

/// By the wall clock: what a person would see on two watches. A clock that was set back counts as no time at all.
fn seconds_since(at: Millis) -> f64 {
    (Millis::now().0 - at.0).max(0) as f64 / 1000.0
}
