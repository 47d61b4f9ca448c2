//! P7 and P8: what somebody was told to be persisted is nowhere left out from then on, on whatever gateway.

use std::collections::{BTreeMap, HashMap};

use super::record::{Connection, Record, Seen};
use super::{Found, Promise};

/// By channel, from a moment on: the highest seq that somebody was told to be persisted.
pub struct Persisted<'a>(HashMap<&'a str, BTreeMap<u64, u64>>);

impl<'a> Persisted<'a> {
    pub fn of(record: &'a Record) -> Self {
        let mut told: HashMap<&str, BTreeMap<u64, u64>> = HashMap::new();
        for event in record.connections.iter().flat_map(|connection| &connection.events) {
            if let Seen::Persisted { channel, seq, .. } = &event.seen {
                let at = told.entry(channel).or_default().entry(event.at).or_default();
                *at = (*at).max(*seq);
            }
        }
        for moments in told.values_mut() {
            let mut highest = 0;
            for seq in moments.values_mut() {
                highest = highest.max(*seq);
                *seq = highest;
            }
        }
        Self(told)
    }

    /// What is surely stored at this moment.
    pub fn before(&self, channel: &str, at: u64) -> u64 {
        let moments = self.0.get(channel);
        moments.and_then(|moments| moments.range(..at).next_back()).map_or(0, |(_, seq)| *seq)
    }
}

pub fn check(record: &Record, found: &mut Found) {
    let persisted = Persisted::of(record);
    for connection in &record.connections {
        check_connection(connection, &persisted, found);
    }
}

fn check_connection(connection: &Connection, persisted: &Persisted<'_>, found: &mut Found) {
    let user = &connection.user;
    let mut pages: HashMap<u64, (&str, u64)> = HashMap::new();
    let mut resumes: HashMap<u64, u64> = HashMap::new();
    for event in &connection.events {
        match &event.seen {
            Seen::Welcome(heads) => {
                for head in heads {
                    let stored = persisted.before(&head.channel, connection.opened_at);
                    if head.last_seq < stored {
                        found.add(Promise::P7, || {
                            format!("{user}'s welcome: {} ends at {}, stored is {stored}", head.channel, head.last_seq)
                        });
                    }
                }
            }
            Seen::NewestAsked { reference, channel } => _ = pages.insert(*reference, (channel, event.at)),
            Seen::Page { reference, entries } => {
                let Some((channel, asked)) = pages.remove(reference) else { continue };
                let (stored, last) = (persisted.before(channel, asked), entries.last().map_or(0, |last| last.seq));
                if last < stored {
                    found.add(Promise::P7, || {
                        format!("{user}'s history of {channel} ends at {last}, stored was {stored}")
                    });
                }
            }
            Seen::ResumeAsked { reference, .. } => _ = resumes.insert(*reference, event.at),
            Seen::ResumeReply { reference, channels } => {
                let Some(asked) = resumes.remove(reference) else { continue };
                for (channel, reply) in channels.iter().filter(|(_, reply)| reply.complete) {
                    let stored = persisted.before(channel, asked);
                    if reply.last_seq < stored {
                        found.add(Promise::P8, || {
                            format!("{user} in {channel}: complete up to {}, stored was {stored}", reply.last_seq)
                        });
                    }
                }
            }
            _ => {}
        }
    }
}
