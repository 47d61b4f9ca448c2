//! The oracle: a pure function from what clients saw to the promises that were broken.
//!
//! It knows nothing of the server but the names on the wire. Every rule here follows from the promises' text; where
//! the protocol leaves the server a choice (when exactly a `resume` restarts a stream), each choice is accepted.
//!
//! Clients' frames ([`frame`]) go into a [`Recorder`], which gives a [`Record`]; [`check`] judges it. Its cost is linear
//! in the record's length: a delivery is an entry's number, each entry is judged once, and what is sorted (the
//! statuses of a channel, the sends of a user) is in order but for a merge already.

mod agreement;
#[cfg(test)]
mod breakages;
mod channel_stream;
#[cfg(test)]
mod cost;
mod ending;
pub mod file;
pub mod frame;
mod log;
mod marks;
mod members;
mod merge;
mod order;
#[cfg(test)]
mod places;
mod purges;
pub mod record;
mod recorder;
#[cfg(test)]
mod selftest;
mod sends;
mod sightings;
mod statuses;
mod stored;
mod stream;
mod symbols;
#[cfg(test)]
mod synth;
#[cfg(test)]
pub(crate) mod testing;
mod verdict;

pub use file::ReadError;
pub use record::Record;
pub use recorder::{Full, Recorder};
pub use verdict::{Counts, DESCRIBED, MessageIds, Promise, Scope, Unjudged, Verdict, Violation};

/// What this record shows: what became of the messages, and the promises that were broken.
pub fn check(record: &Record) -> Verdict {
    let mut found = verdict::Found::default();
    let purges = purges::Purges::of(record);
    purges::check(record, &purges, &mut found);
    let record = &*purges.made_whole(record);
    let sends = sends::Sends::of(record, &mut found);
    let log = log::Log::of(record);
    let sightings = sightings::Sightings::of(record);
    let members = members::Members::of(record, &log);
    let persisted = stored::Persisted::of(record);
    let ending = ending::Ending::of(record);
    let mut counts = agreement::check(record, &sends, &log, &sightings, &purges, &mut found);
    let stream_ends = stream::check(record, &log, &members, &persisted, &ending, &purges, &mut found);
    let told = statuses::check(record, &sends, &log, &persisted, &ending, &mut found);
    counts.retold = told.again;
    marks::check(record, &mut found);
    stored::check(record, &persisted, &purges, &mut found);
    found_by_search(record, &log, &mut found);
    order::check(record, &sends, &log, &mut found);
    let unjudged = Unjudged { stream_ends, statuses: told.unjudged };
    found.into_verdict(counts, Scope::of(record, unjudged))
}

/// P10: what was stored is found.
fn found_by_search(record: &Record, log: &log::Log, found: &mut verdict::Found) {
    for search in record.searches.iter().filter(|search| !search.is_found) {
        found.add(Promise::P10, || {
            let (reader, message) = (record.user(search.reader), record.show_send(search.send));
            let seconds = search.waited as f64 / 1e9;
            let detail = format!("{reader} finds nothing of {message}, looked for during {seconds:.1} s");
            (detail, [record.ids_of_send(search.send, log.seq_of_send(search.send))])
        });
    }
}
