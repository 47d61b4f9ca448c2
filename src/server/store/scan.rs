//! Reading all that is stored, in pieces.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::message::{ChannelId, Seq};

/// Reads everything that is stored, in pieces: for rebuilding an index, for checks and for exports. The entries of a
/// channel that was found are then read with [`Store::messages`](super::Store::messages), its members with
/// [`Store::channel`](super::Store::channel).
#[async_trait]
pub trait Scan: Send + Sync + 'static {
    /// About `wanted` parts, which may be read side by side. Each channel is in exactly one, now and later: a part
    /// can be kept, and read by another process. Channels that are made later are in one of them, too.
    ///
    /// Errors: [`StoreError::Unavailable`].
    async fn parts(&self, wanted: usize) -> Result<Vec<Part>, StoreError>;

    /// At most `limit` channels of a part behind `after`, in an order that never changes; fewer than `limit` only at
    /// the part's end. Channels that are there all the while are found once; those that come or go meanwhile may be
    /// found.
    ///
    /// Errors: [`StoreError::Unavailable`].
    async fn channels(&self, part: Part, after: Option<Cursor>, limit: usize) -> Result<Vec<Scanned>, StoreError>;
}

/// A range of the store's own order of channels (tokens, or local keys): above `after`, up to and including `through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub after: i64,
    pub through: i64,
}

/// How far a part has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The channel's place in the store's own order.
    pub place: i64,
    /// Of channels with one place, the smaller ids come first.
    pub channel: ChannelId,
}

/// A channel that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    pub channel: ChannelId,
    /// The head of its log, or one that it had a moment ago.
    pub last_seq: Seq,
    /// To go on behind it.
    pub cursor: Cursor,
}

/// Cuts the range above `after`, up to `through`, into `wanted` pieces of one length, or as many as it has places.
pub(super) fn cut(after: i64, through: i64, wanted: usize) -> Vec<Part> {
    let length = i128::from(through) - i128::from(after);
    let count = (wanted.max(1) as i128).min(length.max(1));
    let edge = |n: i128| (i128::from(after) + length * n / count) as i64;
    (0..count).map(|n| Part { after: edge(n), through: edge(n + 1) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_from_end_to_end() {
        for (after, through) in [(i64::MIN, i64::MAX), (0, 10), (0, 1), (-3, -3), (5, i64::MAX)] {
            for wanted in [0, 1, 3, 7, 1_000] {
                let parts = cut(after, through, wanted);
                assert!(!parts.is_empty() && parts.len() <= wanted.max(1));
                assert_eq!((parts[0].after, parts[parts.len() - 1].through), (after, through));
                assert!(parts.windows(2).all(|pair| pair[0].through == pair[1].after), "{parts:?}");
            }
        }
    }
}
