//! Ways to break a correct record, each in one promise; false where the record has no place for it.

mod marks;
mod messages;
mod statuses;
mod stored;
mod streams;

use fastrand::Rng;

pub use marks::*;
pub use messages::*;
pub use statuses::*;
pub use stored::*;
pub use streams::*;

use super::places::{find, seen};
use super::record::{Connection, Record, Seen};

/// Changes one event of the sort that `change` accepts.
fn change_one(record: &mut Record, rng: &mut Rng, change: fn(&mut Seen) -> bool) -> bool {
    let changeable = |connection: &Connection, at| change(&mut seen(connection, at).clone());
    let Some((on, at)) = find(record, rng, changeable) else { return false };
    change(&mut record.connections[on].events[at].seen)
}
