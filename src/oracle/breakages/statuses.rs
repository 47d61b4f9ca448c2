//! Answers and `persisted`: what senders are told twice, or never.

use fastrand::Rng;

use super::streams::{SILENCE, go_on_in_silence};
use crate::oracle::places::{find, seen};
use crate::oracle::record::{Connection, Event, Record, Seen, SendNo, Welcome};
use crate::oracle::stored::Persisted;
use crate::wire::ErrorCode;

fn accepted(connection: &Connection, at: usize) -> Option<u64> {
    match *seen(connection, at) {
        Seen::Accepted { reference } => Some(reference),
        _ => None,
    }
}

pub fn accept_twice(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((on, at)) = find(record, rng, |connection, at| accepted(connection, at).is_some()) else { return false };
    let events = &mut record.connections[on].events;
    let again = events[at].clone();
    events.insert(at + 1, again);
    true
}

pub fn refuse_what_was_accepted(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((on, at)) = find(record, rng, |connection, at| accepted(connection, at).is_some()) else { return false };
    let Some(reference) = accepted(&record.connections[on], at) else { return false };
    let events = &mut record.connections[on].events;
    let seen = Seen::Refused { reference, code: ErrorCode::Overloaded, retry: true };
    events.insert(at + 1, Event { at: events[at].at, seen });
    true
}

const fn stays(connection: &Connection) -> bool {
    connection.closed_at == u64::MAX
}

pub fn answer_nothing(record: &mut Record, rng: &mut Rng) -> bool {
    go_on_in_silence(record);
    let wanted = |connection: &Connection, at: usize| stays(connection) && accepted(connection, at).is_some();
    let Some((on, at)) = find(record, rng, wanted) else { return false };
    record.connections[on].events.remove(at);
    true
}

/// A sender who stays isn't told that a message is stored, though it was accepted there, and somebody was told of one
/// behind it.
pub fn tell_of_nothing_stored(record: &mut Record, rng: &mut Rng) -> bool {
    go_on_in_silence(record);
    let sent_here = |connection: &Connection, wanted: SendNo| {
        connection.events.iter().any(|event| match event.seen {
            Seen::Send { reference, send } if send == wanted => connection
                .events
                .iter()
                .any(|answer| matches!(answer.seen, Seen::Accepted { reference: to } if to == reference)),
            _ => false,
        })
    };
    let is_followed = |wanted: SendNo, behind: u64| {
        let events = record.connections.iter().flat_map(|connection| &connection.events);
        let mut told = events.filter_map(|event| match event.seen {
            Seen::Persisted { send, seq } => Some((send, seq)),
            _ => None,
        });
        told.any(|(send, seq)| record.send(send).channel == record.send(wanted).channel && seq > behind)
    };
    let of = |connection: &Connection, at: usize| match *seen(connection, at) {
        Seen::Persisted { send, seq } => Some((send, seq)),
        _ => None,
    };
    let has_gap =
        |connection: &Connection| connection.events.iter().any(|event| matches!(event.seen, Seen::Gap { .. }));
    let wanted = |connection: &Connection, at: usize| {
        stays(connection)
            && !has_gap(connection)
            && of(connection, at).is_some_and(|(send, seq)| sent_here(connection, send) && is_followed(send, seq))
    };
    let Some((on, at)) = find(record, rng, wanted) else { return false };
    let Some((untold, _)) = of(&record.connections[on], at) else { return false };
    let is_it = |event: &Event| matches!(event.seen, Seen::Persisted { send, .. } if send == untold);
    record.connections[on].events.retain(|event| !is_it(event));
    true
}

/// A sender has another socket, and hears there of nothing that is stored.
pub fn forget_a_socket(record: &mut Record, rng: &mut Rng) -> bool {
    go_on_in_silence(record);
    let persisted = Persisted::of(record);
    let is_stored = |connection: &Connection, at: usize| match seen(connection, at) {
        Seen::Persisted { send, seq } => persisted.before(record.send(*send).channel, SILENCE) >= *seq,
        _ => false,
    };
    let Some((on, _)) = find(record, rng, is_stored) else { return false };
    let user = record.connections[on].user;
    let events = vec![Event { at: 0, seen: Seen::Welcome(Box::new(Welcome { heads: vec![] })) }];
    record.connections.push(Connection { user, opened_at: 0, closed_at: u64::MAX, events });
    true
}

/// No fault: a server says again what it may have failed to say.
pub fn tell_again(record: &mut Record, rng: &mut Rng) -> bool {
    let is_told = |connection: &Connection, at: usize| matches!(seen(connection, at), Seen::Persisted { .. });
    let Some((on, at)) = find(record, rng, is_told) else { return false };
    let events = &mut record.connections[on].events;
    let again = events[at].clone();
    // However often it was tried.
    (0..20).for_each(|_| events.insert(at + 1, again.clone()));
    true
}
