//! How a record ends, and who stayed: what is owed to them has come, unless it was due only just before.

use super::record::{Connection, Record};

/// Connections that ended so long before the record did, in nanoseconds, stayed to its end: all don't end at once.
const TOGETHER: u64 = 5_000_000_000;

pub struct Ending {
    /// The last moment at which anybody saw anything.
    at: u64,
    /// By user: when its last connection was begun.
    last_begun: Vec<u64>,
}

impl Ending {
    pub fn of(record: &Record) -> Self {
        let events = record.connections.iter().flat_map(|connection| &connection.events);
        let at = events.map(|event| event.at).max().unwrap_or(0);
        let mut last_begun = vec![0; record.users.len()];
        for connection in &record.connections {
            let begun = &mut last_begun[connection.user.0 as usize];
            *begun = connection.opened_at.max(*begun);
        }
        Self { at, last_begun }
    }

    /// Until when a connection could be told something, if it stayed to the record's end.
    pub fn stayed(&self, connection: &Connection) -> Option<u64> {
        let stays = connection.closed_at.saturating_add(TOGETHER) >= self.at;
        stays.then(|| connection.closed_at.min(self.at))
    }

    /// Whether its user had no other connection afterwards: then what it lacks nobody has made up for.
    pub fn is_last(&self, connection: &Connection) -> bool {
        self.last_begun[connection.user.0 as usize] < connection.closed_at
    }
}
