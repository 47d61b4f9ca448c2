//! P1–P4: messages that are lost, invented, altered, or there twice.

use fastrand::Rng;
use uuid::Uuid;

use crate::oracle::places::{attempt, find, message, random_entry, send_of, variant};
use crate::oracle::record::{Body, ChannelNo, Connection, Entry, EntryNo, Event, Record, Seen, Send, SendNo};
use crate::wire::ErrorCode;

pub fn lose_last(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    let channel = record.entry(entry).channel;
    cut(record, |history_channel, _| history_channel == channel)
}

pub fn lose_last_for_one(record: &mut Record, rng: &mut Rng) -> bool {
    let chosen = rng.usize(0..record.histories.len());
    cut(record, |_, index| index == chosen)
}

/// Takes the last entry off some histories, if it is a message.
fn cut(record: &mut Record, wanted: impl Fn(ChannelNo, usize) -> bool) -> bool {
    let mut was_cut = false;
    for (index, history) in record.histories.iter_mut().enumerate() {
        if wanted(history.channel, index) {
            let last = history.entries.pop();
            was_cut |= last.is_some_and(|last| !record.entries[last.0 as usize].is_system());
        }
    }
    was_cut
}

fn append(record: &mut Record, of: EntryNo, change: impl Fn(&mut Entry)) {
    let channel = record.entry(of).channel;
    let mut appended = None;
    for index in 0..record.histories.len() {
        if record.histories[index].channel == channel {
            let seq = record.histories[index].entries.len() as u64 + 1;
            let entry = *appended.get_or_insert_with(|| {
                variant(record, of, |entry| {
                    entry.seq = seq;
                    change(entry);
                })
            });
            record.histories[index].entries.push(entry);
        }
    }
}

pub fn invent(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    append(record, entry, |entry| entry.client_id = Some(Uuid::nil()));
    true
}

pub fn forget_client_id(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    append(record, entry, |entry| entry.client_id = None);
    true
}

pub fn log_twice(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    append(record, entry, |_| ());
    true
}

fn alter(entry: &mut Entry) {
    entry.body = Body(entry.body.0 ^ 1);
}

pub fn alter_everywhere(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    alter(&mut record.entries[entry.0 as usize]);
    true
}

/// One frame shows another entry.
fn with_message(record: &mut Record, rng: &mut Rng, change: impl FnOnce(&mut Entry)) -> bool {
    let is_text = |record: &Record, entry| !Entry::is_system(record.entry(entry));
    let wanted = |connection: &Connection, at| message(connection, at).is_some_and(|entry| is_text(record, entry));
    let Some((on, at)) = find(record, rng, wanted) else { return false };
    let Some(entry) = message(&record.connections[on], at) else { return false };
    let changed = variant(record, entry, change);
    record.connections[on].events[at].seen = Seen::Message(changed);
    record.entry(changed) != record.entry(entry)
}

pub fn alter_once(record: &mut Record, rng: &mut Rng) -> bool {
    with_message(record, rng, alter)
}

pub fn alter_where_nobody_reads(record: &mut Record, rng: &mut Rng) -> bool {
    record.histories.clear();
    let twice = |connection: &Connection, at: usize| {
        message(connection, at).is_some_and(|entry| !record.entry(entry).is_system() && shown(record, entry) > 1)
    };
    let Some((on, at)) = find(record, rng, twice) else { return false };
    let Some(entry) = message(&record.connections[on], at) else { return false };
    let changed = variant(record, entry, alter);
    record.connections[on].events[at].seen = Seen::Message(changed);
    true
}

/// How many frames show an entry.
fn shown(record: &Record, entry: EntryNo) -> usize {
    let events = record.connections.iter().flat_map(|connection| &connection.events);
    events.filter(|event| event.seen == Seen::Message(entry)).count()
}

pub fn give_seq_twice(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(other) = random_entry(record, rng) else { return false };
    let other = *record.entry(other);
    let mut changed = false;
    with_message(record, rng, |entry| {
        changed = entry.id != other.id;
        *entry = Entry { seq: entry.seq, channel: entry.channel, ..other };
    }) && changed
}

pub fn show_at_another_seq(record: &mut Record, rng: &mut Rng) -> bool {
    with_message(record, rng, |entry| entry.seq += 3)
}

pub fn change_sender(record: &mut Record, rng: &mut Rng) -> bool {
    let users = record.users.len() as u32;
    with_message(record, rng, |entry| entry.sender.0 = (entry.sender.0 + 1) % users)
}

pub fn alter_hit(record: &mut Record, rng: &mut Rng) -> bool {
    let at = rng.usize(0..record.hits.len());
    record.hits[at].id = Uuid::nil();
    true
}

pub fn find_what_is_not_there(record: &mut Record, rng: &mut Rng) -> bool {
    let at = rng.usize(0..record.hits.len());
    record.hits[at].seq += 1_000_000;
    true
}

pub fn refuse_afterwards(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    let Some((on, _, accepted)) = attempt(record, entry) else { return false };
    let events = &mut record.connections[on].events;
    let event = events.iter_mut().find(|event| event.at == accepted).unwrap();
    let Seen::Accepted { reference } = event.seen else { return false };
    event.seen = Seen::Refused { reference, code: ErrorCode::NotAMember, retry: false };
    true
}

pub fn reject_afterwards(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(entry) = random_entry(record, rng) else { return false };
    let Some(send) = send_of(record, entry) else { return false };
    let sender = record.entry(entry).sender;
    let connection = record.connections.iter_mut().find(|connection| connection.user == sender).unwrap();
    connection.events.push(Event { at: 0, seen: Seen::Rejected { send } });
    true
}

pub fn reject_what_nobody_sent(record: &mut Record, rng: &mut Rng) -> bool {
    let at = rng.usize(0..record.sends.len());
    let send = SendNo(record.sends.len() as u32);
    record.sends.push(Send { client_id: Uuid::nil(), body: None, ..record.sends[at] });
    record.connections[0].events.push(Event { at: 0, seen: Seen::Rejected { send } });
    true
}

pub fn show_early(record: &mut Record, rng: &mut Rng) -> bool {
    let is_text = |entry: EntryNo| !record.entry(entry).is_system();
    let wanted = |connection: &Connection, at| message(connection, at).is_some_and(is_text);
    let Some((on, at)) = find(record, rng, wanted) else { return false };
    record.connections[on].events[at].at = 0;
    true
}
