//! Messages from their writing to the word that they are stored.

use uuid::Uuid;

use super::person::{Pending, What};
use super::{Act, Ask, ChannelId, Crowd, SECOND, Timer, Written};
use crate::ops::simulate::crowd::body;
use crate::ops::simulate::engine::{ClientNo, Net, clock};
use crate::ops::simulate::measured::Stage;
use crate::oracle::frame::{self, Sent};

/// Messages of one client that may wait; what is to be written beyond is an error, and counted.
const PENDING: usize = 1024;
/// Before something that was refused for now is tried again.
const PAUSE: u64 = 100_000_000;
/// After so long without a word a message is repeated, while the run settles.
pub(super) const SILENCE: u64 = 3 * SECOND;
/// Words of stored messages that are kept to be searched for.
const WORDS: usize = 64;

impl Crowd {
    /// Writes a message that was to be written at `scheduled`.
    pub(super) fn write(&mut self, net: &mut Net<Timer>, client: ClientNo, channel: u32, scheduled: u64, at: u64) {
        let size = self.plan.settings.scenario.body;
        self.meter.due(at.saturating_sub(scheduled));
        let person = &mut self.people[client as usize];
        if person.pending.len() >= PENDING {
            return self.meter.error(Stage::Accepted, "backlog");
        }
        let number = person.written;
        person.written += 1;
        let length = size.min + self.rng.below((size.max - size.min) as u64 + 1) as usize;
        let word = body::word(&self.plan.settings.run, person.number, number);
        let body = self.filling.body(scheduled, &word, length, &mut self.rng);
        person.pending.push_back(Pending {
            client_id: Uuid::now_v7(),
            channel,
            scheduled,
            number,
            body: body.into_boxed_str(),
            reference: 0,
            attempts: 0,
            at,
            is_accepted: false,
            is_unheard: false,
            is_under_way: false,
            is_counted: false,
        });
        if person.is_here() {
            let index = person.pending.len() - 1;
            self.attempt(net, client, index);
        }
    }

    fn attempt(&mut self, net: &mut Net<Timer>, client: ClientNo, index: usize) {
        let person = &mut self.people[client as usize];
        let reference = person.reference();
        let Some(pending) = person.pending.get_mut(index) else { return };
        let Some(id) = self.ids[pending.channel as usize] else { return };
        // Before its first byte is written, for the oracle.
        let at = clock::now();
        let retry = pending.attempts > 0;
        pending.attempts += 1;
        pending.at = at;
        pending.reference = reference;
        pending.is_under_way = true;
        pending.is_unheard = false;
        let client_id = pending.client_id;
        let ask = Ask::Send { reference, channel: id, client_id, body: &pending.body, retry };
        let written = if person.speaks_msgpack {
            self.pen.msgpack(&ask).map(|bytes| net.send(client, super::Data::Binary(bytes)).is_ok())
        } else {
            self.pen.json(&ask).map(|text| net.send(client, super::Data::Text(text)).is_ok())
        };
        if !retry {
            self.meter.sent();
        }
        if written != Ok(true) {
            // What was never on its way is owed no answer.
            return self.meter.error(Stage::Accepted, "overflow");
        }
        if let (Some(recorder), Some(connection)) = (&mut self.recorder, person.connection) {
            let body = (&*pending.body).into();
            recorder.sent(connection, at, &Sent::Send(frame::Send { reference, channel: id, client_id, body }));
        }
    }

    /// After a welcome, or a pause: what is due and has no answer under way, the oldest first. Not any more while the
    /// oracle reads histories: they would lack what is accepted behind its back.
    pub(super) fn send_pending(&mut self, net: &mut Net<Timer>, client: ClientNo, at: u64) {
        let may_send = matches!(self.act, Act::Running | Act::Settling);
        if !may_send || !self.people[client as usize].is_here() {
            return;
        }
        let mut next = None;
        for index in 0..self.people[client as usize].pending.len() {
            let pending = &self.people[client as usize].pending[index];
            if pending.is_under_way || (pending.is_accepted && !pending.is_unheard) {
                continue;
            }
            if pending.at <= at {
                self.attempt(net, client, index);
            } else {
                next = Some(next.map_or(pending.at, |next: u64| next.min(pending.at)));
            }
        }
        if let Some(next) = next {
            self.try_again(net, client, next);
        }
    }

    fn try_again(&mut self, net: &mut Net<Timer>, client: ClientNo, at: u64) {
        if !std::mem::replace(&mut self.people[client as usize].will_try_again, true) {
            net.set_timer(at, Timer::TryAgain(client));
        }
    }

