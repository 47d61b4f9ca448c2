//! Where a record can be broken: places of a sort, and changes that leave everything else consistent.

use std::collections::BTreeMap;

use super::record::{Connection, Entry, Event, Record, Seen};
use crate::rng::Rng;

/// A random event of the sort: (connection, position).
pub fn find(record: &Record, rng: &mut Rng, wanted: impl Fn(&Connection, usize) -> bool) -> Option<(usize, usize)> {
    let mut places = Vec::new();
    for (number, connection) in record.connections.iter().enumerate() {
        let positions = 0..connection.events.len();
        places.extend(positions.filter(|at| wanted(connection, *at)).map(|at| (number, at)));
    }
    (!places.is_empty()).then(|| *rng.pick(&places))
}

pub fn seen(connection: &Connection, at: usize) -> &Seen {
    &connection.events[at].seen
}

pub fn message(connection: &Connection, at: usize) -> Option<&Entry> {
    match &connection.events[at].seen {
        Seen::Message(entry) => Some(entry),
        _ => None,
    }
}

/// The next position at which the same channel's stream goes on live: no resume and no gap in between.
pub fn follower(connection: &Connection, at: usize) -> Option<usize> {
    let channel = &message(connection, at)?.channel;
    let resuming = |event: &Event| matches!(event.seen, Seen::ResumeAsked { .. } | Seen::ResumeReply { .. });
    // A stream just resumed leaves the server a choice; one frame later it is settled.
    if connection.events[at..].iter().any(resuming) {
        return None;
    }
    let since = connection.events.iter().rposition(resuming).unwrap_or(0);
    (since..at).find(|before| message(connection, *before).is_some_and(|entry| &entry.channel == channel))?;
    (at + 1..connection.events.len())
        .find(|next| message(connection, *next).is_some_and(|entry| &entry.channel == channel))
}

pub fn entries(record: &mut Record) -> impl Iterator<Item = &mut Entry> {
    let live = record.connections.iter_mut().flat_map(|connection| &mut connection.events);
    let live = live.flat_map(|event| -> Vec<&mut Entry> {
        match &mut event.seen {
            Seen::Message(entry) => vec![entry],
            Seen::Page { entries, .. } => entries.iter_mut().collect(),
            Seen::Welcome(heads) => heads.iter_mut().flat_map(|head| &mut head.messages).collect(),
            _ => vec![],
        }
    });
    let stored = record.histories.iter_mut().flat_map(|history| &mut history.entries);
    live.chain(stored).chain(record.hits.iter_mut().map(|hit| &mut hit.entry))
}

pub fn random_entry(record: &Record, rng: &mut Rng) -> Option<Entry> {
    let all: Vec<&Entry> = record.histories.iter().flat_map(|history| &history.entries).collect();
    (!all.is_empty()).then(|| Entry::clone(rng.pick::<&Entry>(&all)))
}

/// Two entries of a channel change places for everyone: only the order of sending shows it.
pub fn exchange(record: &mut Record, first: &Entry, second: &Entry) {
    let place = |entry: &mut Entry| {
        if entry.channel == first.channel && (entry.seq == first.seq || entry.seq == second.seq) {
            let other = if entry.seq == first.seq { second } else { first };
            let client_id = entry.client_id.as_ref().and(other.client_id.clone());
            *entry = Entry { seq: entry.seq, client_id, ..other.clone() };
        }
    };
    entries(record).for_each(place);
    for event in record.connections.iter_mut().flat_map(|connection| &mut connection.events) {
        if let Seen::Persisted { client_id, seq, .. } = &mut event.seen {
            if Some(&*client_id) == first.client_id.as_ref() {
                *seq = second.seq;
            } else if Some(&*client_id) == second.client_id.as_ref() {
                *seq = first.seq;
            }
        }
    }
}

/// The single attempt at an entry: (connection, begun, accepted); none if it was tried more than once.
pub fn attempt(record: &Record, entry: &Entry) -> Option<(usize, u64, u64)> {
    let mut attempts = Vec::new();
    for (number, connection) in record.connections.iter().enumerate() {
        for event in &connection.events {
            if let Seen::Send { reference, client_id, .. } = &event.seen
                && Some(client_id) == entry.client_id.as_ref()
            {
                let reply = connection.events.iter().find(
                    |event| matches!(&event.seen, Seen::Accepted { reference: accepted } if accepted == reference),
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

/// Two accepted entries of a channel, in order, that fulfil `wanted` on their (connection, begun, accepted).
pub fn pair(record: &Record, rng: &mut Rng, own: bool) -> Option<(Entry, Entry)> {
    for _ in 0..200 {
        let (first, second) = (random_entry(record, rng)?, random_entry(record, rng)?);
        if first.channel != second.channel || first.seq >= second.seq || (first.sender == second.sender) != own {
            continue;
        }
        let (Some((on, _, accepted)), Some((then_on, begun, _))) = (attempt(record, &first), attempt(record, &second))
        else {
            continue;
        };
        if if own { on == then_on } else { accepted < begun } {
            return Some((first, second));
        }
    }
    None
}

pub fn asked(connection: &Connection, reference: u64) -> Option<&BTreeMap<String, u64>> {
    connection.events.iter().find_map(|event| match &event.seen {
        Seen::ResumeAsked { reference: asked, channels } if *asked == reference => Some(channels),
        _ => None,
    })
}

/// A reply to a resume that replayed at least what welcome had as new.
pub fn restarted(connection: &Connection, at: usize) -> Option<String> {
    let Seen::ResumeReply { channels, reference } = seen(connection, at) else { return None };
    let asked = asked(connection, *reference)?;
    let welcomed = connection.events.iter().find_map(|event| match &event.seen {
        Seen::Welcome(heads) => Some(heads),
        _ => None,
    })?;
    let missed = welcomed.iter().find(|head| {
        channels.get(&head.channel).is_some_and(|reply| reply.complete)
            && asked.get(&head.channel).is_some_and(|after| *after < head.last_seq)
    });
    missed.map(|head| head.channel.clone())
}
