//! What was seen at all: of each entry the first that saw it, so that it is judged once and not for each delivery.

use super::record::{EntryNo, NO_REFERENCE, Record, Seen};

#[derive(Debug, Clone, Copy)]
pub struct Sighting {
    /// The earliest.
    pub at: u64,
    /// The connection that it was on, by its place in the record.
    pub connection: u32,
    /// Whether any client got it as a `message` while it waited for no resume.
    pub is_live: bool,
}

/// By entry; none for what is in final histories only.
pub struct Sightings(Vec<Option<Sighting>>);

impl Sightings {
    pub fn of(record: &Record) -> Self {
        let mut sightings: Vec<Option<Sighting>> = vec![None; record.entries.len()];
        let mut resumes: Vec<u64> = Vec::new();
        for (number, connection) in record.connections.iter().enumerate() {
            resumes.clear();
            for event in &connection.events {
                let mut see = |entry: EntryNo, is_live: bool| {
                    let new = Sighting { at: event.at, connection: number as u32, is_live };
                    let sighting = sightings[entry.0 as usize].get_or_insert(new);
                    if event.at < sighting.at {
                        (sighting.at, sighting.connection) = (new.at, new.connection);
                    }
                    sighting.is_live |= is_live;
                };
                match &event.seen {
                    Seen::Message(entry) => see(*entry, resumes.is_empty()),
                    Seen::Page(page) => page.entries.iter().for_each(|entry| see(*entry, false)),
                    Seen::Welcome(welcome) => {
                        welcome.heads.iter().flat_map(|head| &head.messages).for_each(|entry| see(*entry, false));
                    }
                    Seen::ResumeAsked(asked) => resumes.push(asked.reference),
                    Seen::ResumeReply(reply) => resumes.retain(|reference| *reference != reply.reference),
                    Seen::Refused { reference, .. } if *reference != NO_REFERENCE => {
                        resumes.retain(|asked| asked != reference);
                    }
                    _ => {}
                }
            }
        }
        Self(sightings)
    }

    pub fn get(&self, entry: EntryNo) -> Option<Sighting> {
        self.0[entry.0 as usize]
    }
}
