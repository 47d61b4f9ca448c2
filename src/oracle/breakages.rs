//! Ways to break a correct record, each in one promise; false where the record has no place for it.

use fastrand::Rng;
use uuid::Uuid;

use super::places::{
    answer, asked_after, attempt, exchange, find, follower, heads, message, pair, random_entry, restarted, seen,
    send_of, variant,
};
use super::record::{
    Body, ChannelNo, Connection, Entry, EntryNo, Event, Malformed, Mark, Page, Record, ResumeReply, Seen,
};
use super::stored::Persisted;
use crate::wire::ErrorCode;

pub fn lose_last(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    let channel = record.entry(entry).channel;
    cut(record, |history_channel, _| history_channel == channel)
}

pub fn lose_last_for_one(record: &mut Record, rng: &mut Rng) -> bool {
    let chosen = rng.usize(0..record.histories.len());
    cut(record, |_, index| index == chosen)
}

/// Takes the last entry off some histories, if it is a message.
fn cut(record: &mut Record, wanted: impl Fn(ChannelNo, usize) -> bool) -> bool {
    let mut was_cut = false;
    for (index, history) in record.histories.iter_mut().enumerate() {
        if wanted(history.channel, index) {
            let last = history.entries.pop();
            was_cut |= last.is_some_and(|last| !record.entries[last.0 as usize].is_system());
        }
    }
    was_cut
}

fn append(record: &mut Record, of: EntryNo, change: impl Fn(&mut Entry)) {
    let channel = record.entry(of).channel;
    let mut appended = None;
    for index in 0..record.histories.len() {
        if record.histories[index].channel == channel {
            let seq = record.histories[index].entries.len() as u64 + 1;
            let entry = *appended.get_or_insert_with(|| {
                variant(record, of, |entry| {
                    entry.seq = seq;
                    change(entry);
                })
            });
            record.histories[index].entries.push(entry);
        }
    }
}

pub fn invent(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    append(record, entry, |entry| entry.client_id = Some(Uuid::nil()));
    true
}

pub fn forget_client_id(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    append(record, entry, |entry| entry.client_id = None);
    true
}

pub fn log_twice(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    append(record, entry, |_| ());
    true
}

fn alter(entry: &mut Entry) {
    entry.body = Body(entry.body.0 ^ 1);
}

pub fn alter_everywhere(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    alter(&mut record.entries[entry.0 as usize]);
    true
}

/// One frame shows another entry.
fn with_message(record: &mut Record, rng: &mut Rng, change: impl FnOnce(&mut Entry)) -> bool {
    let is_text = |record: &Record, entry| !Entry::is_system(record.entry(entry));
    let wanted = |connection: &Connection, at| message(connection, at).is_some_and(|entry| is_text(record, entry));
    let Some((on, at)) = find(record, rng, wanted) else { return false };
    let Some(entry) = message(&record.connections[on], at) else { return false };
    let changed = variant(record, entry, change);
    record.connections[on].events[at].seen = Seen::Message(changed);
    record.entry(changed) != record.entry(entry)
}

pub fn alter_once(record: &mut Record, rng: &mut Rng) -> bool {
    with_message(record, rng, alter)
}

pub fn alter_where_nobody_reads(record: &mut Record, rng: &mut Rng) -> bool {
    record.histories.clear();
    let twice = |connection: &Connection, at: usize| {
        message(connection, at).is_some_and(|entry| !record.entry(entry).is_system() && shown(record, entry) > 1)
    };
    let Some((on, at)) = find(record, rng, twice) else { return false };
    let Some(entry) = message(&record.connections[on], at) else { return false };
    let changed = variant(record, entry, alter);
    record.connections[on].events[at].seen = Seen::Message(changed);
    true
}

/// How many frames show an entry.
fn shown(record: &Record, entry: EntryNo) -> usize {
    let events = record.connections.iter().flat_map(|connection| &connection.events);
    events.filter(|event| event.seen == Seen::Message(entry)).count()
}

