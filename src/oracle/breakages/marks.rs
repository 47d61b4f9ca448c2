//! P9: watermarks, and histories that are not dense.

use fastrand::Rng;

use super::change_one;
use crate::oracle::places::{find, heads, random_entry, seen};
use crate::oracle::record::{ChannelNo, Connection, Entry, Mark, Record, Seen};

pub fn turn_watermark_back(record: &mut Record, rng: &mut Rng) -> bool {
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

pub fn watermark_beyond(record: &mut Record, rng: &mut Rng) -> bool {
    change_one(record, rng, |seen| match seen {
        Seen::Watermark { seq: seq @ 1.., mark: Mark::Read, .. } => {
            *seq += 1_000_000;
            true
        }
        _ => false,
    })
}

pub fn miscount_unread(record: &mut Record, rng: &mut Rng) -> bool {
    change_one(record, rng, |seen| match seen {
        Seen::Welcome(welcome) => {
            welcome.heads[0].unread += 1;
            true
        }
        _ => false,
    })
}

pub fn deliver_beyond(record: &mut Record, rng: &mut Rng) -> bool {
    change_one(record, rng, |seen| match seen {
        Seen::Welcome(welcome) => {
            welcome.heads[0].delivered_seq = welcome.heads[0].last_seq + 1;
            true
        }
        _ => false,
    })
}

pub fn forget_read(record: &mut Record, _: &mut Rng) -> bool {
    for number in (0..record.connections.len()).rev() {
        let Connection { user, opened_at, .. } = record.connections[number];
        for at in 0..record.connections[number].events.len() {
            let Seen::Welcome(welcome) = &mut record.connections[number].events[at].seen else { continue };
            // The last welcome with something read: an earlier one of the user has it too, or this isn't applicable.
            let Some(head) = welcome.heads.iter_mut().find(|head| head.read_seq > 0) else { continue };
            let channel = head.channel;
            (head.read_seq, head.delivered_seq, head.unread) = (0, 0, head.last_seq);
            return record.connections.iter().any(|earlier| {
                let mut heads = heads(earlier).into_iter().flatten();
                let known = heads.any(|head| head.channel == channel && head.read_seq > 0);
                earlier.user == user && earlier.opened_at < opened_at && known
            });
        }
    }
    false
}

pub fn hole_in_history(record: &mut Record, rng: &mut Rng) -> bool {
    let Some(chosen) = random_entry(record, rng) else { return false };
    let Entry { channel, seq, .. } = *record.entry(chosen);
    let mut inside = false;
    for history in record.histories.iter_mut().filter(|history| history.channel == channel) {
        inside = seq < history.entries.len() as u64;
        history.entries.retain(|entry| *entry != chosen);
    }
    inside
}

pub fn disorder_history(record: &mut Record, rng: &mut Rng) -> bool {
    let at = rng.usize(0..record.histories.len());
    let entries = &mut record.histories[at].entries;
    let long_enough = entries.len() >= 2;
    if long_enough {
        entries.swap(0, 1);
    }
    long_enough
}

pub fn history_of_another_channel(record: &mut Record, rng: &mut Rng) -> bool {
    let at = rng.usize(0..record.histories.len());
    let channel = record.histories[at].channel;
    let others = (0..record.channels.len() as u32).map(ChannelNo).filter(|other| *other != channel);
    let Some(other) = rng.choice(others.collect::<Vec<_>>()) else { return false };
    record.histories[at].channel = other;
    !record.histories[at].entries.is_empty()
}
