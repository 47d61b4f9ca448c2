//! P6: the log keeps the order in which messages were sent.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use super::log::Log;
use super::record::{ChannelNo, EntryNo, Record, SendNo, UserNo};
use super::sends::{Outcome, Sends, Sent};
use super::verdict::{Found, Promise};
use crate::message::Seq;

pub fn check(record: &Record, sends: &Sends, log: &Log, found: &mut Found) {
    for channel in (0..record.channels.len() as u32).map(ChannelNo).filter(|channel| log.was_read(*channel)) {
        check_after_accepted(record, channel, sends, log, found);
    }
    check_connections(record, sends, log, found);
}

/// A send begun after another was accepted comes after it, whoever sent them.
fn check_after_accepted(record: &Record, channel: ChannelNo, sends: &Sends, log: &Log, found: &mut Found) {
    // From the end: the earliest acceptance among the entries that come later in the log.
    let mut earliest: Option<(u64, EntryNo)> = None;
    for number in log.entries(channel).iter().rev() {
        let Some(send) = log.send(*number) else { continue };
        // A second occurrence is P3's to report.
        if log.seq_of_send(send) != Some(record.entry(*number).seq) {
            continue;
        }
        let sent = sends.get(send);
        if let Some((accepted_at, later)) = earliest
            && sent.was_tried()
            && sent.begun_at() > accepted_at
        {
            found.add(Promise::P6, || {
                let (what, other) = (record.show(*number), record.show(later));
                let detail = format!("{what} was begun after {other} had been accepted");
                (detail, [record.ids_of(*number), record.ids_of(later)])
            });
        }
        if let Some(at) = sent.accepted_at
            && earliest.is_none_or(|(earliest, _)| at < earliest)
        {
            earliest = Some((at, *number));
        }
    }
}

/// Two sends of one connection to a channel keep their order.
///
/// A send is left out where its effective attempt can't be known to stand in that order: it was refused for a while
/// (and others went ahead), or it was tried again after a later one had been.
fn check_connections(record: &Record, sends: &Sends, log: &Log, found: &mut Found) {
    let overlapping = users_with_overlapping_connections(record);
    let mut by_stream: IndexMap<(UserNo, ChannelNo), Vec<SendNo>> = IndexMap::new();
    for (number, _) in sends.iter().filter(|(_, sent)| sent.was_tried()) {
        let send = record.send(number);
        if log.was_read(send.channel) {
            by_stream.entry((send.sender, send.channel)).or_default().push(number);
        }
    }
    for ((user, _), mut stream) in by_stream {
        if stream.len() < 2 {
            continue;
        }
        // In the order of the first attempts, which the record's is already, unless it was merged.
        stream.sort_by_key(|send| sends.get(*send).begun_at());
        let sent: Vec<&Sent> = stream.iter().map(|send| sends.get(*send)).collect();
        let ordered = ordered(&sent, overlapping.contains(&user));
        // On each connection: the attempts in order, the first of each send only.
        let mut by_connection: IndexMap<usize, Vec<(usize, SendNo)>> = IndexMap::new();
        for (index, sent) in sent.iter().enumerate().filter(|(index, _)| ordered[*index]) {
            for (which, attempt) in sent.attempts.iter().enumerate() {
                if sent.attempts[..which].iter().all(|earlier| earlier.connection != attempt.connection) {
                    let attempts = by_connection.entry(attempt.connection).or_default();
                    attempts.push((attempt.position, stream[index]));
                }
            }
        }
        for attempts in by_connection.values_mut() {
            attempts.sort_unstable();
            check_connection(record, attempts, log, found);
        }
    }
}

/// `attempts` of one connection to one channel: positions on it, and messages.
fn check_connection(record: &Record, attempts: &[(usize, SendNo)], log: &Log, found: &mut Found) {
    let mut last: Option<(Seq, SendNo)> = None;
    for (_, send) in attempts {
        let Some(seq) = log.seq_of_send(*send) else { continue };
        if let Some((earlier_seq, earlier)) = last
            && seq < earlier_seq
        {
            found.add(Promise::P6, || {
                let (first, second) = (record.show_send(earlier), record.show_send(*send));
                let detail = format!("{first} was sent before {second} on one connection, at {earlier_seq} and {seq}");
                let ids = [record.ids_of_send(earlier, Some(earlier_seq)), record.ids_of_send(*send, Some(seq))];
                (detail, ids)
            });
        }
        last = last.max(Some((seq, *send)));
    }
}

/// For each send of a (sender, channel), in the order of first attempts: whether its place in that order is binding.
fn ordered(stream: &[&Sent], overlapping: bool) -> Vec<bool> {
    let mut ordered: Vec<bool> = stream
        .iter()
        .map(|sent| {
            let known = |outcome| outcome == Outcome::Unknown || outcome == Outcome::Accepted;
            let mut connections = sent.attempts.iter().map(|attempt| attempt.connection);
            let first = connections.next();
            sent.attempts.iter().all(|attempt| known(attempt.outcome))
                && (!overlapping || connections.all(|connection| Some(connection) == first))
        })
        .collect();
    let mut attempts: Vec<(u64, usize, usize)> = Vec::new();
    for (index, sent) in stream.iter().enumerate() {
        attempts.extend(sent.attempts.iter().map(|attempt| (attempt.at, attempt.connection, index)));
    }
    attempts.sort();
    // The connections so far, each with the latest send (by first attempt) tried on it.
    let mut latest: Vec<(usize, usize)> = Vec::new();
    let mut last_tried: HashMap<usize, usize> = HashMap::new();
    for (_, connection, index) in attempts {
        if let Some(before) = last_tried.insert(index, connection)
            && before != connection
        {
            let mut since = latest.iter().rev().take_while(|(known, _)| *known != before);
            if since.any(|(_, latest)| *latest > index) {
                ordered[index] = false;
            }
        }
        match latest.last_mut() {
            Some((known, latest)) if *known == connection => *latest = index.max(*latest),
            _ => latest.push((connection, index)),
        }
    }
    ordered
}

fn users_with_overlapping_connections(record: &Record) -> HashSet<UserNo> {
    let spans = record.connections.iter();
    let mut spans: Vec<(u64, u64, UserNo)> =
        spans.map(|connection| (connection.opened_at, connection.closed_at, connection.user)).collect();
    spans.sort();
    let mut overlapping = HashSet::new();
    let mut until: HashMap<UserNo, u64> = HashMap::new();
    for (opened_at, closed_at, user) in spans {
        let until = until.entry(user).or_default();
        if opened_at < *until {
            overlapping.insert(user);
        }
        *until = closed_at.max(*until);
    }
    overlapping
}
