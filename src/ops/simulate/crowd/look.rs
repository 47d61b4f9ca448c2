//! Reading back, and searching.

use super::person::What;
use super::{Ask, Crowd, Timer, Written, body};
use crate::ops::simulate::engine::{ClientNo, Net};
use crate::ops::simulate::measured::Stage;
use crate::oracle::frame::{Message, SearchResults, Sent};

/// A screen full.
const PAGE: u32 = 50;
/// What was due while its client had no connection, as an error.
const AWAY: &str = "away";
/// Hits that people look at.
const HITS: u32 = 20;

impl Crowd {
    /// Somebody opens one of its channels.
    pub(super) fn look_back(&mut self, net: &mut Net<Timer>, scheduled: u64) {
        let Some((client, channel)) = self.somebody() else { return };
        let (Some(id), true) = (self.ids[channel as usize], self.people[client as usize].is_here()) else {
            return self.meter.error(Stage::History, AWAY);
        };
        let reference = self.people[client as usize].ask(What::History, scheduled);
        self.note_sent(client, &Sent::Newest { reference, channel: id });
        self.say(net, client, &Ask::History { reference, channel: id, before: None, after: None, limit: PAGE });
    }

    /// Somebody looks for one of its messages.
    pub(super) fn look_for_something(&mut self, net: &mut Net<Timer>, scheduled: u64) {
        let index = self.rng.below((self.words.len() as u64).max(1)) as usize;
        let (client, word) = match self.words.get(index) {
            Some(Written { client, word, .. }) => (*client, word.clone()),
            // Before anything is stored it is looked for in vain.
            None => {
                let Some((client, _)) = self.somebody() else { return };
                (client, body::word(&self.plan.settings.run, self.people[client as usize].number, 0))
            }
        };
        if !self.people[client as usize].is_here() {
            return self.meter.error(Stage::Search, AWAY);
        }
        let reference = self.people[client as usize].ask(What::Search, scheduled);
        self.say(net, client, &Ask::Search { reference, query: &word, limit: HITS });
    }

    pub(super) fn page(
        &mut self,
        net: &mut Net<Timer>,
        client: ClientNo,
        reference: u64,
        messages: &[Message<'_>],
        more: bool,
        at: u64,
    ) {
        let Some(asked) = self.people[client as usize].answered(reference) else { return };
        match asked.what {
            What::History => self.meter.record(Stage::History, asked.since, at),
            What::Reading => self.read_for_the_oracle(net, client, messages, more, at),
            What::Missed(channel) => {
                let Some(id) = self.ids[channel as usize] else { return };
                for message in messages {
                    self.receive(net, client, message, at);
                }
                if more {
                    self.missed(net, client, id, at);
                } else if let Some(room) = self.people[client as usize].room_mut(channel) {
                    room.is_behind = false;
                }
            }
            _ => {}
        }
    }

    pub(super) fn found(&mut self, net: &mut Net<Timer>, client: ClientNo, results: &SearchResults<'_>, at: u64) {
        let asked = results.reference.and_then(|reference| self.people[client as usize].answered(reference));
        let Some(asked) = asked else { return };
        self.note_hits(client, &results.hits);
        match asked.what {
            What::Search => self.meter.record(Stage::Search, asked.since, at),
            What::Finding => self.found_for_the_oracle(net, client, !results.hits.is_empty(), at),
            _ => {}
        }
    }

    fn note_hits(&mut self, client: ClientNo, hits: &[Message<'_>]) {
        let person = &self.people[client as usize];
        if let Some(recorder) = &mut self.recorder {
            let reader = recorder.user(&self.plan.accounts[person.number as usize].name);
            for hit in hits {
                if let (Err(problem), Some(connection)) = (recorder.hit(reader, hit), person.connection) {
                    recorder.malformed(connection, crate::ops::simulate::engine::clock::now(), &problem);
                }
            }
        }
    }
}
