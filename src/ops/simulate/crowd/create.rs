//! Making the run's channels, and leaving them.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::Deserialize;

use super::person::What;
use super::{Act, Ask, Crowd, Report, Share, Timer};
use crate::message::ChannelId;
use crate::ops::simulate::engine::{ClientNo, Data, Net};
use crate::ops::simulate::plan::Plan;

/// Channels that one thread has made at a time.
const AT_ONCE: usize = 64;
/// Members named in one request: their names fit into the smallest frame that a server may be set to take.
const NAMED_AT_ONCE: usize = 400;
/// Between two looks at what could not be asked yet.
const PAUSE: u64 = 50_000_000;

/// The channels that clients of this thread have to make.
#[derive(Debug, Default)]
pub(super) struct Creations {
    /// With the number of members that are in it already.
    waiting: VecDeque<(u32, usize)>,
    under_way: Vec<UnderWay>,
    is_told: bool,
    /// Places in channels that the clients of this thread have in the plan.
    places: usize,
    taken: usize,
}

#[derive(Debug, Clone, Copy)]
struct UnderWay {
    channel: u32,
    client: ClientNo,
    /// Members that are in it when this is done.
    members: usize,
    before: usize,
}

impl Creations {
    pub fn of(plan: &Plan, share: Share) -> Self {
        let is_ours = |channel: &u32| {
            let members = &plan.channels[*channel as usize].members;
            members.first().is_some_and(|maker| share.client(*maker).is_some())
        };
        let waiting = (0..plan.channels.len() as u32).filter(is_ours).map(|channel| (channel, 0)).collect();
        let clients = 0..share.clients(plan.clients());
        let places = clients.map(|client| plan.of_client[share.number(client) as usize].len()).sum();
        Self { waiting, places, ..Self::default() }
    }

    /// A client's connection ended: what it was making may or may not be there, and is tried again.
    pub fn interrupted(&mut self, client: ClientNo) {
        let waiting = &mut self.waiting;
        self.under_way.retain(|under_way| {
            if under_way.client == client {
                waiting.push_back((under_way.channel, under_way.before));
            }
            under_way.client != client
        });
    }
}

impl Crowd {
    pub(super) fn enter(&mut self, client: ClientNo, channel: u32) {
        let person = &mut self.people[client as usize];
        let is_member = self.plan.of_client[person.number as usize].iter().any(|(planned, _)| *planned == channel);
        if is_member && person.enter(channel) {
            self.creations.taken += 1;
        }
    }

    /// Asks for as many channels as may be under way.
    pub(super) fn create(&mut self, net: &mut Net<Timer>, at: u64) {
        let mut tried = self.creations.waiting.len();
        while self.creations.under_way.len() < AT_ONCE && tried > 0 {
            tried -= 1;
            let Some((channel, before)) = self.creations.waiting.pop_front() else { break };
            if !self.create_one(net, channel, before, at) {
                self.creations.waiting.push_back((channel, before));
            }
        }
        self.look_whether_all_are_made(net, at);
    }

    /// False if its maker can't do it now.
    fn create_one(&mut self, net: &mut Net<Timer>, channel: u32, before: usize, at: u64) -> bool {
        let plan = std::sync::Arc::clone(&self.plan);
        let planned = &plan.channels[channel as usize];
        let Some(client) = planned.members.first().and_then(|maker| self.share.client(*maker)) else { return true };
        let is_busy = self.creations.under_way.iter().any(|under_way| under_way.client == client);
        if is_busy || !self.people[client as usize].is_here() {
            return false;
        }
        // It may be there already: then only who isn't in it yet is added.
        let is_there = self.people[client as usize].room(channel).is_some();
        let before = if is_there { before.max(1) } else { 0 };
        let begin = before.max(1);
        let members = (begin + NAMED_AT_ONCE).min(planned.members.len());
        if is_there && (planned.is_direct || begin >= members) {
            return true;
        }
        let named = planned.members[begin..members].iter().map(|member| plan.accounts[*member as usize].name.as_str());
        let named: Vec<&str> = named.collect();
        let reference = self.people[client as usize].ask(What::Creating(channel), at);
        let name = plan.group_name(channel);
        let ask = match (is_there, self.ids[channel as usize]) {
            (true, Some(id)) => Ask::AddMembers { reference, channel: id, members: &named },
            _ if planned.is_direct => Ask::CreateChannel { reference, kind: "direct", name: None, members: &named },
            _ => Ask::CreateChannel { reference, kind: "group", name: Some(&name), members: &named },
        };
        self.say(net, client, &ask);
        self.creations.under_way.push(UnderWay { channel, client, members, before });
        true
    }

