//! Messages of others, and what is said about one's own.

use super::person::Room;
use super::{Act, ChannelId, Crowd, Timer, body};
use crate::message::{Kind, Seq};
use crate::ops::simulate::crowd::ask::Ask;
use crate::ops::simulate::engine::{ClientNo, Net};
use crate::ops::simulate::measured::Stage;
use crate::oracle::frame::Message;

impl Crowd {
    pub(super) fn receive(&mut self, net: &mut Net<Timer>, client: ClientNo, message: &Message<'_>, at: u64) {
        let Some(id) = message.channel else { return };
        let Some(channel) = self.known.get(&id).copied() else { return };
        if self.act == Act::Creating {
            // The entry that makes a channel may come before the word that it was made.
            self.enter(client, channel);
        }
        let person = &mut self.people[client as usize];
        let Some(room) = person.room_mut(channel) else { return };
        if message.seq <= room.seq {
            return;
        }
        // While people are added, each begins at its own entry.
        if message.seq > room.seq + 1 && self.act != Act::Creating {
            if !room.is_behind {
                self.missed(net, client, id, at);
            }
            return;
        }
        room.seq = message.seq;
        if message.kind == Kind::Text {
            self.take(client, channel, message, at);
        }
        self.will_say_soon(net, client, at);
    }

    /// A message that this client did not have.
    pub(super) fn take(&mut self, client: ClientNo, channel: u32, message: &Message<'_>, at: u64) {
        let Some(scheduled) = body::scheduled(&message.body) else { return };
        self.meter.received += 1;
        let person = &mut self.people[client as usize];
        if message.sender != self.plan.accounts[person.number as usize].name.as_str() {
            return self.meter.record(Stage::SendToReceive, scheduled, at);
        }
        if let Some(room) = person.room_mut(channel) {
            // The slowest of all: left out unsaid, they would make the rest look better.
            if let Some(is_delivered) = room.wrote(message.seq, scheduled) {
                self.meter.error(Stage::Read, "given_up");
                self.meter.errors(Stage::Delivered, "given_up", u64::from(!is_delivered));
            }
        }
        if let Some(index) = message.client_id.and_then(|client_id| person.pending_by_id(client_id)) {
            self.expect(client, index);
        }
    }

    /// Sees to it that the client reports what it has, and what it has read.
    pub(super) fn will_say_soon(&mut self, net: &mut Net<Timer>, client: ClientNo, at: u64) {
        let scenario = &self.plan.settings.scenario;
        let person = &mut self.people[client as usize];
        if person.says_delivered
            && !person.will_say_delivered
            && person.rooms.iter().any(|room| room.seq > room.delivered)
        {
            person.will_say_delivered = true;
            net.set_timer(at + scenario.receipts.every.as_nanos() as u64, Timer::Deliver(client));
        }
        if person.says_read && !person.will_say_read && person.rooms.iter().any(|room| room.seq > room.read) {
            person.will_say_read = true;
            let longest = (scenario.think.max - scenario.think.min).as_nanos() as u64;
            let thinking = scenario.think.min.as_nanos() as u64 + self.rng.below(longest.max(1));
            net.set_timer(at + thinking, Timer::Read(client));
        }
    }

    pub(super) fn say_delivered(&mut self, net: &mut Net<Timer>, client: ClientNo) {
        self.people[client as usize].will_say_delivered = false;
        self.say_marks(
            net,
            client,
            |room| {
                let is_news = room.seq > room.delivered;
                room.delivered = room.seq;
                is_news
            },
            |channel, seq| Ask::Delivered { channel, seq },
        );
    }

    pub(super) fn say_read(&mut self, net: &mut Net<Timer>, client: ClientNo) {
        self.people[client as usize].will_say_read = false;
        self.say_marks(
            net,
            client,
            |room| {
                let is_news = room.seq > room.read;
                room.read = room.seq;
                // What is read is also delivered.
                room.delivered = room.seq;
                is_news
            },
            |channel, seq| Ask::Read { channel, seq },
        );
    }

    fn say_marks(
        &mut self,
        net: &mut Net<Timer>,
        client: ClientNo,
        mut is_news: impl FnMut(&mut Room) -> bool,
        ask: impl Fn(ChannelId, Seq) -> Ask<'static>,
    ) {
        if !self.people[client as usize].is_here() {
            return;
        }
        for index in 0..self.people[client as usize].rooms.len() {
            let room = &mut self.people[client as usize].rooms[index];
            if !is_news(room) {
                continue;
            }
            let seq = room.seq;
            if let Some(id) = self.ids[room.channel as usize] {
                self.say(net, client, &ask(id, seq));
            }
        }
    }

    pub(super) fn delivered_by_all(&mut self, client: ClientNo, id: ChannelId, seq: Seq, at: u64) {
        let Some(channel) = self.known.get(&id).copied() else { return };
        let (people, meter) = (&mut self.people, &mut self.meter);
        if let Some(room) = people[client as usize].room_mut(channel) {
            room.delivered_by_all(seq, |scheduled| meter.record(Stage::Delivered, scheduled, at));
        }
    }

    pub(super) fn read_by_all(&mut self, client: ClientNo, id: ChannelId, seq: Seq, at: u64) {
        let Some(channel) = self.known.get(&id).copied() else { return };
        let (people, meter) = (&mut self.people, &mut self.meter);
        if let Some(room) = people[client as usize].room_mut(channel) {
            room.read_by_all(seq, |scheduled| meter.record(Stage::Read, scheduled, at));
        }
    }
}
