//! What the clients of the model do: connect, resume, send, and repeat what was not answered.

use std::collections::BTreeMap;

use super::{RESUME_LIMIT, Synth, USERS, channels_of, slice};
use crate::oracle::record::{Connection, Head, Resumed, Seen};

impl Synth {
    pub(super) fn connect(&mut self, user: usize) {
        self.clock += 1;
        self.users[user].next_ref = 0;
        self.users[user].connection = Some(self.record.connections.len());
        let (opened_at, closed_at) = (self.clock, self.clock);
        self.record.connections.push(Connection { user: USERS[user].into(), opened_at, closed_at, events: vec![] });
        let heads = channels_of(user).map(|name| {
            let channel = &self.channels[name];
            let read_seq = *self.users[user].read.get(name).unwrap_or(&0).min(&channel.broadcast);
            Head {
                channel: name.into(),
                last_seq: channel.broadcast,
                delivered_seq: read_seq,
                read_seq,
                unread: channel.broadcast - read_seq,
                by_all: Some((read_seq, read_seq)),
                messages: slice(channel, channel.broadcast.saturating_sub(10), channel.broadcast),
            }
        });
        let heads = heads.collect();
        self.tell(user, Seen::Welcome(heads));
        self.resume(user);
        for (channel, client_id, body) in std::mem::take(&mut self.users[user].unanswered) {
            self.coverage.retries += 1;
            self.attempt(user, channel, client_id, body);
        }
    }

    pub(super) fn resume(&mut self, user: usize) {
        let after = self.users[user].contiguous.clone();
        if after.is_empty() {
            return;
        }
        let reference = self.reference(user);
        let channels = after.iter().map(|(name, seq)| ((*name).into(), *seq)).collect();
        self.tell(user, Seen::ResumeAsked { reference, channels });
        if self.rng.one_in(3) {
            // Live frames may still come before the server handles the request.
            let name = *after.keys().next().unwrap();
            self.work(name);
        }
        let mut replies = BTreeMap::new();
        for (name, after) in after {
            let last_seq = self.channels[name].broadcast;
            let complete = last_seq.saturating_sub(after) <= RESUME_LIMIT;
            replies.insert(name.into(), Resumed { complete, last_seq });
            self.coverage.ahead_of_store += u32::from(after > last_seq);
            let missing = slice(&self.channels[name], after.min(last_seq), last_seq);
            if complete {
                missing.into_iter().for_each(|entry| self.tell(user, Seen::Message(entry)));
            } else {
                self.coverage.gaps += 1;
                self.tell(user, Seen::Gap { channel: name.into(), last_seq: Some(last_seq) });
                let reference = self.reference(user);
                self.tell(user, Seen::Page { reference, entries: missing });
            }
            let contiguous = self.users[user].contiguous.get_mut(name).unwrap();
            *contiguous = last_seq.max(*contiguous);
        }
        self.tell(user, Seen::ResumeReply { reference, channels: replies });
    }

    /// The end of a channel, stored or not.
    pub(super) fn look(&mut self, user: usize) {
        let names: Vec<_> = channels_of(user).collect();
        let name = *self.rng.pick(&names);
        let reference = self.reference(user);
        self.tell(user, Seen::NewestAsked { reference, channel: name.into() });
        let channel = &self.channels[name];
        let entries = slice(channel, channel.broadcast.saturating_sub(5), channel.broadcast);
        self.tell(user, Seen::Page { reference, entries });
    }

    pub(super) fn send(&mut self, user: usize) {
        if self.users[user].connection.is_none() {
            return;
        }
        let names: Vec<_> = channels_of(user).collect();
        let channel = *self.rng.pick(&names);
        self.ids += 1;
        let (client_id, body) = (format!("client-id-{}", self.ids), format!("message {}", self.ids));
        match self.rng.below(30) {
            0 => {
                self.coverage.refused += 1;
                self.refuse(user, channel, client_id, body, "too_large", false);
            }
            1 => {
                self.coverage.deferred += 1;
                self.refuse(user, channel, client_id.clone(), body.clone(), "overloaded", true);
                self.users[user].unanswered.push((channel, client_id, body));
            }
            _ => self.attempt(user, channel, client_id, body),
        }
    }

    pub(super) fn refuse(
        &mut self,
        user: usize,
        channel: &str,
        client_id: String,
        body: String,
        code: &str,
        retry: bool,
    ) {
        let reference = self.reference(user);
        self.tell(user, Seen::Send { reference, channel: channel.into(), client_id, body });
        self.tell(user, Seen::Refused { reference, code: code.into(), retry });
    }

    /// One in ten breaks the connection, with the message queued or lost.
    pub(super) fn attempt(&mut self, user: usize, channel: &'static str, client_id: String, body: String) {
        let reference = self.reference(user);
        let seen = Seen::Send { reference, channel: channel.into(), client_id: client_id.clone(), body: body.clone() };
        self.tell(user, seen);
        let broken = self.rng.one_in(10) || self.users[user].connection.is_none();
        let reached = self.users[user].connection.is_some() && !(broken && self.rng.one_in(2));
        if reached {
            if self.known.insert(client_id.clone(), ()).is_none() {
                let task = (user, client_id.clone(), body.clone());
                self.channels.get_mut(channel).unwrap().queue.push(task);
            } else {
                self.coverage.deduplicated += 1;
            }
        }
        if broken {
            self.users[user].unanswered.push((channel, client_id, body));
            self.disconnect(user);
        } else {
            self.tell(user, Seen::Accepted { reference });
        }
    }
}