    /// A frame that the oracle has no use for: while channels are made, who is in what is told by some of them.
    pub(super) fn other(&mut self, net: &mut Net<Timer>, client: ClientNo, data: Data<'_>, at: u64) {
        if !matches!(self.act, Act::Creating | Act::Leaving) {
            return;
        }
        match read::<Told<'_>>(data) {
            Some(Told::ChannelCreated { reference, channel: Made { id, name } }) => {
                if let Some(channel) = name.and_then(|name| self.plan.group_of(&name)) {
                    self.learn(channel, id);
                }
                let Some(channel) = self.known.get(&id).copied() else { return };
                self.enter(client, channel);
                self.made(net, client, reference, at);
            }
            Some(Told::MembersChanged { reference }) => self.made(net, client, reference, at),
            Some(Told::Other) | None => {}
        }
    }

    /// A creation, or an addition, is done.
    fn made(&mut self, net: &mut Net<Timer>, client: ClientNo, reference: Option<u64>, at: u64) {
        let asked = reference.and_then(|reference| self.people[client as usize].answered(reference));
        match asked.map(|asked| asked.what) {
            Some(What::Creating(channel)) => {
                let under_way = self.creations.under_way.iter().position(|under_way| under_way.channel == channel);
                if let Some(index) = under_way {
                    let done = self.creations.under_way.swap_remove(index);
                    if done.members < self.plan.channels[channel as usize].members.len() {
                        self.creations.waiting.push_front((channel, done.members));
                    }
                }
                self.create(net, at);
            }
            Some(What::Leaving) => self.look_whether_all_have_left(),
            _ => self.look_whether_all_are_made(net, at),
        }
    }

    /// A request for a channel was refused.
    pub(super) fn not_made(&mut self, net: &mut Net<Timer>, channel: u32, code: &str, message: &str, retry: bool) {
        if !retry {
            let name = self.plan.group_name(channel);
            return self.report(Report::Failed(format!("the channel {name} can't be made: {code}: {message}")));
        }
        let under_way = self.creations.under_way.iter().position(|under_way| under_way.channel == channel);
        if let Some(index) = under_way {
            let refused = self.creations.under_way.swap_remove(index);
            self.creations.waiting.push_back((channel, refused.before));
        }
        net.set_timer(crate::ops::simulate::engine::clock::now() + PAUSE, Timer::Create);
    }

    fn look_whether_all_are_made(&mut self, net: &mut Net<Timer>, at: u64) {
        if self.act != Act::Creating {
            return;
        }
        let creations = &mut self.creations;
        let is_idle = creations.under_way.is_empty();
        if is_idle && creations.waiting.is_empty() && creations.taken == creations.places {
            if !std::mem::replace(&mut creations.is_told, true) {
                self.report(Report::Created);
            }
        } else if is_idle && !creations.waiting.is_empty() {
            // Their makers are away.
            net.set_timer(at + PAUSE, Timer::Create);
        }
    }

    /// Everybody leaves the groups of the run; a direct channel stays for good.
    pub(super) fn leave_all(&mut self, net: &mut Net<Timer>, at: u64) {
        self.act = Act::Leaving;
        // The histories were read: what is shown from here on is in none of them.
        for person in &mut self.people {
            if let (Some(recorder), Some(connection)) = (&mut self.recorder, person.connection.take()) {
                recorder.close(connection, at);
            }
        }
        for client in 0..self.people.len() as u32 {
            let person = &self.people[client as usize];
            let is_group = |channel: &u32| !self.plan.channels[*channel as usize].is_direct;
            let rooms = person.rooms.iter().map(|room| room.channel).filter(is_group);
            let groups: Vec<_> = rooms.filter_map(|channel| self.ids[channel as usize]).collect();
            if !person.is_here() {
                continue;
            }
            for channel in groups {
                let reference = self.people[client as usize].ask(What::Leaving, at);
                self.say(net, client, &Ask::Leave { reference, channel });
            }
        }
        self.look_whether_all_have_left();
    }

    pub(super) fn look_whether_all_have_left(&mut self) {
        let is_leaving = |person: &super::Person| person.asked.iter().any(|asked| asked.what == What::Leaving);
        if self.act == Act::Leaving && !self.people.iter().any(is_leaving) {
            self.act = Act::Waiting;
            self.report(Report::Left);
        }
    }
}

/// What makes and changes channels.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Told<'a> {
    ChannelCreated {
        #[serde(rename = "ref")]
        reference: Option<u64>,
        #[serde(borrow)]
        channel: Made<'a>,
    },
    MembersChanged {
        #[serde(rename = "ref")]
        reference: Option<u64>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Made<'a> {
    id: ChannelId,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
}

/// A frame as something that the oracle's decoder doesn't have; none if it is something else.
pub(super) fn read<'a, T: Deserialize<'a>>(data: Data<'a>) -> Option<T> {
    match data {
        Data::Text(text) => serde_json::from_str(text).ok(),
        Data::Binary(bytes) => {
            let mut reader = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
            T::deserialize(&mut reader).ok()
        }
    }
}
