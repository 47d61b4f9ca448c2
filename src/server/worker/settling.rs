//! What is done but for its indexing, gathered for a moment: the entries of many flushes, and of many channels, are
//! asked for in one index task, and their tasks acknowledged in one go.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::server::queue::{IndexRange, Tag};

/// Nobody waits for an index task or an acknowledgement; of what is gathered, a crash makes the next owner do it again.
const GATHER: Duration = Duration::from_millis(20);
/// Ranges in one index task, at most.
const MAX_RANGES: usize = 1024;

pub(super) struct Settling {
    ranges: Vec<IndexRange>,
    tags: Vec<Tag>,
    due: Option<Instant>,
    max_tags: usize,
}

impl Settling {
    /// Never holds back so much of the prefetch window that the lane would wait for it.
    pub(super) fn new(prefetch: usize) -> Self {
        Self { ranges: Vec::new(), tags: Vec::new(), due: None, max_tags: prefetch / 4 }
    }

    pub(super) fn add(&mut self, ranges: Vec<IndexRange>, tags: Vec<Tag>) {
        for range in ranges {
            IndexRange::append(&mut self.ranges, range);
        }
        self.tags.extend(tags);
        let now = Instant::now();
        if self.tags.len() > self.max_tags || self.ranges.len() >= MAX_RANGES {
            self.due = Some(now);
        } else if self.due.is_none() {
            self.due = Some(now + GATHER);
        }
    }

    /// Waits until what was gathered should go; for ever while there is nothing.
    pub(super) async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => pending().await,
        }
    }

    pub(super) fn take(&mut self) -> (Vec<IndexRange>, Vec<Tag>) {
        self.due = None;
        (std::mem::take(&mut self.ranges), std::mem::take(&mut self.tags))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::message::ChannelId;

    fn range(channel: u128, first: u64, last: u64) -> IndexRange {
        IndexRange { channel: ChannelId(Uuid::from_u128(channel)), first, last }
    }

    #[tokio::test]
    async fn what_comes_within_a_moment_goes_together() {
        let mut settling = Settling::new(100);
        let began = Instant::now();
        settling.add(vec![range(1, 4, 5)], vec![10, 11]);
        settling.add(vec![range(1, 6, 6)], vec![12]);
        settling.add(vec![range(2, 1, 1)], vec![13]);
        settling.due().await;
        assert!(began.elapsed() >= GATHER);
        assert_eq!(settling.take(), (vec![range(1, 4, 6), range(2, 1, 1)], vec![10, 11, 12, 13]));
        assert_eq!(settling.take(), (vec![], vec![]));
    }

    #[test]
    fn a_small_window_is_not_held_up() {
        let goes_at_once = |settling: Settling| settling.due.is_some_and(|due| due <= Instant::now());
        let mut settling = Settling::new(3);
        settling.add(vec![], vec![1]);
        assert!(goes_at_once(settling));
        let mut settling = Settling::new(usize::MAX);
        settling.add((1..=1023).map(|channel| range(channel, 1, 1)).collect(), vec![1]);
        settling.add(vec![range(1024, 1, 1)], vec![1]);
        assert!(goes_at_once(settling));
    }
}
