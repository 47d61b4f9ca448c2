//! P5, P8 and P9: what one connection is told, in its order.

use std::collections::HashMap;

use super::log::Log;
use super::record::{Connection, Head, Mark, Record, Resumed, Seen};
use super::{Found, Promise};

pub fn check(record: &Record, log: &Log<'_>, found: &mut Found) {
    for connection in &record.connections {
        let mut streams = Streams { user: &connection.user, by_channel: HashMap::new() };
        for event in &connection.events {
            streams.see(&event.seen, log, found);
        }
    }
    check_own_marks(record, found);
}

/// A connection's view of one channel.
#[derive(Default)]
struct Stream {
    /// The seq that the next `message` must have; none: whatever comes first.
    next: Option<u64>,
    /// After a gap that said how far it reaches: a first frame beyond this leaves out more.
    at_most: Option<u64>,
    /// Another seq that it may have: a resume left it to the server from where to go on.
    or_next: Option<u64>,
    /// The head that `welcome` gave.
    welcomed: u64,
    resumes: Vec<Resume>,
    delivered: u64,
    read: u64,
}

/// A `resume` that is asked for and not yet answered.
struct Resume {
    reference: u64,
    after: u64,
    /// All of `after + 1 ..= reached` has come since it was asked for.
    reached: u64,
    /// The stream has jumped to `after + 1`.
    restarted: bool,
}

struct Streams<'a> {
    user: &'a str,
    by_channel: HashMap<&'a str, Stream>,
}

impl<'a> Streams<'a> {
    fn see(&mut self, seen: &'a Seen, log: &Log<'_>, found: &mut Found) {
        let user = self.user;
        match seen {
            Seen::Welcome(heads) => {
                for head in heads {
                    check_head(user, head, found);
                    let stream = self.by_channel.entry(&head.channel).or_default();
                    stream.next = Some(head.last_seq + 1);
                    stream.welcomed = head.last_seq;
                    (stream.delivered, stream.read) = head.by_all.unwrap_or_default();
                }
            }
            Seen::Message(entry) => {
                let stream = self.by_channel.entry(&entry.channel).or_default();
                stream.message(entry.seq, found, || format!("{user} in {}", entry.channel));
            }
            Seen::Gap { channel, last_seq } => {
                let stream = self.by_channel.entry(channel).or_default();
                stream.at_most = last_seq.map(|last_seq| (last_seq + 1).max(stream.next.unwrap_or(0)));
                stream.next = None;
                stream.or_next = None;
            }
            Seen::ResumeAsked { reference, channels } => {
                for (channel, after) in channels {
                    let resume = Resume { reference: *reference, after: *after, reached: *after, restarted: false };
                    self.by_channel.entry(channel).or_default().resumes.push(resume);
                }
            }
            Seen::ResumeReply { reference, channels } => self.resume_reply(*reference, channels, found),
            Seen::Refused { reference, .. } => {
                for stream in self.by_channel.values_mut() {
                    stream.resumes.retain(|resume| resume.reference != *reference);
                }
            }
            Seen::Watermark { mark, channel, seq } => {
                let stream = self.by_channel.entry(channel).or_default();
                let known = match mark {
                    Mark::Delivered => &mut stream.delivered,
                    Mark::Read => &mut stream.read,
                };
                if *seq < *known {
                    found.add(Promise::P9, || format!("{user} in {channel}: {mark:?} went from {known} back to {seq}"));
                }
                *known = *seq.max(known);
                let last = log.entries.get(channel.as_str()).and_then(|entries| entries.last_key_value());
                if last.is_some_and(|(last, _)| seq > last) {
                    found.add(Promise::P9, || format!("{user} in {channel}: {mark:?} {seq} is beyond the log's end"));
                }
            }
            _ => {}
        }
    }

    fn resume_reply(
        &mut self,
        reference: u64,
        channels: &std::collections::BTreeMap<String, Resumed>,
        found: &mut Found,
    ) {
        for (channel, stream) in &mut self.by_channel {
            let Some(index) = stream.resumes.iter().position(|resume| resume.reference == reference) else { continue };
            let resume = stream.resumes.remove(index);
            let who = || format!("{} in {channel}, resumed after {}", self.user, resume.after);
            match channels.get(*channel) {
                None => found.add(Promise::P8, || format!("{}: no answer for the channel", who())),
                Some(reply) if reply.complete => stream.resumed(&resume, reply.last_seq, found, who),
                Some(_) if resume.restarted => {
                    found.add(Promise::P8, || format!("{}: a part up to {}, then a refusal", who(), resume.reached));
                }
                // Refused: the `gap` frame says where the stream goes on, before or after this reply.
                Some(_) => {}
            }
        }
    }
}

