//! P7 and P8: what somebody was told to be persisted is nowhere left out from then on, on whatever gateway.

use std::collections::HashMap;

use super::purges::Purges;
use super::record::{ChannelNo, Connection, Record, Seen};
use super::verdict::{Found, Promise};
use crate::message::Seq;

/// By channel, from a moment on: the highest seq that somebody was told to be persisted.
pub struct Persisted(Vec<Vec<(u64, Seq)>>);

impl Persisted {
    pub fn of(record: &Record) -> Self {
        let mut told: Vec<Vec<(u64, Seq)>> = vec![Vec::new(); record.channels.len()];
        for event in record.connections.iter().flat_map(|connection| &connection.events) {
            if let Seen::Persisted { send, seq } = event.seen {
                told[record.send(send).channel.0 as usize].push((event.at, seq));
            }
        }
        for moments in &mut told {
            // Each connection's part is in order already.
            moments.sort();
            let mut highest = 0;
            for (_, seq) in moments {
                highest = highest.max(*seq);
                *seq = highest;
            }
        }
        Self(told)
    }

    /// What is surely stored at this moment.
    pub fn before(&self, channel: ChannelNo, at: u64) -> Seq {
        let moments = &self.0[channel.0 as usize];
        let earlier = moments.partition_point(|(moment, _)| *moment < at);
        moments[..earlier].last().map_or(0, |(_, seq)| *seq)
    }
}

pub fn check(record: &Record, persisted: &Persisted, purges: &Purges, found: &mut Found) {
    for connection in &record.connections {
        check_connection(record, connection, persisted, purges, found);
    }
}

fn check_connection(
    record: &Record,
    connection: &Connection,
    persisted: &Persisted,
    purges: &Purges,
    found: &mut Found,
) {
    let user = || record.user(connection.user);
    let mut pages: HashMap<u64, (ChannelNo, u64)> = HashMap::new();
    let mut resumes: HashMap<u64, u64> = HashMap::new();
    for event in &connection.events {
        match &event.seen {
            Seen::Welcome(welcome) => {
                for head in &welcome.heads {
                    let stored = persisted.before(head.channel, connection.opened_at);
                    if head.last_seq < stored {
                        found.add(Promise::P7, || {
                            let (ids, last) = (record.place(head.channel, stored), head.last_seq);
                            let id = ids.channel;
                            (format!("{}'s welcome: {id} ends at {last}, stored was {stored}", user()), [ids])
                        });
                    }
                }
            }
            Seen::NewestAsked { reference, channel } => _ = pages.insert(*reference, (*channel, event.at)),
            Seen::Page(page) => {
                let Some((channel, asked)) = pages.remove(&page.reference) else { continue };
                let last = page.entries.last().map_or(0, |last| record.entry(*last).seq);
                let stored = persisted.before(channel, asked);
                // An empty page is right where all of it was purged.
                if last < stored && stored > purges.through(channel) {
                    found.add(Promise::P7, || {
                        let ids = record.place(channel, stored);
                        let id = ids.channel;
                        (format!("{}'s history of {id} ends at {last}, stored was {stored}", user()), [ids])
                    });
                }
            }
            Seen::ResumeAsked(asked) => _ = resumes.insert(asked.reference, event.at),
            Seen::ResumeReply(reply) => {
                let Some(asked) = resumes.remove(&reply.reference) else { continue };
                for resumed in reply.channels.iter().filter(|resumed| resumed.complete) {
                    let stored = persisted.before(resumed.channel, asked);
                    if resumed.last_seq < stored {
                        found.add(Promise::P8, || {
                            let (ids, last) = (record.place(resumed.channel, stored), resumed.last_seq);
                            let id = ids.channel;
                            (format!("{} in {id}: complete up to {last}, stored was {stored}", user()), [ids])
                        });
                    }
                }
            }
            _ => {}
        }
    }
}
