use std::sync::Arc;
use std::time::Instant;

use super::Gateway;
use super::room::Room;
use crate::message::Message;
use crate::server::store::{Page, StoreError};

impl Gateway {
    /// A page of a channel's log, ascending, and whether more lies beyond it: what is stored, and behind it what is
    /// delivered but not stored yet, as far as this gateway holds it.
    pub(super) async fn page(
        &self,
        room: &Room,
        page: Page,
        limit: usize,
    ) -> Result<(Vec<Arc<Message>>, bool), StoreError> {
        // A page of what is newest has all that is stored, whether or not its events are here yet.
        if matches!(page, Page::Before(before) if before > room.last_seq() + 1) {
            self.compare(room, Instant::now()).await?;
        }
        let end = room.last_seq();
        match page {
            Page::After(after) => {
                let mut messages = self.stored(room, page, limit + 1).await?;
                if messages.len() <= limit {
                    let stored_to = messages.last().map_or(after, |last| last.seq);
                    let ring = room.newest(stored_to, end);
                    if ring.first().is_some_and(|first| first.seq == stored_to + 1) {
                        messages.extend(ring);
                    }
                }
                let cut_short = messages.len() > limit;
                messages.truncate(limit);
                // The store may lie so far behind that the ring doesn't reach back to it: then the rest comes later.
                let more = cut_short || messages.last().is_some_and(|last| last.seq < end);
                Ok((messages, more))
            }
            Page::Before(before) => {
                // From the ring first: the store may lie further behind than the ring reaches, and a page has no holes.
                let mut ring = room.newest(0, end.min(before.saturating_sub(1)));
                ring.drain(..ring.len().saturating_sub(limit));
                let mut messages = Vec::new();
                if ring.len() < limit {
                    let first_held = ring.first().map_or(before, |first| first.seq);
                    messages = self.stored(room, Page::Before(first_held), limit - ring.len()).await?;
                    if !ring.is_empty() && messages.last().is_some_and(|last| last.seq + 1 < first_held) {
                        messages.clear();
                    }
                }
                messages.extend(ring);
                let more = messages.first().is_some_and(|first| first.seq > room.purged_seq() + 1);
                Ok((messages, more))
            }
        }
    }

    async fn stored(&self, room: &Room, page: Page, limit: usize) -> Result<Vec<Arc<Message>>, StoreError> {
        let stored = self.store.messages(room.id, page, limit).await?;
        Ok(stored.into_iter().map(Arc::new).collect())
    }
}
