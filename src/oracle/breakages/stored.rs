//! P7 and P8: what is persisted, and what a resume gives.

use fastrand::Rng;

use super::change_one;
use crate::oracle::places::{answer, asked_after, find, message, restarted, seen};
use crate::oracle::record::{ChannelNo, Connection, Record, ResumeReply, Seen};
use crate::oracle::stored::Persisted;

pub fn persist_elsewhere(record: &mut Record, rng: &mut Rng) -> bool {
    change_one(record, rng, |seen| match seen {
        Seen::Persisted { seq, .. } => {
            *seq += 1;
            true
        }
        _ => false,
    })
}

pub fn persist_beyond_the_end(record: &mut Record, rng: &mut Rng) -> bool {
    change_one(record, rng, |seen| match seen {
        Seen::Persisted { seq, .. } => {
            *seq += 1_000_000;
            true
        }
        _ => false,
    })
}

/// A message that a resume replayed and nothing else showed, and how far from the reply.
fn replayed(record: &Record, connection: &Connection, at: usize, from_reply: usize) -> bool {
    let Some(number) = message(connection, at) else { return false };
    let Some(Seen::ResumeReply(reply)) = connection.events.get(at + from_reply).map(|event| &event.seen) else {
        return false;
    };
    let entry = record.entry(number);
    let missing = asked_after(connection, reply.reference, entry.channel).is_some_and(|after| after < entry.seq);
    // If it came live just before, all of the missing has come even so.
    let times = (0..=at).filter(|at| message(connection, *at) == Some(number)).count();
    answer(&reply.channels, entry.channel).is_some_and(|reply| reply.complete) && missing && times == 1
}

pub fn shorten_resume(record: &mut Record, rng: &mut Rng) -> bool {
    let wanted = |connection: &Connection, at: usize| replayed(record, connection, at, 1);
    let Some((on, at)) = find(record, rng, wanted) else { return false };
    record.connections[on].events.remove(at);
    true
}

pub fn hole_in_resume(record: &mut Record, rng: &mut Rng) -> bool {
    let same_channel = |connection: &Connection, at: usize| {
        let channel_at = |at| message(connection, at).map(|entry| record.entry(entry).channel);
        channel_at(at) == channel_at(at + 1)
    };
    let wanted = |connection: &Connection, at: usize| {
        at + 2 < connection.events.len()
            && replayed(record, connection, at, 2)
            && replayed(record, connection, at + 1, 1)
            && same_channel(connection, at)
    };
    let Some((on, at)) = find(record, rng, wanted) else { return false };
    record.connections[on].events.remove(at);
    true
}

fn with_resume(record: &mut Record, rng: &mut Rng, change: fn(&mut ResumeReply, ChannelNo)) -> bool {
    let Some((on, at)) = find(record, rng, |connection, at| restarted(connection, at).is_some()) else { return false };
    let connection = &mut record.connections[on];
    let channel = restarted(connection, at).unwrap();
    if let Seen::ResumeReply(reply) = &mut connection.events[at].seen {
        change(reply, channel);
    }
    true
}

pub fn refuse_resumed(record: &mut Record, rng: &mut Rng) -> bool {
    with_resume(record, rng, |reply, channel| {
        let answers = reply.channels.iter_mut();
        answers.filter(|answer| answer.channel == channel).for_each(|answer| answer.complete = false);
    })
}

pub fn ignore_resume(record: &mut Record, rng: &mut Rng) -> bool {
    with_resume(record, rng, |reply, channel| reply.channels.retain(|answer| answer.channel != channel))
}

pub fn resume_behind_welcome(record: &mut Record, rng: &mut Rng) -> bool {
    with_resume(record, rng, |reply, channel| {
        reply.channels.iter_mut().filter(|answer| answer.channel == channel).for_each(|answer| answer.last_seq = 0);
    })
}

/// The newest page lacks what somebody was told to be persisted before it was asked for.
pub fn page_behind_store(record: &mut Record, rng: &mut Rng) -> bool {
    let persisted = Persisted::of(record);
    let stored = |connection: &Connection, at: usize| {
        let Seen::NewestAsked { channel, .. } = *seen(connection, at) else { return 0 };
        persisted.before(channel, connection.events[at].at)
    };
    let Some((on, at)) = find(record, rng, |connection, at| stored(connection, at) > 0) else { return false };
    let stored = stored(&record.connections[on], at);
    let Record { entries, connections, .. } = record;
    let Some(event) = connections[on].events.get_mut(at + 1) else { return false };
    let Seen::Page(page) = &mut event.seen else { return false };
    page.entries.retain(|entry| entries[entry.0 as usize].seq < stored);
    true
}

/// A resume ends before that, and so does what it sent.
pub fn resume_behind_store(record: &mut Record, rng: &mut Rng) -> bool {
    let persisted = Persisted::of(record);
    let channel_of = |connection: &Connection, at: usize| {
        let Seen::ResumeAsked(asked) = seen(connection, at) else { return None };
        let moment = connection.events[at].at;
        // A client that is itself behind: what welcome had is judged by another rule.
        let behind = asked.channels.iter().find(|(channel, _)| persisted.before(*channel, moment) > 0);
        behind.map(|(channel, _)| (*channel, persisted.before(*channel, moment)))
    };
    let Some((on, at)) = find(record, rng, |connection, at| channel_of(connection, at).is_some()) else { return false };
    let Some((channel, stored)) = channel_of(&record.connections[on], at) else { return false };
    let replies = record.connections[on].events[at..].iter_mut().filter_map(|event| match &mut event.seen {
        Seen::ResumeReply(reply) => reply.channels.iter_mut().find(|answer| answer.channel == channel),
        _ => None,
    });
    let Some(reply) = replies.take(1).find(|reply| reply.complete) else { return false };
    reply.last_seq = stored - 1;
    true
}

pub fn find_nothing(record: &mut Record, rng: &mut Rng) -> bool {
    let count = record.searches.len();
    record.searches.get_mut(rng.usize(0..count.max(1))).is_some_and(|search| std::mem::take(&mut search.is_found))
}

pub fn welcome_behind_store(record: &mut Record, rng: &mut Rng) -> bool {
    let persisted = Persisted::of(record);
    let stored = |connection: &Connection, at: usize| {
        let Seen::Welcome(welcome) = seen(connection, at) else { return 0 };
        welcome.heads.first().map_or(0, |head| persisted.before(head.channel, connection.opened_at))
    };
    let Some((on, at)) = find(record, rng, |connection, at| stored(connection, at) > 0) else { return false };
    let stored = stored(&record.connections[on], at);
    if let Seen::Welcome(welcome) = &mut record.connections[on].events[at].seen {
        welcome.heads[0].last_seq = stored - 1;
    }
    true
}
