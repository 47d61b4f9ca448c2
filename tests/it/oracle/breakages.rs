//! Ways to break a correct record, each in one promise; false where the record has no place for it.

use super::places::{asked, attempt, entries, exchange, find, follower, message, pair, random_entry, restarted, seen};
use super::record::{Connection, Entry, Event, Mark, Record, Seen};
use super::stored::Persisted;
use crate::rng::Rng;

pub fn lose_last(record: &mut Record, rng: &mut Rng) -> bool {
    let channel = rng.pick(&record.histories).channel.clone();
    let of_channel = record.histories.iter_mut().filter(|history| history.channel == channel);
    of_channel.filter_map(|history| history.entries.pop()).count() > 0
}

pub fn lose_last_for_one(record: &mut Record, rng: &mut Rng) -> bool {
    let at = usize::try_from(rng.below(record.histories.len() as u64)).unwrap();
    record.histories[at].entries.pop().is_some()
}

pub fn append(record: &mut Record, entry: &Entry) -> bool {
    for history in record.histories.iter_mut().filter(|history| history.channel == entry.channel) {
        let seq = history.entries.len() as u64 + 1;
        history.entries.push(Entry { seq, ..entry.clone() });
    }
    true
}

pub fn invent(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    append(record, &Entry { client_id: Some("never sent".into()), ..entry })
}

pub fn log_twice(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    append(record, &entry)
}

pub fn alter_everywhere(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(chosen) = random_entry(record, rng) else { return false };
    for entry in entries(record).filter(|entry| entry.id == chosen.id) {
        entry.body.push('!');
    }
    true
}

pub fn with_message(record: &mut Record, rng: &mut Rng, change: impl FnOnce(&mut Entry)) -> bool {
    let Some((on, at)) = find(record, rng, |connection, at| message(connection, at).is_some()) else { return false };
    if let Seen::Message(entry) = &mut record.connections[on].events[at].seen {
        change(entry);
    }
    true
}

pub fn alter_once(record: &mut Record, rng: &mut Rng) -> bool {
    with_message(record, rng, |entry| entry.body.push('!'))
}

pub fn give_seq_twice(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(other) = random_entry(record, rng) else { return false };
    let mut changed = false;
    with_message(record, rng, |entry| {
        changed = entry.id != other.id;
        *entry = Entry { seq: entry.seq, channel: entry.channel.clone(), ..other };
    });
    changed
}

pub fn alter_hit(record: &mut Record, rng: &mut Rng) -> bool {
    let at = usize::try_from(rng.below(record.hits.len() as u64)).unwrap();
    record.hits[at].entry.id.push('x');
    true
}

pub fn refuse_afterwards(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    let Some((on, _, accepted)) = attempt(record, &entry) else { return false };
    let events = &mut record.connections[on].events;
    let event = events.iter_mut().find(|event| event.at == accepted).unwrap();
    let Seen::Accepted { reference } = event.seen else { return false };
    event.seen = Seen::Refused { reference, code: "not_a_member".into(), retry: false };
    true
}

pub fn reject_afterwards(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    let connection = record.connections.iter_mut().find(|connection| connection.user == entry.sender).unwrap();
    let client_id = entry.client_id.unwrap();
    connection.events.push(Event { at: 0, seen: Seen::Rejected { channel: entry.channel, client_id } });
    true
}

pub fn show_early(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((on, at)) = find(record, rng, |connection, at| message(connection, at).is_some()) else { return false };
    record.connections[on].events[at].at = 0;
    true
}

pub fn drop_frame(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((on, at)) = find(record, rng, |connection, at| follower(connection, at).is_some()) else { return false };
    record.connections[on].events.remove(at);
    true
}

pub fn repeat_frame(record: &mut Record, rng: &mut Rng) -> bool {
    let two_more = |connection: &Connection, at| {
        follower(connection, at).and_then(|next| follower(connection, next)).and_then(|next| follower(connection, next))
    };
    let Some((on, at)) = find(record, rng, |connection, at| two_more(connection, at).is_some()) else { return false };
    let events = &mut record.connections[on].events;
    let again = events[at].clone();
    events.insert(at + 1, again);
    true
}