pub fn give_seq_twice(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(other) = random_entry(record, rng) else { return false };
    let other = *record.entry(other);
    let mut changed = false;
    with_message(record, rng, |entry| {
        changed = entry.id != other.id;
        *entry = Entry { seq: entry.seq, channel: entry.channel, ..other };
    }) && changed
}

pub fn show_at_another_seq(record: &mut Record, rng: &mut Rng) -> bool {
    with_message(record, rng, |entry| entry.seq += 3)
}

pub fn change_sender(record: &mut Record, rng: &mut Rng) -> bool {
    let users = record.users.len() as u32;
    with_message(record, rng, |entry| entry.sender.0 = (entry.sender.0 + 1) % users)
}

pub fn alter_hit(record: &mut Record, rng: &mut Rng) -> bool {
    let at = rng.usize(0..record.hits.len());
    record.hits[at].id = Uuid::nil();
    true
}

pub fn find_what_is_not_there(record: &mut Record, rng: &mut Rng) -> bool {
    let at = rng.usize(0..record.hits.len());
    record.hits[at].seq += 1_000_000;
    true
}

pub fn refuse_afterwards(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    let Some((on, _, accepted)) = attempt(record, entry) else { return false };
    let events = &mut record.connections[on].events;
    let event = events.iter_mut().find(|event| event.at == accepted).unwrap();
    let Seen::Accepted { reference } = event.seen else { return false };
    event.seen = Seen::Refused { reference, code: ErrorCode::NotAMember, retry: false };
    true
}

pub fn reject_afterwards(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    let Some(send) = send_of(record, entry) else { return false };
    let sender = record.entry(entry).sender;
    let connection = record.connections.iter_mut().find(|connection| connection.user == sender).unwrap();
    connection.events.push(Event { at: 0, seen: Seen::Rejected { send } });
    true
}

pub fn reject_what_nobody_sent(record: &mut Record, rng: &mut Rng) -> bool {
    let at = rng.usize(0..record.sends.len());
    let send = super::record::SendNo(record.sends.len() as u32);
    record.sends.push(super::record::Send { client_id: Uuid::nil(), body: None, ..record.sends[at] });
    record.connections[0].events.push(Event { at: 0, seen: Seen::Rejected { send } });
    true
}

pub fn show_early(record: &mut Record, rng: &mut Rng) -> bool {
    let is_text = |entry: EntryNo| !record.entry(entry).is_system();
    let wanted = |connection: &Connection, at| message(connection, at).is_some_and(is_text);
    let Some((on, at)) = find(record, rng, wanted) else { return false };
    record.connections[on].events[at].at = 0;
    true
}

pub fn drop_frame(record: &mut Record, rng: &mut Rng) -> bool {
    let wanted = |connection: &Connection, at| follower(record, connection, at).is_some();
    let Some((on, at)) = find(record, rng, wanted) else { return false };
    record.connections[on].events.remove(at);
    true
}

pub fn repeat_frame(record: &mut Record, rng: &mut Rng) -> bool {
    let next = |connection: &Connection, at| follower(record, connection, at);
    let two_more = |connection: &Connection, at| {
        next(connection, at).and_then(|at| next(connection, at)).and_then(|at| next(connection, at))
    };
    let Some((on, at)) = find(record, rng, |connection, at| two_more(connection, at).is_some()) else { return false };
    let events = &mut record.connections[on].events;
    let again = events[at].clone();
    events.insert(at + 1, again);
    true
}

pub fn swap_frames(record: &mut Record, rng: &mut Rng) -> bool {
    let wanted = |connection: &Connection, at| follower(record, connection, at).is_some();
    let Some((on, at)) = find(record, rng, wanted) else { return false };
    let next = follower(record, &record.connections[on], at).unwrap();
    record.connections[on].events.swap(at, next);
    true
}

