//! P1–P4, P7 and density: what the final histories hold, and that everything else agrees with them.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::record::{Entry, Record, Seen};
use super::{Found, Promise, SendKey, Sends};

/// The channels' logs as the final histories give them.
#[derive(Default)]
pub struct Log<'a> {
    /// By channel and seq; where readers disagree, the first one's (and P4 is reported).
    pub entries: HashMap<&'a str, BTreeMap<u64, &'a Entry>>,
    /// Where each message is, at its first occurrence.
    pub seq_of: HashMap<SendKey<'a>, u64>,
}

impl<'a> Log<'a> {
    pub fn of(record: &'a Record) -> Self {
        let mut log = Self::default();
        for history in &record.histories {
            let entries = log.entries.entry(&history.channel).or_default();
            for entry in &history.entries {
                entries.entry(entry.seq).or_insert(entry);
            }
        }
        for (channel, entries) in &log.entries {
            for (seq, entry) in entries {
                if let Some(key) = key_of(entry, channel) {
                    log.seq_of.entry(key).or_insert(*seq);
                }
            }
        }
        log
    }

    pub fn get(&self, channel: &str, seq: u64) -> Option<&'a Entry> {
        self.entries.get(channel)?.get(&seq).copied()
    }
}

fn key_of<'a>(entry: &'a Entry, channel: &'a str) -> Option<SendKey<'a>> {
    if entry.is_system() {
        return None;
    }
    Some((channel, &entry.sender, entry.client_id.as_deref()?))
}

pub fn check(record: &Record, sends: &Sends<'_>, log: &Log<'_>, found: &mut Found) {
    check_histories(record, log, found);
    check_entries(sends, log, found);
    check_accepted(record, sends, found);
    check_sightings(record, sends, log, found);
}

/// Each reader's history is dense and all readers have the same one.
fn check_histories(record: &Record, log: &Log<'_>, found: &mut Found) {
    for history in &record.histories {
        let who = || format!("{}'s history of {}", history.reader, history.channel);
        let mut next = history.from;
        for entry in &history.entries {
            if entry.seq != next {
                found.add(Promise::P9, || format!("{}: seq {} stands where {next} should", who(), entry.seq));
            }
            next = entry.seq + 1;
            agrees(log, entry, found, who);
        }
        let last = log.entries[history.channel.as_str()].last_key_value().map_or(0, |(seq, _)| *seq);
        if next <= last {
            found.add(Promise::P4, || format!("{} ends at {}, another's at {last}", who(), next - 1));
        }
    }
}

/// Whatever is shown under a (channel, seq) is what the log has there.
fn agrees(log: &Log<'_>, entry: &Entry, found: &mut Found, who: impl Fn() -> String) {
    match log.get(&entry.channel, entry.seq) {
        Some(known) if known == entry => {}
        Some(known) => found.add(Promise::P4, || format!("{}: {entry:?}, but elsewhere {known:?}", who())),
        None if log.entries.contains_key(entry.channel.as_str()) => {
            found.add(Promise::P4, || format!("{}: {entry:?} is in no final history", who()));
        }
        // Nobody read this channel's history.
        None => {}
    }
}

/// Each entry of the log was sent, was not refused, and is there once.
fn check_entries(sends: &Sends<'_>, log: &Log<'_>, found: &mut Found) {
    for (channel, entries) in &log.entries {
        for (seq, entry) in entries {
            check_was_sent(sends, entry, found, || format!("the history of {channel}"));
            if let Some(key) = key_of(entry, channel)
                && let first = log.seq_of[&key]
                && first != *seq
            {
                found.add(Promise::P3, || format!("{key:?} is in the log at {first} and at {seq}"));
            }
        }
    }
}

fn check_was_sent(sends: &Sends<'_>, entry: &Entry, found: &mut Found, who: impl Fn() -> String) {
    if entry.is_system() {
        return;
    }
    let Some(key) = key_of(entry, &entry.channel) else {
        found.add(Promise::P2, || format!("{}: {entry:?} has no client_id", who()));
        return;
    };
    match sends.by_key.get(&key) {
        None => found.add(Promise::P2, || format!("{}: {entry:?} was never sent", who())),
        Some(sent) if sent.body != entry.body => {
            found.add(Promise::P2, || format!("{}: {entry:?} was sent as {:?}", who(), sent.body));
        }
        Some(sent) if sent.is_refused() => {
            found.add(Promise::P2, || format!("{}: {entry:?} was refused ({})", who(), sent.last_code));
        }
        Some(sent) if sent.rejected => {
            found.add(Promise::P2, || format!("{}: {entry:?} was rejected", who()));
        }
        Some(_) => {}
    }
}