pub fn swap_frames(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((on, at)) = find(record, rng, |connection, at| follower(connection, at).is_some()) else { return false };
    let next = follower(&record.connections[on], at).unwrap();
    record.connections[on].events.swap(at, next);
    true
}

pub fn swap_own(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((first, second)) = pair(record, rng, true) else { return false };
    exchange(record, &first, &second);
    true
}

pub fn swap_after_accepted(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((first, second)) = pair(record, rng, false) else { return false };
    exchange(record, &first, &second);
    true
}

/// Changes one event of the sort that `change` accepts.
pub fn change_one(record: &mut Record, rng: &mut Rng, change: fn(&mut Seen) -> bool) -> bool {
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

pub fn shorten_resume(record: &mut Record, rng: &mut Rng) -> bool {
    let replayed = |connection: &Connection, at: usize| {
        let Some(entry) = message(connection, at) else { return false };
        let Some(Seen::ResumeReply { channels, reference }) = connection.events.get(at + 1).map(|event| &event.seen)
        else {
            return false;
        };
        let missing = asked(connection, *reference).is_some_and(|asked| asked[&entry.channel] < entry.seq);
        // If it came live just before, all of the missing has come even so.
        let times = (0..=at).filter(|at| message(connection, *at) == Some(entry)).count();
        channels.get(&entry.channel).is_some_and(|reply| reply.complete) && missing && times == 1
    };
    let Some((on, at)) = find(record, rng, replayed) else { return false };
    record.connections[on].events.remove(at);
    true
}

pub fn with_resume(record: &mut Record, rng: &mut Rng, change: impl FnOnce(&mut Connection, usize, String)) -> bool {
    let Some((on, at)) = find(record, rng, |connection, at| restarted(connection, at).is_some()) else { return false };
    let connection = &mut record.connections[on];
    let channel = restarted(connection, at).unwrap();
    change(connection, at, channel);
    true
}

pub fn refuse_resumed(record: &mut Record, rng: &mut Rng) -> bool {
    with_resume(record, rng, |connection, at, channel| {
        if let Seen::ResumeReply { channels, .. } = &mut connection.events[at].seen {
            channels.get_mut(&channel).unwrap().complete = false;
        }
    })
}

pub fn ignore_resume(record: &mut Record, rng: &mut Rng) -> bool {
    with_resume(record, rng, |connection, at, channel| {
        if let Seen::ResumeReply { channels, .. } = &mut connection.events[at].seen {
            channels.remove(&channel);
        }
    })
}

pub fn resume_behind_welcome(record: &mut Record, rng: &mut Rng) -> bool {
    with_resume(record, rng, |connection, at, channel| {
        let Seen::ResumeReply { channels, .. } = &mut connection.events[at].seen else { return };
        channels.get_mut(&channel).unwrap().last_seq = 0;
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
        Seen::Welcome(heads) => {
            heads[0].unread += 1;
            true
        }
        _ => false,
    })
}

pub fn forget_read(record: &mut Record, _: &mut Rng) -> bool {
    for connection in record.connections.iter_mut().rev() {
        for event in &mut connection.events {
            let Seen::Welcome(heads) = &mut event.seen else { continue };
            // The last welcome with something read: an earlier one of the user has it too, or this isn't applicable.
            let Some(head) = heads.iter_mut().find(|head| head.read_seq > 0) else { continue };
            let (channel, read) = (head.channel.clone(), head.read_seq);
            (head.read_seq, head.delivered_seq, head.unread) = (0, 0, head.last_seq);
            let (user, opened_at) = (connection.user.clone(), connection.opened_at);
            return record.connections.iter().any(|earlier| {
                let heads = earlier.events.iter().find_map(|event| match &event.seen {
                    Seen::Welcome(heads) => Some(heads),
                    _ => None,
                });
                let known = heads.into_iter().flatten().any(|head| head.channel == channel && head.read_seq > 0);
                earlier.user == user && earlier.opened_at < opened_at && known && read > 0
            });
        }
    }
    false
}

pub fn hole_in_history(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(chosen) = random_entry(record, rng) else { return false };
    let mut inside = false;
    for history in record.histories.iter_mut().filter(|history| history.channel == chosen.channel) {
        inside = chosen.seq < history.entries.len() as u64;
        history.entries.retain(|entry| entry.seq != chosen.seq);
    }
    inside
}

pub fn disorder_history(record: &mut Record, rng: &mut Rng) -> bool {
    let at = usize::try_from(rng.below(record.histories.len() as u64)).unwrap();
    let entries = &mut record.histories[at].entries;
    let long_enough = entries.len() >= 2;
    if long_enough {
        entries.swap(0, 1);
    }
    long_enough
}

pub fn accept_nothing(record: &mut Record, _: &mut Rng) -> bool {
    let events = &mut record.connections[0].events;
    events.push(Event { at: u64::MAX, seen: Seen::Accepted { reference: 1_000_000 } });
    true
}

pub fn malform(record: &mut Record, _: &mut Rng) -> bool {
    let events = &mut record.connections[0].events;
    events.push(Event { at: u64::MAX, seen: Seen::Malformed("no seq".into()) });
    true
}

/// The newest page lacks what somebody was told to be persisted before it was asked for.
pub fn page_behind_store(record: &mut Record, rng: &mut Rng) -> bool {
    let persisted = Persisted::of(record);
    let stored = |connection: &Connection, at: usize| {
        let Seen::NewestAsked { channel, .. } = seen(connection, at) else { return 0 };
        persisted.before(channel, connection.events[at].at)
    };
    let Some((on, at)) = find(record, rng, |connection, at| stored(connection, at) > 0) else { return false };
    let stored = stored(&record.connections[on], at);
    let Some(event) = record.connections[on].events.get_mut(at + 1) else { return false };
    let Seen::Page { entries, .. } = &mut event.seen else { return false };
    entries.retain(|entry| entry.seq < stored);
    true
}

/// A resume ends before that, and so does what it sent.
pub fn resume_behind_store(record: &mut Record, rng: &mut Rng) -> bool {
    let persisted = Persisted::of(record);
    let channel_of = |connection: &Connection, at: usize| {
        let Seen::ResumeAsked { channels, .. } = seen(connection, at) else { return None };
        let moment = connection.events[at].at;
        // A client that is itself behind: what welcome had is judged by another rule.
        let behind = channels.keys().find(|channel| persisted.before(channel, moment) > 0);
        behind.map(|channel| (channel.clone(), persisted.before(channel, moment)))
    };
    let Some((on, at)) = find(record, rng, |connection, at| channel_of(connection, at).is_some()) else { return false };
    let Some((channel, stored)) = channel_of(&record.connections[on], at) else { return false };
    let replies = record.connections[on].events[at..].iter_mut().filter_map(|event| match &mut event.seen {
        Seen::ResumeReply { channels, .. } => channels.get_mut(&channel),
        _ => None,
    });
    let Some(reply) = replies.take(1).find(|reply| reply.complete) else { return false };
    reply.last_seq = stored - 1;
    true
}

pub fn welcome_behind_store(record: &mut Record, rng: &mut Rng) -> bool {
    let persisted = Persisted::of(record);
    let stored = |connection: &Connection, at: usize| {
        let Seen::Welcome(heads) = seen(connection, at) else { return 0 };
        heads.first().map_or(0, |head| persisted.before(&head.channel, connection.opened_at))
    };
    let Some((on, at)) = find(record, rng, |connection, at| stored(connection, at) > 0) else { return false };
    let stored = stored(&record.connections[on], at);
    if let Seen::Welcome(heads) = &mut record.connections[on].events[at].seen {
        heads[0].last_seq = stored - 1;
    }
    true
}
