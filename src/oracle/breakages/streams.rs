//! P5, P6, P11 and the frames themselves: what one connection is told, and in which order.

use fastrand::Rng;

use super::change_one;
use crate::oracle::places::{exchange, find, follower, message, pair, seen};
use crate::oracle::record::{Connection, Entry, EntryNo, Event, Malformed, NO_REFERENCE, Page, Record, Seen, UserNo};
use crate::oracle::stored::Persisted;
use crate::wire::ErrorCode;

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

/// In the time of the record, later than all that happens in a synthetic one.
pub const SILENCE: u64 = 60_000_000_000;

/// The connections that are open stay so, for a minute in which nothing happens but a refusal.
pub fn go_on_in_silence(record: &mut Record) {
    let last = |user| record.connections.iter().rposition(|connection| connection.user == user);
    let open: Vec<usize> = (0..record.users.len() as u32).filter_map(|user| last(UserNo(user))).collect();
    for index in open {
        let connection = &mut record.connections[index];
        connection.closed_at = u64::MAX;
        let seen = Seen::Refused { reference: NO_REFERENCE, code: ErrorCode::RateLimited, retry: true };
        connection.events.push(Event { at: SILENCE, seen });
    }
}

/// The last messages of a channel don't come to somebody who stays; one of them was told to be persisted.
pub fn stop_stream(record: &mut Record, rng: &mut Rng) -> bool {
    go_on_in_silence(record);
    let persisted = Persisted::of(record);
    let last_of = |connection: &Connection, at: usize| {
        let channel = record.entry(message(connection, at)?).channel;
        let rest = &connection.events[at + 1..];
        let is_last = !rest.iter().any(|event| match &event.seen {
            Seen::Message(entry) => record.entry(*entry).channel == channel,
            Seen::ResumeAsked(_) | Seen::ResumeReply(_) | Seen::Gap { .. } | Seen::Welcome(_) => true,
            _ => false,
        });
        let entry = record.entry(message(connection, at)?);
        (is_last && !entry.is_system() && persisted.before(channel, SILENCE) >= entry.seq).then_some(())
    };
    let stays = |connection: &Connection| connection.closed_at == u64::MAX;
    let wanted = |connection: &Connection, at: usize| stays(connection) && last_of(connection, at).is_some();
    let Some((on, at)) = find(record, rng, wanted) else { return false };
    record.connections[on].events.remove(at);
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
