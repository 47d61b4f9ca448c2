//! The oracle: a pure function from what clients saw to the promises that were broken.
//!
//! It knows nothing of the server. Every rule here follows from the promises' text; where the protocol leaves the
//! server a choice (when exactly a `resume` restarts a stream), each choice is accepted. Cost: n log n.

mod breakages;
mod log;
mod order;
mod places;
pub mod record;
mod selftest;
mod stored;
mod stream;
mod synth;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use record::{Record, Seen};

/// Of each promise, at most this many violations are described; the rest is only counted.
const DESCRIBED: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// The frames themselves are as the protocol says.
    Wire,
    /// An accepted message is never lost.
    P1,
    /// Nothing is delivered that was not sent; a refused send is never seen.
    P2,
    /// One entry per (channel, sender, `client_id`).
    P3,
    /// (channel, seq) → message is one function.
    P4,
    /// On one connection a channel's seq only rises, without holes, unless the server said `gap`.
    P5,
    /// Two sends of one connection keep their order; one begun after another was accepted comes after it.
    P6,
    /// After `persisted`, history holds it, for everyone.
    P7,
    /// A resume is complete or refused.
    P8,
    /// Watermarks never go back, unread is derived from them, and seqs are dense.
    P9,
    /// Search finds every stored message within a bounded time; judged by who searches, not here.
    P10,
}

#[derive(Clone, Debug)]
pub struct Violation {
    pub promise: Promise,
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.detail)
    }
}

/// The promises that this record shows to be broken; empty if it shows none.
pub fn check(record: &Record) -> Vec<Violation> {
    let mut found = Found::default();
    let sends = Sends::of(record, &mut found);
    let log = log::Log::of(record);
    log::check(record, &sends, &log, &mut found);
    stream::check(record, &log, &mut found);
    stored::check(record, &mut found);
    order::check(record, &sends, &log, &mut found);
    found.into_violations()
}

/// Collects violations, of each promise a bounded number.
#[derive(Default)]
struct Found {
    by_promise: BTreeMap<Promise, (Vec<String>, usize)>,
}

impl Found {
    fn add(&mut self, promise: Promise, detail: impl FnOnce() -> String) {
        let (described, count) = self.by_promise.entry(promise).or_default();
        *count += 1;
        if described.len() < DESCRIBED {
            described.push(detail());
        }
    }

    fn into_violations(self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (promise, (described, count)) in self.by_promise {
            let more = count - described.len();
            violations.extend(described.into_iter().map(|detail| Violation { promise, detail }));
            if more > 0 {
                violations.push(Violation { promise, detail: format!("and {more} more") });
            }
        }
        violations
    }
}

/// What names a message for good: (channel, sender, `client_id`).
type SendKey<'a> = (&'a str, &'a str, &'a str);

/// One attempt at a send: which connection, and where on it.
struct Attempt {
    connection: usize,
    position: usize,
    at: u64,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Accepted,
    /// Refused, but may be tried again: it isn't known what became of it.
    Deferred,
    /// Refused for good.
    Refused,
}

/// All that is known of one (channel, sender, `client_id`) from its sender's side.
struct Sent<'a> {
    body: &'a str,
    /// In the order of time.
    attempts: Vec<Attempt>,
    accepted_at: Option<u64>,
    rejected: bool,
    /// The code of its last refusal.
    last_code: &'a str,
}

impl Sent<'_> {
    fn begun_at(&self) -> u64 {
        self.attempts.iter().map(|attempt| attempt.at).min().unwrap_or(u64::MAX)
    }

    /// Every attempt was refused for good, so it must never be seen.
    fn is_refused(&self) -> bool {
        self.attempts.iter().all(|attempt| attempt.outcome == Outcome::Refused)
    }
}

#[derive(Default)]
struct Sends<'a> {
    by_key: HashMap<SendKey<'a>, Sent<'a>>,
}

impl<'a> Sends<'a> {
    fn of(record: &'a Record, found: &mut Found) -> Self {
        let mut sends = Self::default();
        // A rejection may come on another connection than the send.
        let mut rejected: Vec<SendKey<'a>> = Vec::new();
        for (number, connection) in record.connections.iter().enumerate() {
            let user = connection.user.as_str();
            let mut by_reference: HashMap<u64, (SendKey<'a>, usize)> = HashMap::new();
            for (position, event) in connection.events.iter().enumerate() {
                match &event.seen {
                    Seen::Send { reference, channel, client_id, body } => {
                        let key = (channel.as_str(), user, client_id.as_str());
                        let sent = sends.by_key.entry(key).or_insert_with(|| Sent {
                            body,
                            attempts: Vec::new(),
                            accepted_at: None,
                            rejected: false,
                            last_code: "",
                        });
                        by_reference.insert(*reference, (key, sent.attempts.len()));
                        let outcome = Outcome::Unknown;
                        sent.attempts.push(Attempt { connection: number, position, at: event.at, outcome });
                    }
                    Seen::Accepted { reference } => {
                        let Some((key, attempt)) = by_reference.get(reference) else {
                            found.add(Promise::Wire, || format!("{user}: accepted ref {reference}, which is no send"));
                            continue;
                        };
                        let sent = sends.by_key.get_mut(key).expect("its send was seen");
                        sent.attempts[*attempt].outcome = Outcome::Accepted;
                        let earliest = sent.accepted_at.map_or(event.at, |at| at.min(event.at));
                        sent.accepted_at = Some(earliest);
                    }
                    Seen::Refused { reference, code, retry } => {
                        if let Some((key, attempt)) = by_reference.get(reference) {
                            let sent = sends.by_key.get_mut(key).expect("its send was seen");
                            sent.attempts[*attempt].outcome = if *retry { Outcome::Deferred } else { Outcome::Refused };
                            sent.last_code = code;
                        }
                    }
                    Seen::Rejected { channel, client_id } => {
                        rejected.push((channel.as_str(), user, client_id.as_str()));
                    }
                    Seen::Malformed(problem) => found.add(Promise::Wire, || format!("{user}: {problem}")),
                    _ => {}
                }
            }
        }
        for key in rejected {
            match sends.by_key.get_mut(&key) {
                Some(sent) => sent.rejected = true,
                None => found.add(Promise::P2, || format!("{key:?} was rejected, but never sent")),
            }
        }
        for sent in sends.by_key.values_mut() {
            sent.attempts.sort_by_key(|attempt| attempt.at);
        }
        sends
    }
}
