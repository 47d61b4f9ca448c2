//! Resuming a channel: its stream on this connection begins anew right after a given seq (promise P8).
//!
//! While older entries are sent, new ones are held back, so that they can't overtake; when the ring reaches back far
//! enough, the rest and all that follows come from there, in one step under the room's lock.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};

use super::room::{Room, Unpaused};
use super::{Gateway, Resume, Session, fill};
use crate::message::{ChannelId, Message, Seq};
use crate::server::store::Page;
use crate::server::worker::Backoff;
use crate::wire::frame::Resumed;
use crate::wire::{ErrorCode, Frame};

/// Entries read from the store at once.
const PAGE: usize = 200;
/// Bytes of text after which a part ends.
const PART_BYTES: usize = 128 << 10;
/// How often the store is asked for entries that are delivered but not stored yet, before a gap is told.
const ATTEMPTS: u32 = 8;
/// How long the store may take to say where the channels end.
const COMPARE_LIMIT: Duration = Duration::from_secs(5);
/// How long an entry that the client has, and that isn't stored, may take to get here.
const SHOWN_LIMIT: Duration = Duration::from_millis(1500);

/// What the connection has to do next.
pub enum Step {
    /// Write these and ask again.
    Write(Vec<Arc<Message>>),
    /// The channel is done.
    Done(Resumed),
}

/// A channel on its way to the present.
pub struct Resuming {
    room: Arc<Room>,
    session: Arc<Session>,
    position: Seq,
    attempts: u32,
    done: Option<Resumed>,
}

impl Gateway {
    /// Brings the rooms of what is to be resumed up to all that was stored when it was asked for: less would leave out
    /// what another gateway has shown already. Returns the channels of which the store doesn't say it in time.
    pub async fn prepare_resume(&self, session: &Session, resume: &Resume) -> HashSet<ChannelId> {
        let reach = |(channel, after): (&ChannelId, &Seq)| {
            let (room, after, asked) = (session.room(*channel)?, *after, resume.asked);
            Some(async move {
                let reached = tokio::time::timeout(COMPARE_LIMIT, self.reach(&room, after, asked)).await;
                reached.is_err().then_some(room.id)
            })
        };
        let all: Vec<_> = resume.channels.iter().filter_map(reach).collect();
        stream::iter(all).buffer_unordered(fill::CONCURRENCY).filter_map(std::future::ready).collect().await
    }

    /// Until the room has what was stored, and, if it comes soon, what the client has seen before it was stored.
    async fn reach(&self, room: &Room, after: Seq, asked: Instant) {
        self.compare_in_the_end(room, asked).await;
        // Of what isn't stored there is no more than owners have in hand.
        let in_hand = self.config.queue.prefetch as Seq;
        let is_shown = |end: Seq| (end + 1..=end.saturating_add(in_hand)).contains(&after);
        let (mut backoff, waits) = (Backoff::new(), Instant::now());
        while is_shown(room.last_seq()) {
            backoff.pause().await;
            if waits.elapsed() >= SHOWN_LIMIT {
                // The one event may be lost, and the entry stored since.
                return self.compare_in_the_end(room, Instant::now()).await;
            }
        }
    }

    async fn compare_in_the_end(&self, room: &Room, asked: Instant) {
        let mut backoff = Backoff::new();
        while let Err(error) = self.compare(room, asked).await {
            tracing::warn!(%error, channel = %room.id, "a resume waits for the store");
            backoff.pause().await;
        }
    }

    /// Begins to resume a channel from `after`. New messages of it are held back until [`Resuming::step`] says done.
    pub fn begin_resume(&self, session: &Arc<Session>, channel: ChannelId, after: Seq) -> Result<Resuming, Resumed> {
        let refused = Resumed { complete: false, last_seq: 0, code: Some(ErrorCode::NotAMember) };
        let Some((room, last_seq)) =
            session.room(channel).and_then(|room| room.pause(session).map(|last_seq| (room, last_seq)))
        else {
            return Err(refused);
        };
        let mut resuming =
            Resuming { room, session: Arc::clone(session), position: after.min(last_seq), attempts: 0, done: None };
        let purged_seq = resuming.room.purged_seq();
        if purged_seq > after {
            resuming.session.push(&Frame::Purged { channel, seq: purged_seq });
        }
        if last_seq.saturating_sub(after.max(purged_seq)) > self.config.channels.resume_limit {
            resuming.tell_gap(last_seq);
        }
        Ok(resuming)
    }

    /// The next step.
    pub async fn step(&self, resuming: &mut Resuming) -> Step {
        loop {
            if let Some(done) = resuming.done.take() {
                return Step::Done(done);
            }
            let last_seq = match resuming.room.unpause_after(&resuming.session, resuming.position) {
                Unpaused::Live(last_seq) => return Step::Done(Resumed { complete: true, last_seq, code: None }),
                Unpaused::Gone => {
                    let code = Some(ErrorCode::NotAMember);
                    return Step::Done(Resumed { complete: false, last_seq: resuming.position, code });
                }
                Unpaused::Behind(last_seq) => last_seq,
            };
            let messages = a_part(self.missed(resuming, last_seq).await);
            if let Some(last) = messages.last() {
                resuming.position = last.seq;
                resuming.attempts = 0;
                return Step::Write(messages);
            }
            resuming.attempts += 1;
            if resuming.attempts >= ATTEMPTS {
                resuming.tell_gap(last_seq);
            } else {
                tokio::time::sleep(Duration::from_millis(10 << resuming.attempts)).await;
            }
        }
    }
}

impl Gateway {
    /// Entries right after the position and not beyond the present end: what comes after it is delivered live.
    async fn missed(&self, resuming: &mut Resuming, last_seq: Seq) -> Vec<Arc<Message>> {
        let Resuming { room, position, .. } = resuming;
        // What is gone was said to be: by whoever began, or in the room.
        *position = room.purged_seq().min(last_seq).max(*position);
        let held = room.newest(*position, last_seq);
        if held.first().is_some_and(|first| first.seq == *position + 1) {
            return held;
        }
        match self.store.messages(room.id, Page::After(*position), PAGE).await {
            // One that begins later has just been purged, and the news of it is on its way.
            Ok(stored) if stored.first().is_some_and(|first| first.seq > *position + 1) => Vec::new(),
            Ok(stored) => stored.into_iter().filter(|message| message.seq <= last_seq).map(Arc::new).collect(),
            Err(error) => {
                tracing::warn!(%error, "a resume waits for the store");
                Vec::new()
            }
        }
    }
}

/// What is written in one piece, within one `session.write_timeout`: a slow line gets on by parts.
fn a_part(mut messages: Vec<Arc<Message>>) -> Vec<Arc<Message>> {
    let mut bytes = 0;
    let fit = messages.iter().take_while(|message| {
        let before = bytes;
        bytes += message.body.len();
        before < PART_BYTES
    });
    let count = fit.count();
    messages.truncate(count);
    messages
}

impl Resuming {
    /// Goes on at the present end, and says what was left out.
    fn tell_gap(&mut self, mut last_seq: Seq) {
        // The end may have moved on: what is told must be what is left out.
        loop {
            self.session.push(&Frame::Gap { channel: self.room.id, after: self.position, last_seq });
            match self.room.unpause_after(&self.session, last_seq) {
                Unpaused::Live(_) | Unpaused::Gone => break,
                Unpaused::Behind(now) => last_seq = now,
            }
        }
        metrics::counter!("aula_gaps_told_total").increment(1);
        self.done = Some(Resumed { complete: false, last_seq, code: None });
    }
}
