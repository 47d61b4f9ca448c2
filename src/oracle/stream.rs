//! P5, P8, P9 and P11: what one connection is told, in its order.

use std::collections::HashMap;

use super::channel_stream::{Resume, Stream};
use super::ending::Ending;
use super::log::Log;
use super::members::{Members, Membership};
use super::purges::Purges;
use super::record::{ChannelNo, Connection, EntryNo, Event, Head, Mark, Record, ResumeReply, Seen};
use super::stored::Persisted;
use super::verdict::{Found, Promise};
use crate::message::Seq;

/// A stream that stands still for so long, in nanoseconds, while more is stored, has stopped: a gateway waits some ten
/// seconds for a missing entry before it says `gap`.
const STOPPED: u64 = 15_000_000_000;

/// Returns how many streams ended before their channel did, and can't be told from those that lag.
pub fn check(
    record: &Record,
    log: &Log,
    members: &Members,
    persisted: &Persisted,
    ending: &Ending,
    purges: &Purges,
    found: &mut Found,
) -> u64 {
    let mut unjudged = 0;
    let mut streams = Streams {
        record,
        log,
        members,
        purges,
        places: vec![None; record.channels.len()],
        streams: Vec::new(),
        resumes: HashMap::new(),
    };
    for connection in &record.connections {
        streams.begin();
        for event in &connection.events {
            streams.see(connection, event, found);
        }
        if let Some(until) = ending.stayed(connection) {
            let lagging = streams.end(connection, persisted, until, found);
            unjudged += if ending.is_last(connection) { lagging } else { 0 };
        }
    }
    unjudged
}

/// A connection's view of its channels.
struct Streams<'a> {
    record: &'a Record,
    log: &'a Log,
    members: &'a Members,
    purges: &'a Purges,
    /// By channel: where its stream is; emptied from one connection to the next.
    places: Vec<Option<u32>>,
    streams: Vec<(ChannelNo, Stream)>,
    /// The channels of each `resume` that is not answered yet.
    resumes: HashMap<u64, &'a [(ChannelNo, Seq)]>,
}

impl<'a> Streams<'a> {
    fn begin(&mut self) {
        for (channel, _) in self.streams.drain(..) {
            self.places[channel.0 as usize] = None;
        }
        self.resumes.clear();
    }

    fn of(&mut self, channel: ChannelNo) -> &mut Stream {
        let place = *self.places[channel.0 as usize].get_or_insert_with(|| {
            self.streams.push((channel, Stream::default()));
            self.streams.len() as u32 - 1
        });
        &mut self.streams[place as usize].1
    }

    fn see(&mut self, connection: &'a Connection, event: &'a Event, found: &mut Found) {
        let (record, at) = (self.record, event.at);
        match &event.seen {
            Seen::Message(entry) => {
                self.of(record.entry(*entry).channel).moved_at = at;
                self.message(connection, *entry, found);
            }
            Seen::Welcome(welcome) => {
                for head in &welcome.heads {
                    check_head(record, connection, head, self.purges.through(head.channel), found);
                    let stream = self.of(head.channel);
                    stream.moved_at = at;
                    stream.welcome(head.last_seq, head.by_all.unwrap_or_default());
                }
            }
            Seen::Gap { channel, last_seq } => {
                let stream = self.of(*channel);
                stream.moved_at = at;
                stream.gap(*last_seq);
            }
            Seen::Purged { channel, seq } => {
                let stream = self.of(*channel);
                stream.moved_at = at;
                stream.purged(*seq);
            }
            Seen::ResumeAsked(asked) => {
                self.resumes.insert(asked.reference, &asked.channels);
                for (channel, after) in &asked.channels {
                    self.of(*channel).resumes.push(Resume::new(asked.reference, *after));
                }
            }
            Seen::ResumeReply(reply) => {
                reply.channels.iter().for_each(|resumed| self.of(resumed.channel).moved_at = at);
                self.resume_reply(connection, reply, found);
            }
            Seen::Refused { reference, .. } => {
                for (channel, _) in self.resumes.remove(reference).unwrap_or_default() {
                    self.of(*channel).resumes.retain(|resume| resume.reference != *reference);
                }
            }
            Seen::Watermark { mark, channel, seq } => self.watermark(connection, *mark, *channel, *seq, found),
            Seen::Page(page) => page.entries.iter().for_each(|entry| self.page_entry(connection, *entry, found)),
            _ => {}
        }
    }

    /// The connection stayed until `at`: what was stored long before has come. Returns how many of its streams lack the
    /// end of their channel for a shorter time, or for one that isn't known.
    fn end(&self, connection: &Connection, persisted: &Persisted, at: u64, found: &mut Found) -> u64 {
        let mut unjudged = 0;
        for (channel, stream) in &self.streams {
            let (record, last) = (self.record, self.log.end(self.record, *channel));
            let is_member = self.members.at(connection.user, *channel, Seq::MAX) == Membership::Member;
            let lacks_more = stream.awaited().is_none_or(|awaited| awaited <= last);
            if !is_member || stream.removed_at.is_some() || !lacks_more || last == 0 {
                continue;
            }
            let long_before = at.checked_sub(STOPPED).filter(|long_before| stream.moved_at <= *long_before);
            let stored = long_before.map_or(0, |long_before| persisted.before(*channel, long_before));
            let Some(awaited) = stream.awaited().filter(|awaited| *awaited <= stored) else {
                unjudged += 1;
                continue;
            };
            found.add(Promise::P5, || {
                let (user, id) = (record.user(connection.user), record.channel(*channel));
                let detail = format!(
                    "{user} in {id}: {awaited} was next and never came, nor did anything after it up to {stored}, \
                     stored {} s before the connection ended",
                    STOPPED / 1_000_000_000
                );
                (detail, [record.place(*channel, awaited), record.place(*channel, stored)])
            });
        }
        unjudged
    }