    pub(super) fn accepted(&mut self, client: ClientNo, reference: u64, at: u64) {
        let person = &mut self.people[client as usize];
        let Some(index) = person.pending_by_reference(reference) else { return };
        let pending = &mut person.pending[index];
        pending.is_under_way = false;
        if !std::mem::replace(&mut pending.is_accepted, true) {
            self.meter.record(Stage::Accepted, pending.scheduled, at);
        }
        self.expect(client, index);
    }

    /// All members should receive it now, its sender among them.
    pub(super) fn expect(&mut self, client: ClientNo, index: usize) {
        let pending = &mut self.people[client as usize].pending[index];
        if !std::mem::replace(&mut pending.is_counted, true) {
            self.meter.expected += self.plan.channels[pending.channel as usize].members.len() as u64;
        }
    }

    pub(super) fn persisted(&mut self, client: ClientNo, channel: ChannelId, client_id: Uuid, at: u64) {
        let Some(index) = self.people[client as usize].pending_by_id(client_id) else { return };
        self.expect(client, index);
        let person = &mut self.people[client as usize];
        let Some(pending) = person.pending.remove(index) else { return };
        self.meter.record(Stage::Persisted, pending.scheduled, at);
        debug_assert_eq!(self.ids[pending.channel as usize], Some(channel));
        if self.words.len() == WORDS {
            self.words.pop_front();
        }
        let word = body::word(&self.plan.settings.run, person.number, pending.number);
        self.words.push_back(Written { client, channel, client_id, word });
    }

    /// Accepted, and then not taken into the log: nobody in a run is removed, so that the oracle judges it.
    pub(super) fn rejected(&mut self, client: ClientNo, client_id: Uuid) {
        let person = &mut self.people[client as usize];
        let Some(index) = person.pending_by_id(client_id) else { return };
        if let Some(pending) = person.pending.remove(index)
            && pending.is_counted
        {
            self.meter.expected -= self.plan.channels[pending.channel as usize].members.len() as u64;
        }
        self.meter.error(Stage::Persisted, "rejected");
    }

    /// Something was refused.
    pub(super) fn refused(&mut self, net: &mut Net<Timer>, client: ClientNo, error: &frame::Error<'_>, at: u64) {
        let code = error.code.as_str();
        let pause = error.retry_after_ms.map_or(PAUSE, |millis| (millis * 1_000_000).max(PAUSE));
        let Some(reference) = error.reference else {
            return self.meter.error(Stage::Connect, code);
        };
        if let Some(index) = self.people[client as usize].pending_by_reference(reference) {
            self.meter.error(Stage::Accepted, code);
            let pending = &mut self.people[client as usize].pending[index];
            pending.is_under_way = false;
            if error.retry && !self.plan.settings.scenario.gives_up {
                // Twice as long each time, and not all at once.
                let pause = pause << (pending.attempts - 1).min(5);
                let again = at + pause + self.rng.below(pause);
                pending.at = again;
                self.try_again(net, client, again);
            } else {
                self.people[client as usize].pending.remove(index);
            }
            return;
        }
        let Some(asked) = self.people[client as usize].answered(reference) else { return };
        match asked.what {
            What::History => self.meter.error(Stage::History, code),
            What::Search => self.meter.error(Stage::Search, code),
            What::Creating(channel) => self.not_made(net, channel, code, &error.message, error.retry),
            What::Resume | What::Missed(_) => net.set_timer(at + pause, Timer::Resume(client)),
            What::Reading | What::Finding => self.check_refused(net, client, error, (at, at + pause)),
            What::Leaving => self.look_whether_all_have_left(),
        }
    }

    /// While the run settles: whoever has no answer asks again. What was accepted on the connection that there is, it
    /// waits for: the server owes it a word that it is stored, and a repeat would hide that it never came.
    pub(super) fn repeat_what_is_not_stored(&mut self, net: &mut Net<Timer>, at: u64) {
        debug_assert_eq!(self.act, Act::Settling);
        for client in 0..self.people.len() as u32 {
            if !self.people[client as usize].is_here() {
                continue;
            }
            for index in 0..self.people[client as usize].pending.len() {
                let pending = &self.people[client as usize].pending[index];
                let is_owed = pending.is_accepted && !pending.is_unheard && !pending.is_under_way;
                if !is_owed && pending.at + SILENCE <= at {
                    self.attempt(net, client, index);
                }
            }
        }
    }
}