/// The first frame behind a gap is dropped, and another follows.
pub fn hole_behind_gap(record: &mut Record, rng: &mut Rng) -> bool {
    let next_two = |connection: &Connection, at: usize| {
        let Seen::Gap { channel, last_seq } = *seen(connection, at) else { return None };
        let of_channel =
            |at: &usize| message(connection, *at).is_some_and(|entry| record.entry(entry).channel == channel);
        let mut later = (at..connection.events.len()).filter(of_channel);
        let (first, _) = (later.next()?, later.next()?);
        let entry = record.entry(message(connection, first)?);
        (entry.seq == last_seq + 1 && !entry.is_system()).then_some(first)
    };
    let wanted = |connection: &Connection, at: usize| next_two(connection, at).is_some();
    let Some((on, at)) = find(record, rng, wanted) else { return false };
    let Some(first) = next_two(&record.connections[on], at) else { return false };
    record.connections[on].events.remove(first);
    true
}

pub fn hole_in_welcome(record: &mut Record, rng: &mut Rng) -> bool {
    change_one(record, rng, |seen| match seen {
        Seen::Welcome(welcome) => {
            let head = welcome.heads.iter_mut().find(|head| head.messages.len() > 2);
            head.is_some_and(|head| head.messages.remove(1).0 > 0)
        }
        _ => false,
    })
}

pub fn swap_own(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((first, second)) = pair(record, rng, true) else { return false };
    exchange(record, first, second);
    true
}

pub fn swap_after_accepted(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((first, second)) = pair(record, rng, false) else { return false };
    exchange(record, first, second);
    true
}

/// Changes one event of the sort that `change` accepts.
fn change_one(record: &mut Record, rng: &mut Rng, change: fn(&mut Seen) -> bool) -> bool {
    let changeable = |connection: &Connection, at| change(&mut seen(connection, at).clone());
    let Some((on, at)) = find(record, rng, changeable) else { return false };
    change(&mut record.connections[on].events[at].seen)
}

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

pub fn turn_watermark_back(record: &mut Record, rng: &mut Rng) -> bool {
    let reported = |connection: &Connection, at| matches!(seen(connection, at), Seen::Watermark { seq: 1.., .. });
    let Some((on, at)) = find(record, rng, reported) else { return false };
    let events = &mut record.connections[on].events;
    let mut back = events[at].clone();
    if let Seen::Watermark { seq, .. } = &mut back.seen {
        *seq -= 1;
    }
    events.insert(at + 1, back);
    true
}

pub fn watermark_beyond(record: &mut Record, rng: &mut Rng) -> bool {
    change_one(record, rng, |seen| match seen {
        Seen::Watermark { seq: seq @ 1.., mark: Mark::Read, .. } => {
            *seq += 1_000_000;
            true
        }
        _ => false,
    })
}

pub fn miscount_unread(record: &mut Record, rng: &mut Rng) -> bool {
    change_one(record, rng, |seen| match seen {
        Seen::Welcome(welcome) => {
            welcome.heads[0].unread += 1;
            true
        }
        _ => false,
    })
}

pub fn deliver_beyond(record: &mut Record, rng: &mut Rng) -> bool {
    change_one(record, rng, |seen| match seen {
        Seen::Welcome(welcome) => {
            welcome.heads[0].delivered_seq = welcome.heads[0].last_seq + 1;
            true
        }
        _ => false,
    })
}

pub fn forget_read(record: &mut Record, _: &mut Rng) -> bool {
    for number in (0..record.connections.len()).rev() {
        let Connection { user, opened_at, .. } = record.connections[number];
        for at in 0..record.connections[number].events.len() {
            let Seen::Welcome(welcome) = &mut record.connections[number].events[at].seen else { continue };
            // The last welcome with something read: an earlier one of the user has it too, or this isn't applicable.
            let Some(head) = welcome.heads.iter_mut().find(|head| head.read_seq > 0) else { continue };
            let channel = head.channel;
            (head.read_seq, head.delivered_seq, head.unread) = (0, 0, head.last_seq);
            return record.connections.iter().any(|earlier| {
                let mut heads = heads(earlier).into_iter().flatten();
                let known = heads.any(|head| head.channel == channel && head.read_seq > 0);
                earlier.user == user && earlier.opened_at < opened_at && known
            });
        }
    }
    false
}

