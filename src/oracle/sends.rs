//! What is known of each message from its sender's side.

use std::collections::HashMap;

use super::record::{Record, Seen, SendNo};
use super::verdict::{Found, MessageIds, Promise};
use crate::wire::ErrorCode;

/// One attempt at a send: on which connection, and where on it.
#[derive(Debug)]
pub struct Attempt {
    pub connection: usize,
    pub position: usize,
    pub at: u64,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Unknown,
    Accepted,
    /// Refused, but may be tried again: it isn't known what became of it.
    Deferred,
    /// Refused for good.
    Refused,
}

#[derive(Debug, Default)]
pub struct Sent {
    /// In the order of time; none if the message was only heard of.
    pub attempts: Vec<Attempt>,
    pub accepted_at: Option<u64>,
    pub rejected: bool,
    /// The code of its last refusal.
    pub last_code: Option<ErrorCode>,
}

impl Sent {
    pub fn was_tried(&self) -> bool {
        !self.attempts.is_empty()
    }

    pub fn begun_at(&self) -> u64 {
        self.attempts.first().map_or(u64::MAX, |attempt| attempt.at)
    }

    /// The first attempt was accepted.
    pub fn went_at_once(&self) -> bool {
        self.attempts.first().is_some_and(|attempt| attempt.outcome == Outcome::Accepted)
    }

    /// Every attempt was refused for good, so it must never be seen.
    pub fn is_refused(&self) -> bool {
        self.attempts.iter().all(|attempt| attempt.outcome == Outcome::Refused)
    }
}

/// By [`SendNo`].
pub struct Sends(Vec<Sent>);

impl Sends {
    pub fn of(record: &Record, found: &mut Found) -> Self {
        let mut sends: Vec<Sent> = record.sends.iter().map(|_| Sent::default()).collect();
        let mut by_reference: HashMap<u64, (SendNo, usize)> = HashMap::new();
        for (number, connection) in record.connections.iter().enumerate() {
            let user = || record.user(connection.user);
            by_reference.clear();
            for (position, event) in connection.events.iter().enumerate() {
                match &event.seen {
                    Seen::Send { reference, send } => {
                        let sent = &mut sends[send.0 as usize];
                        by_reference.insert(*reference, (*send, sent.attempts.len()));
                        let outcome = Outcome::Unknown;
                        sent.attempts.push(Attempt { connection: number, position, at: event.at, outcome });
                    }
                    Seen::Accepted { reference } => {
                        let Some((send, attempt)) = by_reference.get(reference) else {
                            let detail = || format!("{}: accepted ref {reference}, which is no send", user());
                            found.add(Promise::Wire, || (detail(), []));
                            continue;
                        };
                        let sent = &mut sends[send.0 as usize];
                        if sent.attempts[*attempt].outcome != Outcome::Unknown {
                            found.add(Promise::Wire, || answered_again(record, *send, *reference));
                        }
                        sent.attempts[*attempt].outcome = Outcome::Accepted;
                        sent.accepted_at = Some(sent.accepted_at.map_or(event.at, |at| at.min(event.at)));
                    }
                    Seen::Refused { reference, code, retry } => {
                        if let Some((send, attempt)) = by_reference.get(reference) {
                            let sent = &mut sends[send.0 as usize];
                            if sent.attempts[*attempt].outcome != Outcome::Unknown {
                                found.add(Promise::Wire, || answered_again(record, *send, *reference));
                            }
                            sent.attempts[*attempt].outcome = if *retry { Outcome::Deferred } else { Outcome::Refused };
                            sent.last_code = Some(*code);
                        }
                    }
                    // A reference may be used again for something else, once it is answered.
                    Seen::NewestAsked { reference, .. } => _ = by_reference.remove(reference),
                    Seen::ResumeAsked(asked) => _ = by_reference.remove(&asked.reference),
                    // It may come on another connection than the send.
                    Seen::Rejected { send } => sends[send.0 as usize].rejected = true,
                    Seen::Malformed(malformed) => {
                        found.add(Promise::Wire, || (format!("{}: {}", user(), malformed.problem), []));
                    }
                    _ => {}
                }
            }
        }
        for (number, sent) in sends.iter_mut().enumerate() {
            sent.attempts.sort_by_key(|attempt| attempt.at);
            if sent.rejected && !sent.was_tried() {
                let send = SendNo(number as u32);
                found.add(Promise::P2, || {
                    let detail = format!("{} was rejected, but never sent", record.show_send(send));
                    (detail, [record.ids_of_send(send, None)])
                });
            }
        }
        Self(sends)
    }

    pub fn get(&self, send: SendNo) -> &Sent {
        &self.0[send.0 as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = (SendNo, &Sent)> {
        self.0.iter().enumerate().map(|(number, sent)| (SendNo(number as u32), sent))
    }
}

fn answered_again(record: &Record, send: SendNo, reference: u64) -> (String, [MessageIds; 1]) {
    let detail = format!("{}, sent as ref {reference}, was answered again", record.show_send(send));
    (detail, [record.ids_of_send(send, None)])
}
