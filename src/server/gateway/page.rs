use std::sync::Arc;

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
        let stored = self.store.messages(room.id, page, limit + 1).await?;
        let mut messages: Vec<Arc<Message>> = stored.into_iter().map(Arc::new).collect();
        let end = room.last_seq();
        match page {
            Page::After(after) => {
                if messages.len() <= limit {
                    let stored_to = messages.last().map_or(after, |last| last.seq);
                    messages.extend(contiguous(stored_to, room.newest(stored_to, end)));
                }
                let more = messages.len() > limit;
                messages.truncate(limit);
                Ok((messages, more))
            }
            Page::Before(before) => {
                let stored_to = messages.last().map_or(0, |last| last.seq);
                messages.extend(contiguous(stored_to, room.newest(stored_to, end.min(before.saturating_sub(1)))));
                let surplus = messages.len().saturating_sub(limit);
                messages.drain(..surplus);
                let more = messages.first().is_some_and(|first| first.seq > 1);
                Ok((messages, more))
            }
        }
    }
}

/// The ring, if it continues what is stored without a hole.
fn contiguous(stored_to: u64, ring: Vec<Arc<Message>>) -> Vec<Arc<Message>> {
    match ring.first() {
        Some(first) if first.seq == stored_to + 1 => ring,
        _ => Vec::new(),
    }
}
