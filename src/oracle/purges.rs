//! P12: what was purged is read by nobody any more.
//!
//! The other promises hold of it, too, until it goes: they are judged as if it were there still, as it was shown.

use std::borrow::Cow;
use std::collections::HashMap;

use super::record::{ChannelNo, EntryNo, Record, Seen};
use super::verdict::{Found, Promise};
use crate::message::Seq;

/// By channel: everything up to here was said to be gone.
pub struct Purges(Vec<Seq>);

impl Purges {
    pub fn of(record: &Record) -> Self {
        let mut purged = vec![0; record.channels.len()];
        for event in record.connections.iter().flat_map(|connection| &connection.events) {
            if let Seen::Purged { channel, seq } = event.seen {
                let known: &mut Seq = &mut purged[channel.0 as usize];
                *known = seq.max(*known);
            }
        }
        Self(purged)
    }

    pub fn through(&self, channel: ChannelNo) -> Seq {
        self.0[channel.0 as usize]
    }

    /// With the purged entries that somebody was shown at the beginnings of the final histories.
    pub fn made_whole<'a>(&self, record: &'a Record) -> Cow<'a, Record> {
        if self.0.iter().all(|seq| *seq == 0) {
            return Cow::Borrowed(record);
        }
        let mut shown: HashMap<ChannelNo, Vec<EntryNo>> = HashMap::new();
        for (number, entry) in record.entries.iter().enumerate() {
            if entry.seq <= self.through(entry.channel) {
                shown.entry(entry.channel).or_default().push(EntryNo(number as u32));
            }
        }
        for entries in shown.values_mut() {
            entries.sort_by_key(|entry| record.entry(*entry).seq);
        }
        let mut record = record.clone();
        let entries = std::mem::take(&mut record.entries);
        for history in &mut record.histories {
            let gone = self.through(history.channel);
            let Some(shown) = shown.get(&history.channel) else { continue };
            let may_see = shown.iter().filter(|entry| entries[entry.0 as usize].seq >= history.from).copied();
            let left = history.entries.iter().filter(|entry| entries[entry.0 as usize].seq > gone).copied();
            history.entries = may_see.chain(left).collect();
        }
        record.entries = entries;
        Cow::Owned(record)
    }
}

/// A history that is read in the end holds nothing of it; a connection that was told so is shown nothing of it.
pub fn check(record: &Record, purges: &Purges, found: &mut Found) {
    for history in &record.histories {
        let gone = purges.through(history.channel);
        for number in history.entries.iter().filter(|number| record.entry(**number).seq <= gone) {
            found.add(Promise::P12, || {
                let who = record.user(history.reader);
                let detail = format!("{who} still reads {}, purged up to {gone}", record.show(*number));
                (detail, [record.ids_of(*number)])
            });
        }
    }
    for connection in &record.connections {
        let mut told: HashMap<ChannelNo, Seq> = HashMap::new();
        for event in &connection.events {
            match event.seen {
                Seen::Purged { channel, seq } => {
                    let known = told.entry(channel).or_default();
                    *known = seq.max(*known);
                }
                Seen::Message(number) => {
                    let entry = record.entry(number);
                    let gone = told.get(&entry.channel).copied().unwrap_or(0);
                    if entry.seq <= gone {
                        found.add(Promise::P12, || {
                            let who = record.user(connection.user);
                            let detail = format!("{who} is shown {} after it was purged", record.show(number));
                            (detail, [record.ids_of(number)])
                        });
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Event;
    use super::super::{check, synth};
    use super::*;

    /// A correct record, in the end of which half of a channel is purged before the histories are read; the channel.
    fn purged(seed: u64) -> Option<(Record, ChannelNo, Seq)> {
        let (mut record, _) = synth::record(seed);
        let history = record.histories.iter().max_by_key(|history| history.entries.len())?;
        let channel = history.channel;
        let gone = record.entry(*history.entries.get(history.entries.len() / 2)?).seq;
        for connection in &mut record.connections {
            let knows = |event: &Event| matches!(&event.seen, Seen::Welcome(_));
            let at = connection.events.last().map_or(connection.opened_at, |last| last.at);
            if connection.events.iter().any(knows) {
                connection.events.push(Event { at, seen: Seen::Purged { channel, seq: gone } });
            }
        }
        let entries = std::mem::take(&mut record.entries);
        for history in record.histories.iter_mut().filter(|history| history.channel == channel) {
            history.entries.retain(|entry| entries[entry.0 as usize].seq > gone);
        }
        record.entries = entries;
        Some((record, channel, gone))
    }

    fn all() -> impl Iterator<Item = (Record, ChannelNo, Seq)> {
        (0..40).filter_map(purged)
    }

    #[test]
    fn a_purge_breaks_no_promise() {
        let mut judged = 0;
        for (record, ..) in all() {
            let verdict = check(&record);
            assert!(verdict.broken.is_empty(), "{:?}", verdict.broken);
            judged += 1;
        }
        assert!(judged > 20);
    }

    #[test]
    fn what_is_still_read_is_found() {
        for (mut record, channel, gone) in all() {
            let is_last = |entry: &&u32| {
                let entry = record.entry(EntryNo(**entry));
                entry.channel == channel && entry.seq == gone
            };
            let Some(last) = (0..record.entries.len() as u32).collect::<Vec<_>>().iter().find(is_last).copied() else {
                continue;
            };
            let Some(history) = record.histories.iter_mut().find(|history| history.channel == channel) else {
                continue;
            };
            history.entries.insert(0, EntryNo(last));
            assert_eq!(check(&record).broken.get(&Promise::P12), Some(&1));
        }
    }

    #[test]
    fn what_is_shown_afterwards_is_found() {
        let mut judged = 0;
        for (mut record, channel, _) in all() {
            let shown = |event: &Event| matches!(event.seen, Seen::Message(number) if record.entries[number.0 as usize].channel == channel);
            let Some((on, again)) = record.connections.iter().enumerate().find_map(|(on, connection)| {
                let first = connection.events.iter().find(|event| shown(event))?;
                let Seen::Message(number) = first.seen else { return None };
                matches!(connection.events.last()?.seen, Seen::Purged { .. }).then_some((on, number))
            }) else {
                continue;
            };
            let at = record.connections[on].events.last().map_or(0, |last| last.at);
            record.connections[on].events.push(Event { at, seen: Seen::Message(again) });
            assert!(check(&record).broken.contains_key(&Promise::P12));
            judged += 1;
        }
        assert!(judged > 10);
    }
}