pub fn hole_in_history(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(chosen) = random_entry(record, rng) else { return false };
    let Entry { channel, seq, .. } = *record.entry(chosen);
    let mut inside = false;
    for history in record.histories.iter_mut().filter(|history| history.channel == channel) {
        inside = seq < history.entries.len() as u64;
        history.entries.retain(|entry| *entry != chosen);
    }
    inside
}

pub fn disorder_history(record: &mut Record, rng: &mut Rng) -> bool {
    let at = rng.usize(0..record.histories.len());
    let entries = &mut record.histories[at].entries;
    let long_enough = entries.len() >= 2;
    if long_enough {
        entries.swap(0, 1);
    }
    long_enough
}

pub fn history_of_another_channel(record: &mut Record, rng: &mut Rng) -> bool {
    let at = rng.usize(0..record.histories.len());
    let channel = record.histories[at].channel;
    let others = (0..record.channels.len() as u32).map(ChannelNo).filter(|other| *other != channel);
    let Some(other) = rng.choice(others.collect::<Vec<_>>()) else { return false };
    record.histories[at].channel = other;
    !record.histories[at].entries.is_empty()
}

pub fn accept_nothing(record: &mut Record, _: &mut Rng) -> bool {
    let events = &mut record.connections[0].events;
    events.push(Event { at: u64::MAX, seen: Seen::Accepted { reference: 1_000_000 } });
    true
}

pub fn malform(record: &mut Record, _: &mut Rng) -> bool {
    let problem = "no seq".to_owned();
    let events = &mut record.connections[0].events;
    events.push(Event { at: u64::MAX, seen: Seen::Malformed(Box::new(Malformed { problem })) });
    true
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

/// Where a removal was shown to the one who is removed, and the entry that follows it in the log.
fn removal(record: &Record, rng: &mut Rng) -> Option<(usize, usize, EntryNo)> {
    let removes = |connection: &Connection, entry: EntryNo| {
        let mut changes = record.changes.iter().filter(|change| change.entry == entry && !change.added);
        changes.any(|change| change.members.contains(&connection.user))
    };
    // The next entry tells of something else than that it was added again.
    let next = |entry: EntryNo| {
        let Entry { channel, seq, .. } = *record.entry(entry);
        let mut log = record.histories.iter().filter(|history| history.channel == channel);
        let next = log.next()?.entries.get(usize::try_from(seq).ok()?)?;
        (!record.entry(*next).is_system()).then_some(*next)
    };
    let wanted = |connection: &Connection, at| {
        let answered = !connection.events[at..].iter().any(|event| matches!(event.seen, Seen::ResumeReply(_)));
        answered && message(connection, at).is_some_and(|entry| removes(connection, entry) && next(entry).is_some())
    };
    let (on, at) = find(record, rng, wanted)?;
    Some((on, at, next(message(&record.connections[on], at)?)?))
}

pub fn show_after_removal(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((on, at, next)) = removal(record, rng) else { return false };
    record.connections[on].events.insert(at + 1, Event { at: u64::MAX, seen: Seen::Message(next) });
    true
}

/// A page that goes behind a removal, of somebody who was not added again.
pub fn page_after_removal(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((on, at, next)) = removal(record, rng) else { return false };
    let (user, next_seq) = (record.connections[on].user, record.entry(next).seq);
    let comes_back = record
        .changes
        .iter()
        .any(|change| change.added && change.members.contains(&user) && record.entry(change.entry).seq > next_seq);
    let page = Seen::Page(Box::new(Page { reference: 1_000_000, entries: vec![next] }));
    record.connections[on].events.insert(at + 1, Event { at: u64::MAX, seen: page });
    !comes_back
}
