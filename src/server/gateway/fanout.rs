//! Stage 6: from an event of a worker to the sockets of those concerned.

use std::sync::Arc;
use std::time::Duration;

use super::Gateway;
use super::encoded::Encoded;
use super::room::{Delivered, Room};
use super::session::Session;
use crate::message::{Message, Millis, Seq, Username};
use crate::server::events::{Event, EventSink};
use crate::server::queue::Origin;
use crate::server::store::Page;
use crate::wire::frame::{ChannelInfo, Error, MembersChanged, Status};
use crate::wire::{ErrorCode, Frame};

/// Entries fetched at once to fill a hole.
const FETCH: usize = 256;
/// How often a hole is looked for in the store before it is given up: about ten seconds in all.
const FETCH_ATTEMPTS: u32 = 12;

impl EventSink for Gateway {
    fn deliver(&self, event: Event) {
        match event {
            Event::Message(message) => self.deliver_message(message),
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
            Event::Typing { channel, username, session } => {
                let Some(room) = self.rooms.get(channel) else { return };
                let typist = self.sessions.by_id(session);
                room.broadcast(&Encoded::new(Frame::Typing { channel, username }), typist.as_deref());
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
        self.repairs.notify_one();
    }
}

impl Gateway {
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
            Delivered::Missing { after, before } => {
                metrics::counter!("aula_gaps_found_total").increment(1);
                let Some(gateway) = self.this.upgrade() else { return };
                tokio::spawn(async move { gateway.fill_hole(&room, (after, before)).await });
            }
        }
    }

    /// Delivers what lies between the room and `head`, of which something else than its entries told.
    pub(super) fn catch_up(&self, room: &Arc<Room>, head: Seq) {
        let Some(hole) = room.expect(head) else { return };
        metrics::counter!("aula_gaps_found_total").increment(1);
        let (Some(gateway), room) = (self.this.upgrade(), Arc::clone(room)) else { return };
        tokio::spawn(async move { gateway.fill_hole(&room, hole).await });
    }

    /// Fetches what an event told us we had missed; if it can't be had, the clients are told of a gap.
    pub(super) async fn fill_hole(&self, room: &Room, mut hole: (Seq, Seq)) {
        let mut attempts = 0;
        loop {
            let limit = FETCH.min((hole.1 - hole.0 - 1) as usize);
            let fetched = match self.store.messages(room.id, Page::After(hole.0), limit).await {
                Ok(fetched) => fetched,
                Err(error) => {
                    tracing::warn!(%error, channel = %room.id, "missed entries can't be fetched yet");
                    Vec::new()
                }
            };
            let still_missing = room.fill(fetched);
            match still_missing {
                None => return,
                Some(missing) if missing.0 > hole.0 => {
                    hole = missing;
                    attempts = 0;
                }
                Some(_) if attempts < FETCH_ATTEMPTS => {
                    // Delivered before it is stored: it will be there soon.
                    tokio::time::sleep(Duration::from_millis(20 << attempts.min(6))).await;
                    attempts += 1;
                }
                Some(_) => {
                    tracing::error!(channel = %room.id, after = hole.0, before = hole.1, "clients are told of a gap");
                    metrics::counter!("aula_gaps_told_total").increment(1);
                    match room.skip() {
                        None => return,
                        Some(next) => (hole, attempts) = (next, 0),
                    }
                }
            }
        }
    }

    fn joined(&self, info: &ChannelInfo, joined: &[Username], joined_seq: Seq, origin: Option<&Origin>) {
        self.joining.stored(info.id, joined);
        if let Some(room) = self.rooms.get(info.id) {
            room.learn(info, None);
        }
        for user in joined {
            self.sessions.of(user, |session| {
                session.regain(info.id);
                // One that still connects may or may not find the channel in its list.
                if !session.joins_later(info, joined_seq) {
                    self.enter(session, info, joined_seq, reference_for(session, origin));
                }
            });
        }
    }

    /// Brings a session into a channel that its user is in since `joined_seq`, if it isn't there.
    pub(super) fn enter(&self, session: &Arc<Session>, info: &ChannelInfo, joined_seq: Seq, reference: Option<u64>) {
        let room = self.rooms.enter(info.id, info.last_seq);
        room.learn(info, None);
        // Already in it, and not the one who asks: no news.
        let is_new = session.room(info.id).is_none();
        if is_new || reference.is_some() {
            session.push(&Frame::ChannelCreated { reference, channel: info.clone() });
        }
        if is_new {
            join_behind(&room, session, joined_seq - 1);
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
            let frame = Encoded::new(Frame::MembersChanged(change.clone()));
            let is_requester =
                |session: &Session| requester.as_ref().is_some_and(|requester| requester.id == session.id);
            room.broadcast(&frame, requester.as_deref());
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

/// Adds a session whose stream begins right after `after`; at the present end, with a gap told, if what came since is no
/// longer at hand.
pub(super) fn join_behind(room: &Arc<Room>, session: &Arc<Session>, after: Seq) {
    if let Err(last_seq) = room.join_after(session, after) {
        session.push(&Frame::Gap { channel: room.id, after, last_seq });
        room.join(session);
    }
}

/// Tells everybody in the room what all members have, as far as that has risen.
pub(super) fn say_watermarks(room: &Room, delivered: Option<Seq>, read: Option<Seq>) {
    let channel = room.id;
    let delivered = delivered.map(|seq| Status::Delivered { channel, seq });
    let read = read.map(|seq| Status::Read { channel, seq });
    for status in delivered.into_iter().chain(read) {
        room.broadcast(&Encoded::new(Frame::Status(status)), None);
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
