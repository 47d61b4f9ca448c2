//! Coming, and coming back.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::person::{Standing, What};
use super::{Act, Ask, Crowd, Report, Timer};
use crate::message::ChannelId;
use crate::ops::simulate::engine::{ClientNo, Data, Ended, Net, Upgrade};
use crate::ops::simulate::measured::Stage;
use crate::oracle::frame::{Resumed, Sent, Welcome};
use crate::wire::{SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK};

/// How long a welcome is waited for.
const PATIENCE: u64 = 30_000_000_000;
/// The first pause after a connection that did not come to be; each further one is twice as long.
const PAUSE: u64 = 50_000_000;
const LONGEST_PAUSE: u64 = 2_000_000_000;

impl Crowd {
    /// Everybody connects, evenly over `within`; the clients of all parts by turns.
    pub(super) fn connect_all(&mut self, net: &mut Net<Timer>, within: u64, at: u64) {
        self.act = Act::Connecting;
        let all = u64::from(self.plan.clients().max(1));
        for client in 0..self.people.len() as u32 {
            let turn = u64::from(self.people[client as usize].number);
            net.set_timer(at + (u128::from(within) * u128::from(turn) / u128::from(all)) as u64, Timer::Dial(client));
        }
        self.look_who_is_here();
    }

    pub(super) fn dial(&mut self, net: &mut Net<Timer>, client: ClientNo, at: u64) {
        let person = &mut self.people[client as usize];
        if person.standing != Standing::Away || self.act == Act::Over {
            return;
        }
        person.standing = Standing::Dialling;
        person.dialled_at = at;
        person.tries_since.get_or_insert(at);
        let subprotocol = if person.speaks_msgpack { SUBPROTOCOL_MSGPACK } else { SUBPROTOCOL_JSON };
        let upgrade = Upgrade {
            host: &self.target.host,
            path: "/ws",
            subprotocol: Some(subprotocol),
            bearer: Some(&self.plan.accounts[person.number as usize].token),
        };
        let nonce = u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64());
        net.connect(client, self.target.address, upgrade.request(nonce));
        net.set_timer(at + PATIENCE, Timer::Welcomed(client, at));
    }

    /// The handshake was accepted: from its first byte on it is a connection of the record.
    pub(super) fn begin_connection(&mut self, client: ClientNo) {
        let person = &mut self.people[client as usize];
        if let (Some(recorder), false) = (&mut self.recorder, self.act == Act::Leaving) {
            let user = recorder.user(&self.plan.accounts[person.number as usize].name);
            person.connection = Some(recorder.open(user, person.dialled_at));
        }
    }

    pub(super) fn give_up_dialling(&mut self, net: &mut Net<Timer>, client: ClientNo, dialled_at: u64, at: u64) {
        let person = &self.people[client as usize];
        if person.standing == Standing::Dialling && person.dialled_at == dialled_at {
            net.cut(client);
            self.meter.error(Stage::Connect, "timeout");
            self.gone(client, at);
            self.come_back(net, client, at);
        }
    }

    /// The connection ended, and not because this side wanted it.
    pub(super) fn lost(&mut self, net: &mut Net<Timer>, client: ClientNo, why: Ended, at: u64) {
        self.meter.error(Stage::Connect, why.kind());
        let is_first = !self.people[client as usize].has_arrived;
        if let (true, Ended::Refused(status @ (400..=428 | 430..=499))) = (is_first, why) {
            let name = &self.plan.accounts[self.people[client as usize].number as usize].name;
            self.report(Report::Failed(format!("{name} can't connect: the server answers with status {status}")));
        }
        self.gone(client, at);
        self.come_back(net, client, at);
    }

    /// Forgets what belonged to the connection.
    pub(super) fn gone(&mut self, client: ClientNo, at: u64) {
        let person = &mut self.people[client as usize];
        if person.standing == Standing::Here {
            self.meter.connected -= 1;
        }
        person.standing = Standing::Away;
        if let (Some(recorder), Some(connection)) = (&mut self.recorder, person.connection.take()) {
            recorder.close(connection, at);
        }
        for pending in &mut person.pending {
            pending.is_under_way = false;
            pending.is_unheard = pending.is_accepted;
        }
        for room in &mut person.rooms {
            room.is_behind = false;
        }
        for asked in std::mem::take(&mut person.asked) {
            match asked.what {
                What::History => self.meter.error(Stage::History, "closed"),
                What::Search => self.meter.error(Stage::Search, "closed"),
                _ => {}
            }
        }
        self.checks.interrupted(client);
        self.creations.interrupted(client);
    }

    fn come_back(&mut self, net: &mut Net<Timer>, client: ClientNo, at: u64) {
        let failures = &mut self.people[client as usize].failures;
        let pause = (PAUSE << (*failures).min(6)).min(LONGEST_PAUSE);
        *failures = failures.saturating_add(1);
        // Thousands that failed together should not try together.
        net.set_timer(at + pause / 2 + self.rng.below(pause), Timer::Dial(client));
    }

    pub(super) fn welcomed(&mut self, net: &mut Net<Timer>, client: ClientNo, welcome: &Welcome<'_>, at: u64) {
        let person = &mut self.people[client as usize];
        if person.standing == Standing::Here {
            return;
        }
        person.standing = Standing::Here;
        person.failures = 0;
        self.meter.connected += 1;
        let since = person.tries_since.take().unwrap_or(person.dialled_at);
        self.meter.record(Stage::Connect, since, at);
        let is_first = !std::mem::replace(&mut person.has_arrived, true);
        for head in &welcome.channels {
            if let Some(channel) = self.known.get(&head.id).copied() {
                self.enter(client, channel);
            }
        }
        if is_first {
            self.arrived += 1;
            self.look_who_is_here();
        } else {
            self.resume(net, client);
        }
        self.send_pending(net, client, at);
        self.will_say_soon(net, client, at);
        if self.act == Act::Creating {
            self.create(net, at);
        }
    }

    fn look_who_is_here(&mut self) {
        if self.act == Act::Connecting && self.arrived as usize == self.people.len() {
            self.act = Act::Waiting;
            self.report(Report::Connected);
        }
    }

    /// Asks for what came while it was away.
    pub(super) fn resume(&mut self, net: &mut Net<Timer>, client: ClientNo) {
        let person = &mut self.people[client as usize];
        if !person.is_here() || person.rooms.is_empty() {
            return;
        }
        let mut channels: BTreeMap<ChannelId, u64> = BTreeMap::new();
        for room in &mut person.rooms {
            if let Some(id) = self.ids[room.channel as usize] {
                room.is_behind = true;
                channels.insert(id, room.seq);
            }
        }
        let reference = person.ask(What::Resume, 0);
        self.note_sent(client, &Sent::Resume { reference, channels: channels.clone() });
        self.say(net, client, &Ask::Resume { reference, channels: &channels });
    }

    pub(super) fn resumed(
        &mut self,
        net: &mut Net<Timer>,
        client: ClientNo,
        reference: u64,
        channels: &BTreeMap<ChannelId, Resumed>,
        at: u64,
    ) {
        self.people[client as usize].answered(reference);
        let mut again = false;
        for (id, resumed) in channels {
            let Some(channel) = self.known.get(id).copied() else { continue };
            let Some(room) = self.people[client as usize].room_mut(channel) else { continue };
            match resumed.complete {
                true => room.is_behind = false,
                // A gap was said, and is being read.
                false if resumed.last_seq > 0 => {}
                false => again = true,
            }
        }
        if again {
            net.set_timer(at + 1_000_000_000, Timer::Resume(client));
        }
    }

    /// Entries were left out: they are in the history.
    pub(super) fn missed(&mut self, net: &mut Net<Timer>, client: ClientNo, id: ChannelId, at: u64) {
        let Some(channel) = self.known.get(&id).copied() else { return };
        let person = &mut self.people[client as usize];
        let Some(room) = person.room_mut(channel) else { return };
        room.is_behind = true;
        let after = Some(room.seq);
        let reference = person.ask(What::Missed(channel), at);
        self.say(net, client, &Ask::History { reference, channel: id, before: None, after, limit: 100 });
    }

    /// What the names in a welcome say of groups that were made while nobody of this thread was there to see it.
    pub(super) fn learn_from_welcome(&mut self, data: Data<'_>) {
        if self.known.len() == self.ids.len() {
            return;
        }
        #[derive(serde::Deserialize)]
        struct Named<'a> {
            id: ChannelId,
            #[serde(borrow)]
            name: Option<Cow<'a, str>>,
        }
        #[derive(serde::Deserialize)]
        struct Names<'a> {
            #[serde(borrow)]
            channels: Vec<Named<'a>>,
        }
        // It was read as a welcome before.
        let Some(names) = super::create::read::<Names<'_>>(data) else { return };
        for named in names.channels {
            if let Some(channel) = named.name.and_then(|name| self.plan.group_of(&name)) {
                self.learn(channel, named.id);
            }
        }
    }
}
