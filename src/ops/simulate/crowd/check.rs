//! What the oracle needs when all is over: channels' histories read to their end, and searches that find.

use std::collections::VecDeque;

use super::person::What;
use super::send::SILENCE;
use super::{Act, Ask, Crowd, Report, SECOND, Timer, Written};
use crate::ops::simulate::engine::{ClientNo, Net};
use crate::ops::simulate::orders::Unchecked;
use crate::oracle::frame::{self, Message};
use crate::oracle::record::Search;
use crate::wire::ErrorCode;

/// Readings under way at a time, of one thread.
const AT_ONCE: usize = 32;
/// Members who read a channel's whole history.
const READERS: usize = 2;
/// Messages that are searched for.
const SEARCHES: usize = 12;
/// Within so long a stored message must be found. Much longer than it takes: behind an overload the index has to catch
/// up, and no promise says how fast.
const FOUND_WITHIN: u64 = 60 * SECOND;
const PAUSE: u64 = 200_000_000;
/// Entries of a page, the most there are.
const PAGE: u32 = 100;

#[derive(Default)]
pub(super) struct Checks {
    waiting: VecDeque<Check>,
    under_way: Vec<(ClientNo, Check)>,
    unchecked: Unchecked,
}

enum Check {
    Reading { client: ClientNo, channel: u32, messages: Vec<Message<'static>> },
    Finding { message: Written, since: u64 },
}

impl Check {
    const fn client(&self) -> ClientNo {
        match self {
            Self::Reading { client, .. } => *client,
            Self::Finding { message, .. } => message.client,
        }
    }
}

impl Checks {
    pub fn take_unchecked(&mut self) -> Unchecked {
        std::mem::take(&mut self.unchecked)
    }

    /// The client's connection ended: what it was about is asked again.
    pub fn interrupted(&mut self, client: ClientNo) {
        if let Some(check) = self.take(client) {
            self.waiting.push_back(check);
        }
    }

    fn take(&mut self, client: ClientNo) -> Option<Check> {
        let index = self.under_way.iter().position(|(busy, _)| *busy == client)?;
        Some(self.under_way.swap_remove(index).1)
    }
}

impl Crowd {
    pub(super) fn begin_checks(&mut self, net: &mut Net<Timer>, at: u64) {
        self.act = Act::Checking;
        let plan = std::sync::Arc::clone(&self.plan);
        for (channel, planned) in plan.channels.iter().enumerate() {
            // The first and the last: they may be clients of other threads.
            let readers = planned.members.iter().take(1).chain(planned.members.iter().rev().take(READERS - 1));
            for client in readers.filter_map(|member| self.share.client(*member)) {
                let reading = Check::Reading { client, channel: channel as u32, messages: Vec::new() };
                self.checks.waiting.push_back(reading);
            }
        }
        for message in self.words.iter().rev().take(SEARCHES) {
            self.checks.waiting.push_back(Check::Finding { message: message.clone(), since: at });
        }
        let is_at_rest = self.people.iter().all(|person| person.pending.is_empty());
        if is_at_rest {
            self.check(net, at);
        } else {
            // The run did not settle. What is on its way may still be accepted, and must be in the histories then.
            net.set_timer(at + SILENCE, Timer::Check);
        }
    }

    /// Asks for as much as may be under way.
    pub(super) fn check(&mut self, net: &mut Net<Timer>, at: u64) {
        let mut tried = self.checks.waiting.len();
        while self.checks.under_way.len() < AT_ONCE && tried > 0 {
            tried -= 1;
            let Some(check) = self.checks.waiting.pop_front() else { break };
            let client = check.client();
            let is_busy = self.checks.under_way.iter().any(|(busy, _)| *busy == client);
            if is_busy || !self.people[client as usize].is_here() {
                self.checks.waiting.push_back(check);
            } else {
                self.ask_for(net, check, at);
            }
        }
        if self.act != Act::Checking || !self.checks.under_way.is_empty() {
            return;
        }
        if self.checks.waiting.is_empty() {
            self.act = Act::Waiting;
            self.report(Report::Checked);
        } else {
            net.set_timer(at + PAUSE, Timer::Check);
        }
    }

