//! P6: the log keeps the order in which messages were sent.

use std::collections::{HashMap, HashSet};

use super::log::Log;
use super::record::Record;
use super::{Found, Outcome, Promise, SendKey, Sends, Sent};

pub fn check(record: &Record, sends: &Sends<'_>, log: &Log<'_>, found: &mut Found) {
    check_after_accepted(sends, log, found);
    check_connections(record, sends, log, found);
}

/// A send begun after another was accepted comes after it, whoever sent them.
fn check_after_accepted(sends: &Sends<'_>, log: &Log<'_>, found: &mut Found) {
    for (channel, entries) in &log.entries {
        // From the end: the earliest acceptance among the entries that come later in the log.
        let mut earliest: Option<(u64, u64, SendKey<'_>)> = None;
        for (seq, entry) in entries.iter().rev() {
            let Some(client_id) = entry.client_id.as_deref() else { continue };
            let key = (*channel, entry.sender.as_str(), client_id);
            let Some(sent) = sends.by_key.get(&key) else { continue };
            // A second occurrence is P3's to report.
            if log.seq_of.get(&key) != Some(seq) {
                continue;
            }
            if let Some((accepted_at, later, later_key)) = earliest
                && sent.begun_at() > accepted_at
            {
                found.add(Promise::P6, || {
                    format!("{key:?} at {seq} was begun after {later_key:?} at {later} had been accepted")
                });
            }
            if let Some(at) = sent.accepted_at
                && earliest.is_none_or(|(earliest, ..)| at < earliest)
            {
                earliest = Some((at, *seq, key));
            }
        }
    }
}

/// Two sends of one connection to a channel keep their order.
///
/// A send is left out where its effective attempt can't be known to stand in that order: it was refused for a while
/// (and others went ahead), or it was tried again after a later one had been.
fn check_connections(record: &Record, sends: &Sends<'_>, log: &Log<'_>, found: &mut Found) {
    let overlapping = users_with_overlapping_connections(record);
    // By sender and channel, in the order of the first attempts.
    let mut by_stream: HashMap<(&str, &str), Vec<(SendKey<'_>, &Sent<'_>)>> = HashMap::new();
    for (key, sent) in &sends.by_key {
        by_stream.entry((key.1, key.0)).or_default().push((*key, sent));
    }
    for ((user, channel), mut stream) in by_stream {
        stream.sort_by_key(|(_, sent)| sent.begun_at());
        let ordered = ordered(&stream, overlapping.contains(user));
        // On each connection: the attempts in order, the first of each send only.
        let mut by_connection: HashMap<usize, Vec<(usize, usize)>> = HashMap::new();
        for (index, (_, sent)) in stream.iter().enumerate().filter(|(index, _)| ordered[*index]) {
            let mut tried_on = HashSet::new();
            for attempt in &sent.attempts {
                if tried_on.insert(attempt.connection) {
                    by_connection.entry(attempt.connection).or_default().push((attempt.position, index));
                }
            }
        }
        for attempts in by_connection.values_mut() {
            attempts.sort_unstable();
            let mut last: Option<(u64, SendKey<'_>)> = None;
            for (_, index) in attempts {
                let (key, _) = stream[*index];
                let Some(seq) = log.seq_of.get(&key).copied() else { continue };
                if let Some((earlier_seq, earlier_key)) = last
                    && seq < earlier_seq
                {
                    found.add(Promise::P6, || {
                        format!(
                            "{user} sent {earlier_key:?} before {key:?} on one connection to {channel}, \
                             but they are at {earlier_seq} and {seq}"
                        )
                    });
                }
                last = last.max(Some((seq, key)));
            }
        }
    }
}

/// For each send of a (sender, channel), in the order of first attempts: whether its place in that order is binding.
fn ordered(stream: &[(SendKey<'_>, &Sent<'_>)], overlapping: bool) -> Vec<bool> {
    let mut ordered: Vec<bool> = stream
        .iter()
        .map(|(_, sent)| {
            let known = |outcome| outcome == Outcome::Unknown || outcome == Outcome::Accepted;
            let mut connections = sent.attempts.iter().map(|attempt| attempt.connection);
            let first = connections.next();
            sent.attempts.iter().all(|attempt| known(attempt.outcome))
                && (!overlapping || connections.all(|connection| Some(connection) == first))
        })
        .collect();
    let mut attempts: Vec<(u64, usize, usize)> = Vec::new();
    for (index, (_, sent)) in stream.iter().enumerate() {
        attempts.extend(sent.attempts.iter().map(|attempt| (attempt.at, attempt.connection, index)));
    }
    attempts.sort_unstable();
    // The connections so far, each with the latest send (by first attempt) tried on it.
    let mut latest: Vec<(usize, usize)> = Vec::new();
    let mut last_tried: HashMap<usize, usize> = HashMap::new();
    for (_, connection, index) in attempts {
        if let Some(before) = last_tried.insert(index, connection)
            && before != connection
        {
            let since = latest.iter().rev().take_while(|(known, _)| *known != before);
            if since.into_iter().any(|(_, latest)| *latest > index) {
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

fn users_with_overlapping_connections(record: &Record) -> HashSet<&str> {
    let mut spans: Vec<(&str, u64, u64)> = record
        .connections
        .iter()
        .map(|connection| (connection.user.as_str(), connection.opened_at, connection.closed_at))
        .collect();
    spans.sort_unstable();
    let mut overlapping = HashSet::new();
    let mut until: HashMap<&str, u64> = HashMap::new();
    for (user, opened_at, closed_at) in spans {
        let until = until.entry(user).or_default();
        if opened_at < *until {
            overlapping.insert(user);
        }
        *until = closed_at.max(*until);
    }
    overlapping
}
