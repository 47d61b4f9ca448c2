//! The end of a run: everybody is back, everything is stored, and the members read what there is.

use super::{CHANNELS, Coverage, Synth, USERS};
use crate::oracle::record::{ChannelNo, Entry, History, Hit, Record, Search, Send, SendNo, UserNo};

impl Synth {
    pub(super) fn settle(&mut self) {
        loop {
            for user in 0..USERS.len() {
                if self.users[user].connection.is_none() {
                    self.connect(user);
                }
            }
            if self.users.iter().all(|user| user.connection.is_some() && user.unanswered.is_empty()) {
                break;
            }
            (0..USERS.len()).for_each(|user| {
                if !self.users[user].unanswered.is_empty() {
                    self.disconnect(user);
                }
            });
        }
        for (name, _) in CHANNELS {
            while !self.channels[name].queue.is_empty()
                || self.channels[name].broadcast < self.channels[name].log.len() as u64
            {
                self.work(name);
            }
            self.store(name);
        }
    }

    pub(super) fn read_all(self) -> (Record, Coverage) {
        let mut record = self.recorder.into_record().unwrap();
        for channel in self.channels.values() {
            for user in channel.members_at(channel.broadcast) {
                let number = |name: &str| record.users.iter().position(|known| known == name).unwrap();
                let reader = UserNo(number(USERS[*user]) as u32);
                let number = record.channels.iter().position(|known| *known == channel.id).unwrap();
                let no = ChannelNo(number as u32);
                let entries = channel.slice(0, channel.broadcast);
                let found = entries.iter().find(|entry| !record.entry(**entry).is_system()).copied();
                let send = found.and_then(|found| {
                    let Entry { sender, client_id, .. } = *record.entry(found);
                    let is_it = |send: &Send| (send.sender, Some(send.client_id)) == (sender, client_id);
                    record.sends.iter().position(is_it)
                });
                let search = |send| Search { reader, send: SendNo(send as u32), waited: 1_000_000, is_found: true };
                record.searches.extend(send.map(search));
                record.hits.extend(found.map(|found| {
                    let Entry { sender, seq, id, body, at, .. } = *record.entry(found);
                    Hit { reader, channel: no, sender, seq, id, body, at }
                }));
                record.histories.push(History { reader, channel: no, from: 1, entries });
            }
        }
        (record, self.coverage)
    }
}
