//! Rooms that are behind the log: what events told of and did not bring, or did not even tell of yet, comes from the
//! store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Gateway;
use super::room::Room;
use crate::message::{Message, Seq};
use crate::server::store::{Page, StoreError};

/// Reads for rooms that are behind, at a time: after an outage all of a gateway's rooms may be.
pub(super) const CONCURRENCY: usize = 32;
/// Entries fetched at once.
const FETCH: usize = 256;
/// How often a hole is looked for in the store before it is given up: about ten seconds in all.
const ATTEMPTS: u32 = 12;

impl Gateway {
    /// Delivers what lies between the room and `head`, of which something else than its entries told.
    pub(super) fn catch_up(&self, room: &Arc<Room>, head: Seq) {
        if let Some(hole) = room.expect(head) {
            self.fill_later(room, hole);
        }
    }

    /// Fills a hole in a task of its own: nobody who waits for it may end it halfway, because the room waits, too.
    pub(super) fn fill_later(&self, room: &Arc<Room>, hole: (Seq, Seq)) {
        if room.skip_for_nobody() {
            return;
        }
        metrics::counter!("aula_gaps_found_total").increment(1);
        let (Some(gateway), room) = (self.this.upgrade(), Arc::clone(room)) else { return };
        tokio::spawn(async move { gateway.fill_hole(&room, hole).await });
    }

    /// Fetches what an event told us we had missed; if it can't be had, the clients are told of a gap.
    async fn fill_hole(&self, room: &Room, mut hole: (Seq, Seq)) {
        let mut attempts = 0;
        while !room.skip_for_nobody() {
            let limit = FETCH.min((hole.1 - hole.0 - 1) as usize);
            let fetched = match self.fetch(room, hole.0, limit).await {
                Ok(fetched) => fetched,
                Err(error) => {
                    tracing::warn!(%error, channel = %room.id, "missed entries can't be fetched yet");
                    Vec::new()
                }
            };
            let still_missing = room.fill(fetched);
            match still_missing {
                None => return,
                Some(missing) if missing.0 > hole.0 => {
                    hole = missing;
                    attempts = 0;
                }
                // What is purged won't come.
                Some(missing) if attempts < ATTEMPTS && missing.1 > room.purged_seq() + 1 => {
                    // Delivered before it is stored: it will be there soon.
                    tokio::time::sleep(Duration::from_millis(20 << attempts.min(6))).await;
                    attempts += 1;
                }
                Some(_) => {
                    tracing::error!(channel = %room.id, after = hole.0, before = hole.1, "clients are told of a gap");
                    metrics::counter!("aula_gaps_told_total").increment(1);
                    match room.skip(hole.0) {
                        None => return,
                        Some(next) => (hole, attempts) = (next, 0),
                    }
                }
            }
        }
    }

    /// When this returns, the room has delivered all that was stored when it was `asked`: what somebody was told to be
    /// persisted, on whatever gateway, is in the history and in a resume here, too (promises P7, P8). The events alone
    /// don't say so: they may be on their way still, or not get here at all.
    ///
    /// Usually it is a read that finds nothing.
    pub(super) async fn compare(&self, room: &Room, asked: Instant) -> Result<(), StoreError> {
        // Who waits here finds that the read of the one before it will do, if that began after it asked.
        let _alone = room.comparing.lock().await;
        if room.was_compared_after(asked) {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            let end = room.last_seq();
            let newer = self.fetch(room, end, FETCH).await?;
            let is_all = newer.len() < FETCH;
            let is_none = newer.is_empty();
            room.fill(newer);
            if !is_none && room.last_seq() <= end {
                // Purged, and the news of it is on its way; or else the store will have it soon.
                return Err(StoreError::Unavailable(format!("{} has a hole behind {end}", room.id)));
            }
            if is_all || room.last_seq() <= end {
                break;
            }
        }
        room.is_compared(began);
        Ok(())
    }

    async fn fetch(&self, room: &Room, after: Seq, limit: usize) -> Result<Vec<Message>, StoreError> {
        let _turn = self.fetches.acquire().await;
        self.store.messages(room.id, Page::After(after), limit).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
