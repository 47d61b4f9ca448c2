//! P1–P4, P7 and density: what the final histories hold, and that everything else agrees with them.

use super::log::{Log, Standing};
use super::purges::Purges;
use super::record::{Entry, EntryNo, Hit, Record, Seen, SendNo};
use super::sends::Sends;
use super::sightings::{Sighting, Sightings};
use super::verdict::{Counts, Found, Promise};
use crate::message::Seq;

pub fn check(
    record: &Record,
    sends: &Sends,
    log: &Log,
    sightings: &Sightings,
    purges: &Purges,
    found: &mut Found,
) -> Counts {
    let mut counts = Counts::default();
    check_histories(record, log, purges, found);
    let is_unexpected = check_entries(record, sends, log, sightings, found, &mut counts);
    let is_lost = check_accepted(record, sends, log, found);
    check_persisted(record, log, purges, found);
    record.hits.iter().for_each(|hit| check_hit(record, log, hit, found));
    count(record, sends, log, sightings, |send| is_unexpected[send.0 as usize], &is_lost, &mut counts);
    counts
}

/// Each reader's history is dense and all readers have the same one.
fn check_histories(record: &Record, log: &Log, purges: &Purges, found: &mut Found) {
    for history in &record.histories {
        let channel = record.channel(history.channel);
        let who = || format!("{}'s history of {channel}", record.user(history.reader));
        let mut next = history.from;
        for number in &history.entries {
            let entry = record.entry(*number);
            if entry.channel != history.channel {
                found.add(Promise::P4, || {
                    (format!("{}: {} is another channel's", who(), record.show(*number)), [record.ids_of(*number)])
                });
                continue;
            }
            // What nobody was shown before it was purged is missed by nobody.
            let is_purged = entry.seq > next && entry.seq <= purges.through(history.channel).saturating_add(1);
            if entry.seq != next && !is_purged {
                found.add(Promise::P9, || {
                    let detail = format!("{}: seq {} stands where {next} should", who(), entry.seq);
                    (detail, [record.ids_of(*number)])
                });
            }
            next = entry.seq.saturating_add(1);
            agrees(record, log, *number, found, who);
        }
        let last = log.end(record, history.channel);
        if next <= last {
            found.add(Promise::P4, || {
                let detail = format!("{} ends at {}, another's at {last}", who(), next.saturating_sub(1));
                (detail, [record.place(history.channel, last)])
            });
        }
    }
}

/// Whatever is shown under a (channel, seq) is what the log has there.
fn agrees(record: &Record, log: &Log, entry: EntryNo, found: &mut Found, who: impl Fn() -> String) {
    match log.standing(entry) {
        Standing::InLog => {}
        Standing::Contradicted(known) => found.add(Promise::P4, || {
            let detail = format!("{}: {}, but elsewhere {}", who(), record.show(entry), record.show(known));
            (detail, [record.ids_of(entry), record.ids_of(known)])
        }),
        Standing::Missing => found.add(Promise::P4, || {
            (format!("{}: {} is in no final history", who(), record.show(entry)), [record.ids_of(entry)])
        }),
    }
}

/// Each entry that anybody saw was sent before, was not refused, agrees with the log, and is there once.
///
/// Returns of each message whether it must not have been seen, and was.
fn check_entries(
    record: &Record,
    sends: &Sends,
    log: &Log,
    sightings: &Sightings,
    found: &mut Found,
    counts: &mut Counts,
) -> Vec<bool> {
    // By key: the seq it was first met with, where the log has none; and what was said of it already.
    let mut shown_at: Vec<Option<Seq>> = vec![None; log.key_count()];
    let mut is_duplicated = vec![false; log.key_count()];
    let mut is_unexpected = vec![false; log.key_count()];
    for number in (0..record.entries.len() as u32).map(EntryNo) {
        let entry = record.entry(number);
        let sighting = sightings.get(number);
        let is_in_log = log.was_read(entry.channel) && log.standing(number) == Standing::InLog;
        if sighting.is_none() && !is_in_log {
            continue;
        }
        let who = || match sighting {
            Some(Sighting { connection, .. }) => {
                format!("shown to {}", record.user(record.connections[connection as usize].user))
            }
            None => format!("the history of {}", record.channel(entry.channel)),
        };
        if sighting.is_some() {
            agrees(record, log, number, found, who);
        }
        if entry.is_system() {
            continue;
        }
        let as_it_should = was_sent(record, sends, log, number, found, who);
        let Some(key) = log.key(number) else {
            counts.unexpected += 1;
            continue;
        };
        if !as_it_should && !std::mem::replace(&mut is_unexpected[key.index()], true) {
            counts.unexpected += 1;
        }
        let first = log.seq_of(key).unwrap_or_else(|| *shown_at[key.index()].get_or_insert(entry.seq));
        if first != entry.seq {
            if !std::mem::replace(&mut is_duplicated[key.index()], true) {
                counts.duplicated += 1;
            }
            found.add(Promise::P3, || {
                let detail = format!("{}: {} is also at {first}", who(), record.show(number));
                (detail, [record.ids_of(number), record.place(entry.channel, first)])
            });
        }
        if let (Some(send), Some(sighting)) = (log.send(number), sighting)
            && sends.get(send).was_tried()
            && sighting.at < sends.get(send).begun_at()
        {
            found.add(Promise::P2, || {
                let detail = format!("{}: {} was shown before it was sent", who(), record.show(number));
                (detail, [record.ids_of(number)])
            });
        }
    }
    is_unexpected
}

