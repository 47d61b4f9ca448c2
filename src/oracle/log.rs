//! The channels' logs, as the final histories give them; of a channel that nobody read, as it was shown.

use std::collections::HashMap;

use uuid::Uuid;

use super::record::{ChannelNo, Entry, EntryNo, Record, SendNo, UserNo};
use crate::message::Seq;

/// A message by what names it for good: its [`SendNo`] if anybody tried to send it, or else a number above those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u32);

/// How what somebody saw stands to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    InLog,
    /// Another entry is at its place.
    Contradicted(EntryNo),
    Missing,
}

pub struct Log {
    /// By channel, by seq. Where readers disagree, the first one's is there.
    by_channel: Vec<Vec<EntryNo>>,
    /// By channel.
    was_read: Vec<bool>,
    /// By entry; none for system entries, and for what has no `client_id`.
    keys: Vec<Option<Key>>,
    /// By key: its lowest seq.
    seqs: Vec<Option<Seq>>,
    standings: Vec<Standing>,
    sends: usize,
}

impl Log {
    pub fn of(record: &Record) -> Self {
        let mut was_read = vec![false; record.channels.len()];
        let mut by_channel: Vec<Vec<EntryNo>> = vec![Vec::new(); record.channels.len()];
        let mut is_in = vec![false; record.entries.len()];
        for history in &record.histories {
            was_read[history.channel.0 as usize] = true;
        }
        let mut put = |number: EntryNo| {
            if !std::mem::replace(&mut is_in[number.0 as usize], true) {
                by_channel[record.entry(number).channel.0 as usize].push(number);
            }
        };
        record.histories.iter().flat_map(|history| &history.entries).for_each(|entry| put(*entry));
        for (number, entry) in record.entries.iter().enumerate() {
            if !was_read[entry.channel.0 as usize] {
                put(EntryNo(number as u32));
            }
        }
        for entries in &mut by_channel {
            // Histories are sorted, so this takes one look at each; and it is stable: the first reader's stays.
            entries.sort_by_key(|entry| record.entry(*entry).seq);
            entries.dedup_by_key(|entry| record.entry(*entry).seq);
        }
        let (keys, key_count) = keys(record);
        let mut log = Self {
            by_channel,
            was_read,
            keys,
            seqs: vec![None; key_count],
            standings: vec![],
            sends: record.sends.len(),
        };
        for entries in &log.by_channel {
            for number in entries {
                if let Some(key) = log.keys[number.0 as usize] {
                    log.seqs[key.0 as usize].get_or_insert(record.entry(*number).seq);
                }
            }
        }
        log.standings = (0..record.entries.len() as u32).map(|number| log.compare(record, EntryNo(number))).collect();
        log
    }

    fn compare(&self, record: &Record, number: EntryNo) -> Standing {
        let Entry { channel, seq, .. } = *record.entry(number);
        match self.get(record, channel, seq) {
            Some(known) if known == number => Standing::InLog,
            Some(known) => Standing::Contradicted(known),
            None => Standing::Missing,
        }
    }

    pub fn get(&self, record: &Record, channel: ChannelNo, seq: Seq) -> Option<EntryNo> {
        let entries = &self.by_channel[channel.0 as usize];
        // A log without holes has it just there.
        let dense = usize::try_from(seq).ok().and_then(|seq| entries.get(seq.checked_sub(1)?)).copied();
        if let Some(number) = dense.filter(|number| record.entry(*number).seq == seq) {
            return Some(number);
        }
        let index = entries.binary_search_by_key(&seq, |entry| record.entry(*entry).seq).ok()?;
        Some(entries[index])
    }

    /// In the order of the seqs.
    pub fn entries(&self, channel: ChannelNo) -> &[EntryNo] {
        &self.by_channel[channel.0 as usize]
    }

    /// The highest seq; 0 if there is none.
    pub fn end(&self, record: &Record, channel: ChannelNo) -> Seq {
        self.entries(channel).last().map_or(0, |last| record.entry(*last).seq)
    }

    /// Whether anybody read its history in the end.
    pub fn was_read(&self, channel: ChannelNo) -> bool {
        self.was_read[channel.0 as usize]
    }

    pub fn standing(&self, entry: EntryNo) -> Standing {
        self.standings[entry.0 as usize]
    }

    pub fn key(&self, entry: EntryNo) -> Option<Key> {
        self.keys[entry.0 as usize]
    }

    /// The message that an entry is of, if anybody was seen with it.
    pub fn send(&self, entry: EntryNo) -> Option<SendNo> {
        self.key(entry).map(|key| SendNo(key.0)).filter(|send| (send.0 as usize) < self.sends)
    }

    /// Where a message is in the log: its lowest seq.
    pub fn seq_of(&self, key: Key) -> Option<Seq> {
        self.seqs[key.0 as usize]
    }

    pub fn seq_of_send(&self, send: SendNo) -> Option<Seq> {
        self.seq_of(Key(send.0))
    }

    /// How many different messages there are.
    pub const fn key_count(&self) -> usize {
        self.seqs.len()
    }
}

impl Key {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Of each entry the key, and how many keys there are.
fn keys(record: &Record) -> (Vec<Option<Key>>, usize) {
    let mut numbers: HashMap<(ChannelNo, UserNo, Uuid), Key> = HashMap::with_capacity(record.sends.len());
    for (number, send) in record.sends.iter().enumerate() {
        numbers.insert((send.channel, send.sender, send.client_id), Key(number as u32));
    }
    let mut count = record.sends.len();
    let mut keys = Vec::with_capacity(record.entries.len());
    for entry in &record.entries {
        let Some(client_id) = entry.client_id.filter(|_| !entry.is_system()) else {
            keys.push(None);
            continue;
        };
        keys.push(Some(*numbers.entry((entry.channel, entry.sender, client_id)).or_insert_with(|| {
            count += 1;
            Key(count as u32 - 1)
        })));
    }
    (keys, count)
}
