//! What senders are told: an answer to each send, and to all of a sender's sockets that its message is stored.
//!
//! The protocol's page lets a server say a status again, and leaves it the time that it needs. So what is late is no
//! fault; what never comes is one, on a connection that stayed to the record's end. An answer that comes twice is found
//! where answers are taken ([`super::sends`]).

use std::collections::{HashMap, HashSet};

use super::ending::Ending;
use super::log::Log;
use super::record::{ChannelNo, Connection, Record, Seen, SendNo};
use super::sends::{Outcome, Sends, Sent};
use super::stored::Persisted;
use super::verdict::{Found, Promise};

/// A send is answered within so many nanoseconds, with an error if need be: a queue that confirms nothing is waited for
/// ten seconds, and a store that is asked before that half as long.
const ANSWERED: u64 = 20_000_000_000;
/// Who is there is told within so many nanoseconds that a message is stored, which somebody else was told.
const TOLD: u64 = 15_000_000_000;

/// What became of the statuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// Messages that a connection was told to be persisted more often than they were tried.
    pub again: u64,
    /// Answers and `persisted` that had not come when their connection ended, and could have come later.
    pub unjudged: u64,
}

pub fn check(
    record: &Record,
    sends: &Sends,
    log: &Log,
    persisted: &Persisted,
    ending: &Ending,
    found: &mut Found,
) -> Told {
    let mut told = Told::default();
    check_answers(record, sends, ending, &mut told, found);
    let mut by_sender: Vec<Vec<SendNo>> = vec![Vec::new(); record.users.len()];
    for (send, _) in sends.iter().filter(|(_, sent)| sent.was_tried()) {
        by_sender[record.send(send).sender.0 as usize].push(send);
    }
    let mut again = HashSet::new();
    for (number, connection) in record.connections.iter().enumerate() {
        let own = &by_sender[connection.user.0 as usize];
        if own.is_empty() {
            continue;
        }
        let heard = Heard::of(connection);
        let repeated = heard.persisted.iter().filter(|(send, times)| **times > sends.get(**send).attempts.len().max(1));
        again.extend(repeated.map(|(send, _)| *send));
        let Some(until) = ending.stayed(connection) else { continue };
        for send in own.iter().filter(|send| !heard.persisted.contains_key(*send)) {
            let (sent, channel) = (sends.get(*send), record.send(*send).channel);
            let (Some(seq), Some(since)) = (log.seq_of_send(*send), heard.is_owed_since(sent, number)) else {
                continue;
            };
            if sent.rejected || since > until || heard.gaps.get(&channel).is_some_and(|said| *said > since) {
                continue;
            }
            let is_due = until
                .checked_sub(TOLD)
                .is_some_and(|long_before| since <= long_before && persisted.before(channel, long_before) >= seq);
            if !is_due {
                told.unjudged += u64::from(ending.is_last(connection));
                continue;
            }
            found.add(Promise::Wire, || {
                let (user, what) = (record.user(connection.user), record.show_send(*send));
                let seconds = TOLD / 1_000_000_000;
                let detail = format!(
                    "{user} was never told that {what} is persisted, though it was {seconds} s before the connection ended"
                );
                (detail, [record.ids_of_send(*send, Some(seq))])
            });
        }
    }
    told.again = again.len() as u64;
    told
}

/// A send on a connection that stayed was answered, unless it went only just before the end.
fn check_answers(record: &Record, sends: &Sends, ending: &Ending, told: &mut Told, found: &mut Found) {
    for (send, sent) in sends.iter() {
        for attempt in sent.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Unknown) {
            let connection = &record.connections[attempt.connection];
            let Some(until) = ending.stayed(connection) else { continue };
            if until.saturating_sub(attempt.at) < ANSWERED {
                told.unjudged += u64::from(ending.is_last(connection));
                continue;
            }
            found.add(Promise::Wire, || {
                let seconds = ANSWERED / 1_000_000_000;
                let detail =
                    format!("{} had no answer, though its connection lived on for {seconds} s", record.show_send(send));
                (detail, [record.ids_of_send(send, None)])
            });
        }
    }
}

/// What one connection was told.
struct Heard {
    /// How often each message was said to be persisted.
    persisted: HashMap<SendNo, usize>,
    /// When a channel's last gap was said: a server that lost its way leaves out statuses with the entries.
    gaps: HashMap<ChannelNo, u64>,
    welcomed_at: Option<u64>,
}

impl Heard {
    /// Since when this connection, the record's `number`-th, waits for the word that a message is stored: it was accepted
    /// here, or it was sent on another of its sender's sockets while this one was there.
    fn is_owed_since(&self, sent: &Sent, number: usize) -> Option<u64> {
        let here = sent.attempts.iter().rev().filter(|attempt| attempt.connection == number);
        let accepted = here.filter(|attempt| attempt.outcome == Outcome::Accepted).map(|attempt| attempt.at).next();
        let is_there = self.welcomed_at.is_some_and(|at| at < sent.begun_at());
        accepted.or_else(|| is_there.then(|| sent.begun_at()))
    }

    fn of(connection: &Connection) -> Self {
        let mut heard = Self { persisted: HashMap::new(), gaps: HashMap::new(), welcomed_at: None };
        for event in &connection.events {
            match event.seen {
                Seen::Persisted { send, .. } => *heard.persisted.entry(send).or_default() += 1,
                Seen::Gap { channel, .. } => _ = heard.gaps.insert(channel, event.at),
                Seen::Welcome(_) => _ = heard.welcomed_at.get_or_insert(event.at),
                _ => {}
            }
        }
        heard
    }
}
