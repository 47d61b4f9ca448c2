//! The oracle on trial: it finds nothing in correct histories, and names the right promise in broken ones.

use std::collections::BTreeMap;

use super::record::{Connection, Entry, Event, Mark, Record, Seen};
use super::{Promise, check, synth};
use crate::rng::Rng;

#[test]
fn correct_histories_have_no_violations() {
    let mut all = synth::Coverage::default();
    for seed in 0..150 {
        let (record, coverage) = synth::record(seed);
        let violations = check(&record);
        assert!(violations.is_empty(), "seed {seed}: {}", violations[0]);
        all.restarts += coverage.restarts;
        all.gaps += coverage.gaps;
        all.retries += coverage.retries;
        all.deduplicated += coverage.deduplicated;
        all.ahead_of_store += coverage.ahead_of_store;
        all.refused += coverage.refused;
        all.deferred += coverage.deferred;
    }
    let counts = [all.restarts, all.gaps, all.retries, all.deduplicated, all.ahead_of_store, all.refused, all.deferred];
    assert!(counts.iter().all(|count| *count >= 20), "the synthetic histories lack variety: {all:?}");
}

/// Breaks a record in one way; false if it has no place for that.
type Breakage = fn(&mut Record, &mut Rng) -> bool;

#[test]
fn each_breakage_is_found_under_its_promise() {
    use Promise::{P1, P2, P3, P4, P5, P6, P7, P8, P9, Wire};
    let breakages: &[(&str, Promise, Breakage)] = &[
        ("an accepted message is lost for all", P1, lose_last),
        ("an accepted message is lost for one", P1, lose_last_for_one),
        ("a message nobody sent", P2, invent),
        ("a body is altered everywhere", P2, alter_everywhere),
        ("a refused send is seen", P2, refuse_afterwards),
        ("a rejected send is seen", P2, reject_afterwards),
        ("a message comes before it is sent", P2, show_early),
        ("a message is in the log twice", P3, log_twice),
        ("a body is altered for one", P4, alter_once),
        ("a seq is given twice", P4, give_seq_twice),
        ("one history is shorter", P4, lose_last_for_one),
        ("search finds another message", P4, alter_hit),
        ("a frame is dropped", P5, drop_frame),
        ("a frame is repeated", P5, repeat_frame),
        ("two frames are swapped", P5, swap_frames),
        ("one connection's sends change places", P6, swap_own),
        ("a later send goes before an accepted one", P6, swap_after_accepted),
        ("persisted has a wrong seq", P7, persist_elsewhere),
        ("resume lacks its last entry", P8, shorten_resume),
        ("resume gives a part and refuses", P8, refuse_resumed),
        ("resume leaves a channel out", P8, ignore_resume),
        ("resume ends before welcome's head", P8, resume_behind_welcome),
        ("a watermark goes back", P9, turn_watermark_back),
        ("a watermark is beyond the end", P9, watermark_beyond),
        ("unread is wrong", P9, miscount_unread),
        ("a later welcome has read less", P9, forget_read),
        ("a history has a hole", P9, hole_in_history),
        ("a history is out of order", P9, disorder_history),
        ("something not sent is accepted", Wire, accept_nothing),
        ("a frame makes no sense", Wire, malform),
    ];
    for (name, promise, breakage) in breakages {
        let mut applied = 0;
        for seed in 0..40 {
            let (mut record, _) = synth::record(seed);
            let mut rng = Rng::new(seed ^ 0xbad);
            if !breakage(&mut record, &mut rng) {
                continue;
            }
            applied += 1;
            let violations = check(&record);
            let found: Vec<String> = violations.iter().map(ToString::to_string).collect();
            let named = violations.iter().any(|violation| violation.promise == *promise);
            assert!(named, "{name} (seed {seed}): expected {promise:?}, found {found:#?}");
        }
        assert!(applied >= 10, "{name} was applicable to {applied} of 40 histories only");
    }
}

// ---- places

/// A random event of the sort: (connection, position).
fn find(record: &Record, rng: &mut Rng, wanted: impl Fn(&Connection, usize) -> bool) -> Option<(usize, usize)> {
    let mut places = Vec::new();
    for (number, connection) in record.connections.iter().enumerate() {
        let positions = 0..connection.events.len();
        places.extend(positions.filter(|at| wanted(connection, *at)).map(|at| (number, at)));
    }
    (!places.is_empty()).then(|| *rng.pick(&places))
}

fn seen(connection: &Connection, at: usize) -> &Seen {
    &connection.events[at].seen
}

fn message(connection: &Connection, at: usize) -> Option<&Entry> {
    match &connection.events[at].seen {
        Seen::Message(entry) => Some(entry),
        _ => None,
    }
}

