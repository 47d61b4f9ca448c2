//! Where a record can be broken: places of a sort, and changes that leave everything else consistent.

use fastrand::Rng;

use super::record::{ChannelNo, Connection, Entry, EntryNo, Event, Head, Record, Resumed, Seen, SendNo};
use crate::message::Seq;

/// A random event of the sort: (connection, position).
pub fn find(record: &Record, rng: &mut Rng, wanted: impl Fn(&Connection, usize) -> bool) -> Option<(usize, usize)> {
    let mut places = Vec::new();
    for (number, connection) in record.connections.iter().enumerate() {
        let positions = 0..connection.events.len();
        places.extend(positions.filter(|at| wanted(connection, *at)).map(|at| (number, at)));
    }
    rng.choice(places)
}

pub fn seen(connection: &Connection, at: usize) -> &Seen {
    &connection.events[at].seen
}

pub fn message(connection: &Connection, at: usize) -> Option<EntryNo> {
    match connection.events[at].seen {
        Seen::Message(entry) => Some(entry),
        _ => None,
    }
}

/// The next position at which the same channel's stream goes on live: no resume and no gap in between, and nobody is
/// removed.
pub fn follower(record: &Record, connection: &Connection, at: usize) -> Option<usize> {
    let channel = record.entry(message(connection, at)?).channel;
    let resuming = |event: &Event| matches!(event.seen, Seen::ResumeAsked(_) | Seen::ResumeReply(_));
    // A stream just resumed leaves the server a choice; one frame later it is settled.
    if connection.events[at..].iter().any(resuming) {
        return None;
    }
    let of_channel = |at: &usize| message(connection, *at).is_some_and(|entry| record.entry(entry).channel == channel);
    let since = connection.events.iter().rposition(resuming).unwrap_or(0);
    (since..at).find(of_channel)?;
    let next = (at + 1..connection.events.len()).find(of_channel)?;
    let is_text = |at| message(connection, at).is_some_and(|entry| !record.entry(entry).is_system());
    (is_text(at) && is_text(next)).then_some(next)
}

/// A message of a final history.
pub fn random_entry(record: &Record, rng: &mut Rng) -> Option<EntryNo> {
    let all = record.histories.iter().flat_map(|history| history.entries.iter().copied());
    rng.choice(all.filter(|entry| !record.entry(*entry).is_system()).collect::<Vec<_>>())
}

/// Another entry, made from one.
pub fn variant(record: &mut Record, of: EntryNo, change: impl FnOnce(&mut Entry)) -> EntryNo {
    let mut entry = *record.entry(of);
    change(&mut entry);
    record.entries.push(entry);
    EntryNo(record.entries.len() as u32 - 1)
}

/// The message that an entry is of.
pub fn send_of(record: &Record, entry: EntryNo) -> Option<SendNo> {
    let entry = record.entry(entry);
    let place = record.sends.iter().position(|send| {
        (send.channel, send.sender, Some(send.client_id)) == (entry.channel, entry.sender, entry.client_id)
    });
    place.map(|place| SendNo(place as u32))
}

/// Two entries of a channel change places for everyone: only the order of sending shows it.
pub fn exchange(record: &mut Record, first: EntryNo, second: EntryNo) {
    let (one, other) = (*record.entry(first), *record.entry(second));
    let sends = (send_of(record, first), send_of(record, second));
    record.entries[first.0 as usize] = Entry { seq: one.seq, ..other };
    record.entries[second.0 as usize] = Entry { seq: other.seq, ..one };
    for event in record.connections.iter_mut().flat_map(|connection| &mut connection.events) {
        if let Seen::Persisted { send, seq } = &mut event.seen {
            if Some(*send) == sends.0 {
                *seq = other.seq;
            } else if Some(*send) == sends.1 {
                *seq = one.seq;
            }
        }
    }
}

/// The single attempt at an entry: (connection, begun, accepted); none if it was tried more than once.
pub fn attempt(record: &Record, entry: EntryNo) -> Option<(usize, u64, u64)> {
    let of = send_of(record, entry)?;
    let mut attempts = Vec::new();
    for (number, connection) in record.connections.iter().enumerate() {
        for event in &connection.events {
            if let Seen::Send { reference, send } = event.seen
                && send == of
            {
                let reply = connection.events.iter().find(
                    |event| matches!(event.seen, Seen::Accepted { reference: accepted } if accepted == reference),
                );
                attempts.push((number, event.at, reply.map(|event| event.at)));
            }
        }
    }
    match attempts[..] {
        [(connection, begun, Some(accepted))] => Some((connection, begun, accepted)),
        _ => None,
    }
}

/// Two accepted entries of a channel, in order: of one sender, on one connection; or of two, one after the other.
pub fn pair(record: &Record, rng: &mut Rng, own: bool) -> Option<(EntryNo, EntryNo)> {
    for _ in 0..200 {
        let (first, second) = (random_entry(record, rng)?, random_entry(record, rng)?);
        let (one, other) = (record.entry(first), record.entry(second));
        if one.channel != other.channel || one.seq >= other.seq || (one.sender == other.sender) != own {
            continue;
        }
        let (Some((on, _, accepted)), Some((then_on, begun, _))) = (attempt(record, first), attempt(record, second))
        else {
            continue;
        };
        if if own { on == then_on } else { accepted < begun } {
            return Some((first, second));
        }
    }
    None
}

pub fn asked(connection: &Connection, reference: u64) -> Option<&[(ChannelNo, Seq)]> {
    connection.events.iter().find_map(|event| match &event.seen {
        Seen::ResumeAsked(asked) if asked.reference == reference => Some(asked.channels.as_slice()),
        _ => None,
    })
}

pub fn asked_after(connection: &Connection, reference: u64, channel: ChannelNo) -> Option<Seq> {
    asked(connection, reference)?.iter().find(|(asked, _)| *asked == channel).map(|(_, after)| *after)
}

pub fn answer(channels: &[Resumed], channel: ChannelNo) -> Option<Resumed> {
    channels.iter().find(|resumed| resumed.channel == channel).copied()
}

pub fn heads(connection: &Connection) -> Option<&[Head]> {
    connection.events.iter().find_map(|event| match &event.seen {
        Seen::Welcome(welcome) => Some(welcome.heads.as_slice()),
        _ => None,
    })
}

/// A reply to a resume that replayed at least what welcome had as new.
pub fn restarted(connection: &Connection, at: usize) -> Option<ChannelNo> {
    let Seen::ResumeReply(reply) = seen(connection, at) else { return None };
    let missed = heads(connection)?.iter().find(|head| {
        answer(&reply.channels, head.channel).is_some_and(|answer| answer.complete)
            && asked_after(connection, reply.reference, head.channel).is_some_and(|after| after < head.last_seq)
    });
    missed.map(|head| head.channel)
}