impl Stream {
    fn message(&mut self, seq: u64, found: &mut Found, who: impl Fn() -> String) {
        for resume in &mut self.resumes {
            if resume.reached + 1 == seq {
                resume.reached = seq;
            }
        }
        let expected = self.next.unwrap_or_else(|| self.at_most.map_or(seq, |at_most| at_most.min(seq)));
        if seq == expected {
            self.next = Some(seq + 1);
            self.or_next = None;
            return;
        }
        if let Some(resume) = self.resumes.iter_mut().find(|resume| !resume.restarted && resume.after + 1 == seq) {
            resume.restarted = true;
            resume.reached = seq;
            self.next = Some(seq + 1);
            return;
        }
        if self.or_next == Some(seq) {
            self.or_next = None;
            self.next = Some(seq + 1);
            return;
        }
        if seq < expected {
            found.add(Promise::P5, || format!("{}: {seq} came again or too late, {expected} was next", who()));
        } else {
            found.add(Promise::P5, || format!("{}: {seq} came where {expected} was next", who()));
            self.next = Some(seq + 1);
        }
    }

    fn resumed(&mut self, resume: &Resume, last_seq: u64, found: &mut Found, who: impl Fn() -> String) {
        if resume.reached < last_seq {
            found.add(Promise::P8, || format!("{}: came up to {}, not {last_seq}", who(), resume.reached));
            self.next = Some(last_seq + 1);
        } else if last_seq < self.welcomed {
            found.add(Promise::P8, || format!("{}: up to {last_seq}, but welcome had {}", who(), self.welcomed));
        } else if !resume.restarted {
            // Nothing was missing. What came live before the reply may come again, as the stream restarted; and a
            // client that is ahead of the store (it saw entries that are still to be stored) may be spared them.
            self.or_next = Some(last_seq.max(resume.after) + 1).filter(|seq| Some(*seq) != self.next);
        }
    }
}

/// Unread is derived, and the messages of a welcome are the log's end.
fn check_head(user: &str, head: &Head, found: &mut Found) {
    if head.last_seq.checked_sub(head.read_seq) != Some(head.unread) {
        found.add(Promise::P9, || format!("{user}'s welcome: unread is not last_seq − read_seq in {head:?}"));
    }
    if head.delivered_seq > head.last_seq {
        found.add(Promise::P9, || format!("{user}'s welcome: delivered_seq is beyond last_seq in {head:?}"));
    }
    let first = (head.last_seq + 1).saturating_sub(head.messages.len() as u64);
    for (entry, expected) in head.messages.iter().zip(first..) {
        if entry.seq != expected {
            found.add(Promise::P5, || format!("{user}'s welcome: {} where {expected} was next in {head:?}", entry.seq));
            break;
        }
    }
}

/// A user's own watermarks, as the welcomes give them, don't go back from a connection to a later one.
fn check_own_marks(record: &Record, found: &mut Found) {
    let mut by_user: HashMap<&str, Vec<&Connection>> = HashMap::new();
    for connection in &record.connections {
        by_user.entry(&connection.user).or_default().push(connection);
    }
    for (user, mut connections) in by_user {
        let mut welcomes: Vec<(u64, &[Head])> = Vec::new();
        for connection in &connections {
            for event in &connection.events {
                if let Seen::Welcome(heads) = &event.seen {
                    welcomes.push((event.at, heads));
                }
            }
        }
        welcomes.sort_by_key(|(at, _)| *at);
        connections.sort_by_key(|connection| connection.opened_at);
        let mut earlier = welcomes.iter().peekable();
        let mut known: HashMap<&str, (u64, u64)> = HashMap::new();
        for connection in connections {
            while let Some((_, heads)) = earlier.next_if(|(at, _)| *at < connection.opened_at) {
                for head in *heads {
                    let (delivered, read) = known.entry(&head.channel).or_default();
                    *delivered = head.delivered_seq.max(*delivered);
                    *read = head.read_seq.max(*read);
                }
            }
            let welcome = connection.events.iter().find_map(|event| match &event.seen {
                Seen::Welcome(heads) => Some(heads),
                _ => None,
            });
            for head in welcome.into_iter().flatten() {
                let Some((delivered, read)) = known.get(head.channel.as_str()) else { continue };
                if head.delivered_seq < *delivered || head.read_seq < *read {
                    found.add(Promise::P9, || {
                        format!("{user}'s welcome: {head:?} after delivered {delivered} and read {read}")
                    });
                }
            }
        }
    }
}