/// Whether it may be seen.
fn was_sent(
    record: &Record,
    sends: &Sends,
    log: &Log,
    number: EntryNo,
    found: &mut Found,
    who: impl Fn() -> String,
) -> bool {
    let tried = log.send(number).map(|send| (record.send(send).body, sends.get(send)));
    let problem = match tried.filter(|(_, sent)| sent.was_tried()) {
        None if log.key(number).is_none() => "has no client_id".to_owned(),
        None => "was never sent".to_owned(),
        Some((Some(body), _)) if body != record.entry(number).body => {
            format!("was sent with another body (hash {:016x})", body.0)
        }
        Some((_, sent)) if sent.is_refused() => {
            format!("was refused ({})", sent.last_code.map_or("unknown", |code| code.as_str()))
        }
        Some((_, sent)) if sent.rejected => "was rejected".to_owned(),
        Some(_) => return true,
    };
    found.add(Promise::P2, || (format!("{}: {} {problem}", who(), record.show(number)), [record.ids_of(number)]));
    false
}

/// Each accepted message is in every member's history (who joined later may have missed it), unless rejected.
///
/// Returns the messages of which that is not so, by [`SendNo`].
fn check_accepted(record: &Record, sends: &Sends, log: &Log, found: &mut Found) -> Vec<bool> {
    let mut readers = vec![0u32; record.channels.len()];
    let mut holders = vec![0u32; record.sends.len()];
    // Of each message, the last history that it was counted in.
    let mut counted_in = vec![usize::MAX; record.sends.len()];
    for (index, history) in record.histories.iter().enumerate().filter(|(_, history)| history.from <= 1) {
        readers[history.channel.0 as usize] += 1;
        for send in history.entries.iter().filter_map(|entry| log.send(*entry)) {
            if std::mem::replace(&mut counted_in[send.0 as usize], index) != index {
                holders[send.0 as usize] += 1;
            }
        }
    }
    let mut is_lost = vec![false; record.sends.len()];
    for (send, sent) in sends.iter() {
        let (readers, holders) = (readers[record.send(send).channel.0 as usize], holders[send.0 as usize]);
        if sent.accepted_at.is_some() && !sent.rejected && holders < readers {
            is_lost[send.0 as usize] = true;
            found.add(Promise::P1, || {
                let detail =
                    format!("{} was accepted and is in {holders} of {readers} histories", record.show_send(send));
                (detail, [record.ids_of_send(send, log.seq_of_send(send))])
            });
        }
    }
    is_lost
}

/// A persisted message is in the history at the seq it was said to have.
fn check_persisted(record: &Record, log: &Log, purges: &Purges, found: &mut Found) {
    for event in record.connections.iter().flat_map(|connection| &connection.events) {
        let Seen::Persisted { send, seq } = event.seen else { continue };
        let channel = record.send(send).channel;
        if log.seq_of_send(send) == Some(seq) || !log.was_read(channel) {
            continue;
        }
        match log.get(record, channel, seq) {
            Some(entry) if log.send(entry) == Some(send) => {}
            Some(entry) => found.add(Promise::P7, || {
                let (what, there) = (record.show_send(send), record.show(entry));
                let detail = format!("{what} was persisted at {seq}, where there is {there}");
                (detail, [record.ids_of_send(send, Some(seq)), record.ids_of(entry)])
            }),
            None if seq <= purges.through(channel) => {}
            None => found.add(Promise::P7, || {
                let detail = format!("{} was persisted at {seq}, where nothing is", record.show_send(send));
                (detail, [record.ids_of_send(send, Some(seq))])
            }),
        }
    }
}

/// What is found is what the log has there.
fn check_hit(record: &Record, log: &Log, hit: &Hit, found: &mut Found) {
    let who = || format!("found by {}", record.user(hit.reader));
    match log.get(record, hit.channel, hit.seq) {
        Some(number) => {
            let Entry { sender, id, body, at, .. } = *record.entry(number);
            if (sender, id, body, at) != (hit.sender, hit.id, hit.body, hit.at) {
                found.add(Promise::P4, || {
                    let other = format!("{} of {} at {}", hit.id, record.user(hit.sender), hit.at);
                    (format!("{}: {other}, but elsewhere {}", who(), record.show(number)), [record.ids_of(number)])
                });
            }
        }
        None if log.was_read(hit.channel) => found.add(Promise::P4, || {
            let ids = record.place(hit.channel, hit.seq);
            (format!("{}: {} of {} is in no final history", who(), hit.seq, ids.channel), [ids])
        }),
        // Nobody read this channel's history, and nobody was shown this.
        None => {}
    }
}

fn count(
    record: &Record,
    sends: &Sends,
    log: &Log,
    sightings: &Sightings,
    is_unexpected: impl Fn(SendNo) -> bool,
    is_lost: &[bool],
    counts: &mut Counts,
) {
    let mut came_live = vec![false; record.sends.len()];
    for number in (0..record.entries.len() as u32).map(EntryNo) {
        if let Some(send) = log.send(number) {
            came_live[send.0 as usize] |= sightings.get(number).is_some_and(|sighting| sighting.is_live);
        }
    }
    for (send, sent) in sends.iter().filter(|(_, sent)| sent.was_tried()) {
        counts.attempts += 1;
        counts.acknowledged += u64::from(sent.accepted_at.is_some());
        counts.lost += u64::from(is_lost[send.0 as usize]);
        let is_ok = log.seq_of_send(send).is_some() && !is_unexpected(send) && !is_lost[send.0 as usize];
        counts.ok += u64::from(is_ok);
        counts.recovered += u64::from(is_ok && !(sent.went_at_once() && came_live[send.0 as usize]));
    }
}