/// Each accepted message is in every member's history (who joined later may have missed it), unless rejected.
fn check_accepted(record: &Record, sends: &Sends<'_>, found: &mut Found) {
    let mut readers: HashMap<&str, usize> = HashMap::new();
    let mut holders: HashMap<SendKey<'_>, usize> = HashMap::new();
    for history in &record.histories {
        if history.from > 1 {
            continue;
        }
        *readers.entry(&history.channel).or_default() += 1;
        let held: HashSet<SendKey<'_>> =
            history.entries.iter().filter_map(|entry| key_of(entry, &history.channel)).collect();
        for key in held {
            *holders.entry(key).or_default() += 1;
        }
    }
    for (key, sent) in &sends.by_key {
        let Some(readers) = readers.get(key.0) else { continue };
        let holders = holders.get(key).copied().unwrap_or(0);
        if sent.accepted_at.is_some() && !sent.rejected && holders < *readers {
            found.add(Promise::P1, || {
                format!("{key:?} ({:?}) was accepted and is in {holders} of {readers} histories", sent.body)
            });
        }
    }
}

/// Everything the clients were shown agrees with the log and with what was sent.
fn check_sightings(record: &Record, sends: &Sends<'_>, log: &Log<'_>, found: &mut Found) {
    // Also where nobody read the history, one message has one seq, and one seq one message.
    let mut live_seq: HashMap<SendKey<'_>, u64> = HashMap::new();
    let mut live_entry: HashMap<(&str, u64), &Entry> = HashMap::new();
    for connection in &record.connections {
        let who = || format!("shown to {}", connection.user);
        let mut sight = |entry, at, found: &mut Found| {
            check_was_sent(sends, entry, found, who);
            agrees(log, entry, found, who);
            let first = *live_entry.entry((&entry.channel, entry.seq)).or_insert(entry);
            if first != entry && !log.entries.contains_key(entry.channel.as_str()) {
                found.add(Promise::P4, || format!("{}: {entry:?}, but elsewhere {first:?}", who()));
            }
            let Some(key) = key_of(entry, &entry.channel) else { return };
            let first = *live_seq.entry(key).or_insert(entry.seq);
            if first != entry.seq {
                found.add(Promise::P3, || format!("{key:?} was shown at {first} and at {}", entry.seq));
            }
            if sends.by_key.get(&key).is_some_and(|sent| at < sent.begun_at()) {
                found.add(Promise::P2, || format!("{}: {entry:?} was shown before it was sent", who()));
            }
        };
        for event in &connection.events {
            match &event.seen {
                Seen::Message(entry) => sight(entry, event.at, found),
                Seen::Page { entries, .. } => entries.iter().for_each(|entry| sight(entry, event.at, found)),
                Seen::Welcome(heads) => {
                    heads.iter().flat_map(|head| &head.messages).for_each(|entry| sight(entry, event.at, found));
                }
                Seen::Persisted { channel, client_id, seq } => {
                    check_persisted(log, (channel, &connection.user, client_id), *seq, found);
                }
                _ => {}
            }
        }
    }
    for hit in &record.hits {
        if let Some(known) = log.get(&hit.entry.channel, hit.entry.seq) {
            let entry = Entry { client_id: known.client_id.clone(), kind: known.kind.clone(), ..hit.entry.clone() };
            agrees(log, &entry, found, || format!("found by {}", hit.reader));
        } else {
            found.add(Promise::P4, || format!("found by {}: {:?} is in no final history", hit.reader, hit.entry));
        }
    }
}

/// A persisted message is in the history at the seq it was said to have.
fn check_persisted(log: &Log<'_>, key: SendKey<'_>, seq: u64, found: &mut Found) {
    let (channel, sender, client_id) = key;
    if !log.entries.contains_key(channel) {
        return;
    }
    match log.get(channel, seq) {
        Some(entry) if entry.sender == sender && entry.client_id.as_deref() == Some(client_id) => {}
        Some(entry) => found.add(Promise::P7, || format!("{key:?} was persisted at {seq}, where {entry:?} is")),
        None => found.add(Promise::P7, || format!("{key:?} was persisted at {seq}, where nothing is")),
    }
}