    fn message(&mut self, connection: &Connection, number: EntryNo, found: &mut Found) {
        let (record, entry) = (self.record, self.record.entry(number));
        let who = || format!("{} in {}", record.user(connection.user), record.channel(entry.channel));
        let membership = self.members.at(connection.user, entry.channel, entry.seq);
        let stream = self.of(entry.channel);
        match membership {
            Membership::Member => {}
            Membership::Leaving => stream.removed_at = Some(entry.seq),
            // Its stream begins anew here.
            Membership::Added => stream.added(entry.seq),
            // Who is a member again may read, and so resume, what was written meanwhile.
            Membership::Removed { again: true, .. } if !stream.resumes.is_empty() => {}
            Membership::Removed { at, .. } => found.add(Promise::P11, || {
                let detail = format!("{}: {} came after the removal at {at}", who(), record.show(number));
                (detail, [record.ids_of(number), record.place(entry.channel, at)])
            }),
        }
        if let Err(expected) = stream.message(entry.seq) {
            let how = if entry.seq < expected { "came again or too late" } else { "came too early" };
            found.add(Promise::P5, || {
                let detail = format!("{}: {} {how}, {expected} was next", who(), record.show(number));
                (detail, [record.ids_of(number)])
            });
        }
    }

    /// Pages are cut by the time of the request, which isn't known here; but not behind a removal that was shown.
    fn page_entry(&mut self, connection: &Connection, number: EntryNo, found: &mut Found) {
        let (record, entry) = (self.record, self.record.entry(number));
        let membership = self.members.at(connection.user, entry.channel, entry.seq);
        if let Membership::Removed { at, again: false } = membership
            && self.of(entry.channel).removed_at.is_some_and(|shown| shown >= at)
        {
            found.add(Promise::P11, || {
                let who = record.user(connection.user);
                let detail = format!("{who} read {} after the removal at {at}", record.show(number));
                (detail, [record.ids_of(number), record.place(entry.channel, at)])
            });
        }
    }

    fn resume_reply(&mut self, connection: &Connection, reply: &ResumeReply, found: &mut Found) {
        let record = self.record;
        let answers: HashMap<ChannelNo, _> = reply.channels.iter().map(|resumed| (resumed.channel, resumed)).collect();
        for (channel, _) in self.resumes.remove(&reply.reference).unwrap_or_default() {
            let stream = self.of(*channel);
            let Some(resume) = stream.take_resume(reply.reference) else { continue };
            let problem = match answers.get(channel) {
                None => Some("no answer for the channel".to_owned()),
                Some(answer) if answer.complete => stream.resumed(&resume, answer.last_seq),
                Some(_) if resume.has_restarted => Some(format!("a part up to {}, then a refusal", resume.reached)),
                // Refused: the `gap` frame says where the stream goes on, before or after this reply.
                Some(_) => None,
            };
            if let Some(problem) = problem {
                found.add(Promise::P8, || {
                    let (user, id) = (record.user(connection.user), record.channel(*channel));
                    let detail = format!("{user} in {id}, resumed after {}: {problem}", resume.after);
                    (detail, [record.place(*channel, resume.reached.saturating_add(1))])
                });
            }
        }
    }

    fn watermark(&mut self, connection: &Connection, mark: Mark, channel: ChannelNo, seq: Seq, found: &mut Found) {
        let (record, log) = (self.record, self.log);
        let who = || format!("{} in {}: {mark:?}", record.user(connection.user), record.channel(channel));
        let stream = self.of(channel);
        let known = match mark {
            Mark::Delivered => &mut stream.delivered,
            Mark::Read => &mut stream.read,
        };
        if seq < *known {
            found.add(Promise::P9, || {
                (format!("{} went from {known} back to {seq}", who()), [record.place(channel, seq)])
            });
        }
        *known = seq.max(*known);
        if log.was_read(channel) && seq > log.end(record, channel) {
            found.add(Promise::P9, || {
                (format!("{} {seq} is beyond the log's end", who()), [record.place(channel, seq)])
            });
        }
    }
}

/// Unread is derived, and the messages of a welcome are the log's end.
fn check_head(record: &Record, connection: &Connection, head: &Head, purged: Seq, found: &mut Found) {
    let Head { channel, last_seq, delivered_seq, read_seq, unread, .. } = *head;
    let who = || format!("{}'s welcome to {}", record.user(connection.user), record.channel(channel));
    // Of what was purged, some or all when the welcome was said, nothing is unread.
    let least = last_seq.saturating_sub(read_seq.max(purged));
    if last_seq.checked_sub(read_seq).is_none_or(|most| !(least..=most).contains(&unread)) {
        found.add(Promise::P9, || {
            let detail = format!("{}: unread is {unread}, last_seq {last_seq}, read_seq {read_seq}", who());
            (detail, [record.place(channel, last_seq)])
        });
    }
    if delivered_seq > last_seq {
        found.add(Promise::P9, || {
            let detail = format!("{}: delivered_seq {delivered_seq} is beyond last_seq {last_seq}", who());
            (detail, [record.place(channel, delivered_seq)])
        });
    }
    let first = last_seq.saturating_add(1).saturating_sub(head.messages.len() as u64);
    let expected = (0..).map(|index| first.saturating_add(index));
    let wrong = head.messages.iter().zip(expected).find(|(entry, expected)| record.entry(**entry).seq != *expected);
    if let Some((entry, expected)) = wrong {
        found.add(Promise::P5, || {
            let detail = format!("{}: {} where {expected} was next", who(), record.show(*entry));
            (detail, [record.ids_of(*entry)])
        });
    }
}