/// The next position at which the same channel's stream goes on live: no resume and no gap in between.
fn follower(connection: &Connection, at: usize) -> Option<usize> {
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

fn entries(record: &mut Record) -> impl Iterator<Item = &mut Entry> {
    let live = record.connections.iter_mut().flat_map(|connection| &mut connection.events);
    let live = live.flat_map(|event| -> Vec<&mut Entry> {
        match &mut event.seen {
            Seen::Message(entry) => vec![entry],
            Seen::Page(entries) => entries.iter_mut().collect(),
            Seen::Welcome(heads) => heads.iter_mut().flat_map(|head| &mut head.messages).collect(),
            _ => vec![],
        }
    });
    let stored = record.histories.iter_mut().flat_map(|history| &mut history.entries);
    live.chain(stored).chain(record.hits.iter_mut().map(|hit| &mut hit.entry))
}

fn random_entry(record: &Record, rng: &mut Rng) -> Option<Entry> {
    let all: Vec<&Entry> = record.histories.iter().flat_map(|history| &history.entries).collect();
    (!all.is_empty()).then(|| Entry::clone(rng.pick::<&Entry>(&all)))
}

/// Two entries of a channel change places for everyone: only the order of sending shows it.
fn exchange(record: &mut Record, first: &Entry, second: &Entry) {
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
fn attempt(record: &Record, entry: &Entry) -> Option<(usize, u64, u64)> {
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
fn pair(record: &Record, rng: &mut Rng, own: bool) -> Option<(Entry, Entry)> {
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

// ---- breakages

fn lose_last(record: &mut Record, rng: &mut Rng) -> bool {
    let channel = rng.pick(&record.histories).channel.clone();
    let of_channel = record.histories.iter_mut().filter(|history| history.channel == channel);
    of_channel.filter_map(|history| history.entries.pop()).count() > 0
}

fn lose_last_for_one(record: &mut Record, rng: &mut Rng) -> bool {
    let at = usize::try_from(rng.below(record.histories.len() as u64)).unwrap();
    record.histories[at].entries.pop().is_some()
}

fn append(record: &mut Record, entry: &Entry) -> bool {
    for history in record.histories.iter_mut().filter(|history| history.channel == entry.channel) {
        let seq = history.entries.len() as u64 + 1;
        history.entries.push(Entry { seq, ..entry.clone() });
    }
    true
}

fn invent(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    append(record, &Entry { client_id: Some("never sent".into()), ..entry })
}

fn log_twice(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    append(record, &entry)
}

fn alter_everywhere(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(chosen) = random_entry(record, rng) else { return false };
    for entry in entries(record).filter(|entry| entry.id == chosen.id) {
        entry.body.push('!');
    }
    true
}

fn with_message(record: &mut Record, rng: &mut Rng, change: impl FnOnce(&mut Entry)) -> bool {
    let Some((on, at)) = find(record, rng, |connection, at| message(connection, at).is_some()) else { return false };
    if let Seen::Message(entry) = &mut record.connections[on].events[at].seen {
        change(entry);
    }
    true
}

fn alter_once(record: &mut Record, rng: &mut Rng) -> bool {
    with_message(record, rng, |entry| entry.body.push('!'))
}

fn give_seq_twice(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(other) = random_entry(record, rng) else { return false };
    let mut changed = false;
    with_message(record, rng, |entry| {
        changed = entry.id != other.id;
        *entry = Entry { seq: entry.seq, channel: entry.channel.clone(), ..other };
    });
    changed
}

fn alter_hit(record: &mut Record, rng: &mut Rng) -> bool {
    let at = usize::try_from(rng.below(record.hits.len() as u64)).unwrap();
    record.hits[at].entry.id.push('x');
    true
}

fn refuse_afterwards(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    let Some((on, _, accepted)) = attempt(record, &entry) else { return false };
    let events = &mut record.connections[on].events;
    let event = events.iter_mut().find(|event| event.at == accepted).unwrap();
    let Seen::Accepted { reference } = event.seen else { return false };
    event.seen = Seen::Refused { reference, code: "not_a_member".into(), retry: false };
    true
}

fn reject_afterwards(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    let connection = record.connections.iter_mut().find(|connection| connection.user == entry.sender).unwrap();
    let client_id = entry.client_id.unwrap();
    connection.events.push(Event { at: 0, seen: Seen::Rejected { channel: entry.channel, client_id } });
    true
}

fn show_early(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((on, at)) = find(record, rng, |connection, at| message(connection, at).is_some()) else { return false };
    record.connections[on].events[at].at = 0;
    true
}

fn drop_frame(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((on, at)) = find(record, rng, |connection, at| follower(connection, at).is_some()) else { return false };
    record.connections[on].events.remove(at);
    true
}

fn repeat_frame(record: &mut Record, rng: &mut Rng) -> bool {
    let two_more = |connection: &Connection, at| {
        follower(connection, at).and_then(|next| follower(connection, next)).and_then(|next| follower(connection, next))
    };
    let Some((on, at)) = find(record, rng, |connection, at| two_more(connection, at).is_some()) else { return false };
    let events = &mut record.connections[on].events;
    let again = events[at].clone();
    events.insert(at + 1, again);
    true
}

fn swap_frames(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((on, at)) = find(record, rng, |connection, at| follower(connection, at).is_some()) else { return false };
    let next = follower(&record.connections[on], at).unwrap();
    record.connections[on].events.swap(at, next);
    true
}

fn swap_own(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((first, second)) = pair(record, rng, true) else { return false };
    exchange(record, &first, &second);
    true
}

fn swap_after_accepted(record: &mut Record, rng: &mut Rng) -> bool {
    let Some((first, second)) = pair(record, rng, false) else { return false };
    exchange(record, &first, &second);
    true
}

/// Changes one event of the sort that `change` accepts.
fn change_one(record: &mut Record, rng: &mut Rng, change: fn(&mut Seen) -> bool) -> bool {
    let changeable = |connection: &Connection, at| change(&mut seen(connection, at).clone());
    let Some((on, at)) = find(record, rng, changeable) else { return false };
    change(&mut record.connections[on].events[at].seen)
}

fn persist_elsewhere(record: &mut Record, rng: &mut Rng) -> bool {
    change_one(record, rng, |seen| match seen {
        Seen::Persisted { seq, .. } => {
            *seq += 1;
            true
        }
        _ => false,
    })
}

fn shorten_resume(record: &mut Record, rng: &mut Rng) -> bool {
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

fn asked(connection: &Connection, reference: u64) -> Option<&BTreeMap<String, u64>> {
    connection.events.iter().find_map(|event| match &event.seen {
        Seen::ResumeAsked { reference: asked, channels } if *asked == reference => Some(channels),
        _ => None,
    })
}

/// A reply to a resume that replayed at least what welcome had as new.
fn restarted(connection: &Connection, at: usize) -> Option<String> {
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

fn with_resume(record: &mut Record, rng: &mut Rng, change: impl FnOnce(&mut Connection, usize, String)) -> bool {
    let Some((on, at)) = find(record, rng, |connection, at| restarted(connection, at).is_some()) else { return false };
    let connection = &mut record.connections[on];
    let channel = restarted(connection, at).unwrap();
    change(connection, at, channel);
    true
}

fn refuse_resumed(record: &mut Record, rng: &mut Rng) -> bool {
    with_resume(record, rng, |connection, at, channel| {
        if let Seen::ResumeReply { channels, .. } = &mut connection.events[at].seen {
            channels.get_mut(&channel).unwrap().complete = false;
        }
    })
}

fn ignore_resume(record: &mut Record, rng: &mut Rng) -> bool {
    with_resume(record, rng, |connection, at, channel| {
        if let Seen::ResumeReply { channels, .. } = &mut connection.events[at].seen {
            channels.remove(&channel);
        }
    })
}

fn resume_behind_welcome(record: &mut Record, rng: &mut Rng) -> bool {
    with_resume(record, rng, |connection, at, channel| {
        let Seen::ResumeReply { channels, .. } = &mut connection.events[at].seen else { return };
        channels.get_mut(&channel).unwrap().last_seq = 0;
    })
}

fn turn_watermark_back(record: &mut Record, rng: &mut Rng) -> bool {
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

fn watermark_beyond(record: &mut Record, rng: &mut Rng) -> bool {
    change_one(record, rng, |seen| match seen {
        Seen::Watermark { seq: seq @ 1.., mark: Mark::Read, .. } => {
            *seq += 1_000_000;
            true
        }
        _ => false,
    })
}

fn miscount_unread(record: &mut Record, rng: &mut Rng) -> bool {
    change_one(record, rng, |seen| match seen {
        Seen::Welcome(heads) => {
            heads[0].unread += 1;
            true
        }
        _ => false,
    })
}

fn forget_read(record: &mut Record, _: &mut Rng) -> bool {
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

fn hole_in_history(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(chosen) = random_entry(record, rng) else { return false };
    let mut inside = false;
    for history in record.histories.iter_mut().filter(|history| history.channel == chosen.channel) {
        inside = chosen.seq < history.entries.len() as u64;
        history.entries.retain(|entry| entry.seq != chosen.seq);
    }
    inside
}

fn disorder_history(record: &mut Record, rng: &mut Rng) -> bool {
    let at = usize::try_from(rng.below(record.histories.len() as u64)).unwrap();
    let entries = &mut record.histories[at].entries;
    let long_enough = entries.len() >= 2;
    if long_enough {
        entries.swap(0, 1);
    }
    long_enough
}

fn accept_nothing(record: &mut Record, _: &mut Rng) -> bool {
    let events = &mut record.connections[0].events;
    events.push(Event { at: u64::MAX, seen: Seen::Accepted { reference: 1_000_000 } });
    true
}

fn malform(record: &mut Record, _: &mut Rng) -> bool {
    let events = &mut record.connections[0].events;
    events.push(Event { at: u64::MAX, seen: Seen::Malformed("no seq".into()) });
    true
}
