//! What the clients of the model do: connect, resume, send, and repeat what was not answered.

use uuid::Uuid;

use super::{RESUME_LIMIT, Synth, Task, USERS, channels_of};
use crate::oracle::record::{Head, Page, ResumeAsked, ResumeReply, Resumed, Seen, Welcome};
use crate::wire::ErrorCode;

impl Synth {
    pub(super) fn connect(&mut self, user: usize) {
        self.clock += 1;
        self.users[user].next_ref = 0;
        let number = self.recorder.user(USERS[user]);
        let connection = self.recorder.open(number, self.clock);
        self.recorder.close(connection, self.clock);
        self.users[user].connection = Some(connection);
        let mut heads = Vec::new();
        for name in channels_of(user).filter(|name| self.channels[name].has(user)) {
            let channel = &self.channels[name];
            let read_seq = *self.users[user].read.get(name).unwrap_or(&0).min(&channel.broadcast);
            heads.push(Head {
                channel: self.recorder.channel(channel.id),
                last_seq: channel.broadcast,
                delivered_seq: read_seq,
                read_seq,
                unread: channel.broadcast - read_seq,
                by_all: Some((read_seq, read_seq)),
                messages: channel.slice(channel.broadcast.saturating_sub(10), channel.broadcast),
            });
        }
        self.tell(user, Seen::Welcome(Box::new(Welcome { heads })));
        self.resume(user);
        for (channel, client_id, body) in std::mem::take(&mut self.users[user].unanswered) {
            self.coverage.retries += 1;
            self.attempt(user, channel, client_id, body);
        }
    }

    fn resume(&mut self, user: usize) {
        let after = self.users[user].contiguous.clone();
        if after.is_empty() {
            return;
        }
        let reference = self.reference(user);
        let number = |synth: &mut Self, name| synth.recorder.channel(synth.channels[name].id);
        let channels = after.iter().map(|(name, seq)| (number(self, *name), *seq)).collect();
        self.tell(user, Seen::ResumeAsked(Box::new(ResumeAsked { reference, channels })));
        if self.one_in(3) {
            // Live frames may still come before the server handles the request.
            let name = *after.keys().next().unwrap();
            self.work(name);
        }
        let mut replies = Vec::new();
        for (name, after) in after {
            let (channel, last_seq) = (number(self, name), self.channels[name].broadcast);
            if !self.channels[name].has(user) {
                replies.push(Resumed { channel, complete: false, last_seq: 0 });
                continue;
            }
            let complete = last_seq.saturating_sub(after) <= RESUME_LIMIT;
            replies.push(Resumed { channel, complete, last_seq });
            self.coverage.ahead_of_store += u32::from(after > last_seq);
            let missing = self.channels[name].slice(after.min(last_seq), last_seq);
            if complete {
                missing.into_iter().for_each(|entry| self.tell(user, Seen::Message(entry)));
            } else {
                self.coverage.gaps += 1;
                self.tell(user, Seen::Gap { channel, last_seq });
                let reference = self.reference(user);
                self.tell(user, Seen::Page(Box::new(Page { reference, entries: missing })));
            }
            let contiguous = self.users[user].contiguous.get_mut(name).unwrap();
            *contiguous = last_seq.max(*contiguous);
        }
        self.tell(user, Seen::ResumeReply(Box::new(ResumeReply { reference, channels: replies })));
    }

    /// The end of a channel, stored or not.
    pub(super) fn look(&mut self, user: usize) {
        let names: Vec<_> = channels_of(user).filter(|name| self.channels[name].has(user)).collect();
        let name = *self.rng.choice(&names).unwrap();
        let reference = self.reference(user);
        let channel = self.recorder.channel(self.channels[name].id);
        self.tell(user, Seen::NewestAsked { reference, channel });
        let channel = &self.channels[name];
        let entries = channel.slice(channel.broadcast.saturating_sub(5), channel.broadcast);
        self.tell(user, Seen::Page(Box::new(Page { reference, entries })));
    }

    pub(super) fn send(&mut self, user: usize) {
        if self.users[user].connection.is_none() {
            return;
        }
        let names: Vec<_> = channels_of(user).filter(|name| self.channels[name].has(user)).collect();
        let name = *self.rng.choice(&names).unwrap();
        let (client_id, body) = (self.new_id(), format!("message {}", self.ids));
        match self.rng.u64(0..30) {
            0 => {
                self.coverage.refused += 1;
                self.refuse(user, name, client_id, &body, ErrorCode::TooLarge, false);
            }
            1 => {
                self.coverage.deferred += 1;
                self.refuse(user, name, client_id, &body, ErrorCode::Overloaded, true);
                self.users[user].unanswered.push((name, client_id, body));
            }
            _ => self.attempt(user, name, client_id, body),
        }
    }

    fn refuse(&mut self, user: usize, name: &str, client_id: Uuid, body: &str, code: ErrorCode, retry: bool) {
        let reference = self.begin(user, name, client_id, body);
        self.tell(user, Seen::Refused { reference, code, retry });
    }

    fn begin(&mut self, user: usize, name: &str, client_id: Uuid, body: &str) -> u64 {
        let reference = self.reference(user);
        let sender = self.recorder.user(USERS[user]);
        let send = self.recorder.send(self.channels[name].id, sender, client_id, Some(body));
        self.tell(user, Seen::Send { reference, send });
        reference
    }

    /// One in ten breaks the connection, with the message queued or lost.
    fn attempt(&mut self, user: usize, name: &'static str, client_id: Uuid, body: String) {
        let is_connected = self.users[user].connection.is_some();
        if is_connected && (self.rejected.contains(&client_id) || !self.channels[name].has(user)) {
            return self.refuse(user, name, client_id, &body, ErrorCode::NotAMember, false);
        }
        let reference = self.begin(user, name, client_id, &body);
        let broken = self.one_in(10) || !is_connected;
        let reached = is_connected && !(broken && self.one_in(2));
        if reached {
            if self.known.insert(client_id) {
                let task = Task::Send { sender: user, client_id, body: body.clone() };
                self.channels.get_mut(name).unwrap().queue.push(task);
            } else {
                self.coverage.deduplicated += 1;
            }
        }
        if broken {
            self.users[user].unanswered.push((name, client_id, body));
            self.disconnect(user);
        } else {
            self.tell(user, Seen::Accepted { reference });
            self.tell_again(user, name, client_id);
        }
    }

    /// What was stored before is said again to whoever sends it again.
    fn tell_again(&mut self, user: usize, name: &str, client_id: Uuid) {
        let Some(seq) = self.stored.get(&client_id).copied() else { return };
        let sender = self.recorder.user(USERS[user]);
        let send = self.recorder.send(self.channels[name].id, sender, client_id, None);
        self.tell(user, Seen::Persisted { send, seq });
    }
}