    fn ask_for(&mut self, net: &mut Net<Timer>, check: Check, at: u64) {
        let client = check.client();
        let person = &mut self.people[client as usize];
        match &check {
            Check::Reading { channel, messages, .. } => {
                let Some(id) = self.ids[*channel as usize] else { return };
                let after = Some(messages.last().map_or(0, |message| message.seq));
                let reference = person.ask(What::Reading, at);
                self.say(net, client, &Ask::History { reference, channel: id, before: None, after, limit: PAGE });
            }
            Check::Finding { message, .. } => {
                let reference = person.ask(What::Finding, at);
                self.say(net, client, &Ask::Search { reference, query: &message.word, limit: 10 });
            }
        }
        self.checks.under_way.push((client, check));
    }

    /// A page of what a client reads.
    pub(super) fn read_for_the_oracle(
        &mut self,
        net: &mut Net<Timer>,
        client: ClientNo,
        page: &[Message<'_>],
        more: bool,
        at: u64,
    ) {
        let Some(Check::Reading { channel, mut messages, .. }) = self.checks.take(client) else { return };
        messages.extend(page.iter().map(owned));
        // A page that is empty and not the last would be asked for again and again.
        if more && !page.is_empty() {
            self.ask_for(net, Check::Reading { client, channel, messages }, at);
            return;
        }
        if let (Some(recorder), Some(id)) = (&mut self.recorder, self.ids[channel as usize]) {
            let person = &self.people[client as usize];
            let reader = recorder.user(&self.plan.accounts[person.number as usize].name);
            if let (Err(problem), Some(connection)) = (recorder.history(reader, id, 1, &messages), person.connection) {
                recorder.malformed(connection, at, &problem);
            }
        }
        self.check(net, at);
    }

    pub(super) fn found_for_the_oracle(&mut self, net: &mut Net<Timer>, client: ClientNo, is_found: bool, at: u64) {
        let Some(Check::Finding { message, since }) = self.checks.take(client) else { return };
        if !is_found && at < since + FOUND_WITHIN {
            // The index may be behind for a moment.
            self.checks.waiting.push_back(Check::Finding { message, since });
            return net.set_timer(at + PAUSE, Timer::Check);
        }
        if let Some(recorder) = &mut self.recorder {
            let reader = recorder.user(&self.plan.accounts[self.people[client as usize].number as usize].name);
            let send = recorder.send(message.channel, reader, message.client_id, None);
            recorder.search(Search { reader, send, waited: at.saturating_sub(since), is_found });
        }
        self.check(net, at);
    }

    /// The server wants it later, or not at all: then it is given up, and told.
    pub(super) fn check_refused(
        &mut self,
        net: &mut Net<Timer>,
        client: ClientNo,
        error: &frame::Error<'_>,
        (at, again): (u64, u64),
    ) {
        if error.retry {
            self.checks.interrupted(client);
            return net.set_timer(again, Timer::Check);
        }
        let why = format!("{}: {}", error.code.as_str(), error.message);
        match self.checks.take(client) {
            // As a server answers whose search is switched off: it promises none.
            Some(Check::Finding { .. }) if error.code == ErrorCode::Forbidden => {
                self.checks.unchecked.forbidden = Some(why);
                self.checks.waiting.retain(|check| matches!(check, Check::Reading { .. }));
            }
            Some(Check::Finding { message, .. }) => {
                self.checks.unchecked.add(format!("the search for {} was refused: {why}", message.word));
            }
            Some(Check::Reading { channel, .. }) => {
                let name = self.plan.group_name(channel);
                self.checks.unchecked.add(format!("the history of {name} was refused: {why}"));
            }
            None => {}
        }
        self.check(net, at);
    }
}

fn owned(message: &Message<'_>) -> Message<'static> {
    Message {
        channel: message.channel,
        seq: message.seq,
        id: message.id,
        sender: message.sender.to_string().into(),
        client_id: message.client_id,
        kind: message.kind,
        body: message.body.to_string().into(),
        at: message.at,
    }
}
