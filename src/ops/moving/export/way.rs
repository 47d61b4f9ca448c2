//! Which channels are left.

use serde::{Deserialize, Serialize};

use crate::message::{ChannelId, Seq};
use crate::ops::patience::patiently;
use crate::server::backends::Stored;
use crate::server::store::{Cursor, Part, StoreError};

/// Where the next channel is to be found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// All channels: those of the first part behind the cursor, then those of the other parts.
    Parts { left: Vec<Part>, after: Option<Cursor> },
    /// Those that were asked for, and the number of those that are done.
    Chosen { channels: Vec<ChannelId>, done: usize },
}

/// A channel that is next.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub channel: ChannelId,
    /// Or a head that it had a moment ago; 0 if that isn't known.
    pub last_seq: Seq,
    cursor: Option<Cursor>,
}

impl Way {
    /// At most `limit` channels, the next ones; none at the end.
    pub async fn next(&mut self, stored: &Stored, limit: usize) -> Result<Vec<Found>, StoreError> {
        match self {
            Self::Parts { left, after } => loop {
                let Some(&part) = left.first() else { return Ok(Vec::new()) };
                let found = patiently(async || stored.scan.channels(part, *after, limit).await).await?;
                if found.is_empty() {
                    left.remove(0);
                    *after = None;
                    continue;
                }
                let found = found.into_iter();
                return Ok(found
                    .map(|found| Found { channel: found.channel, last_seq: found.last_seq, cursor: Some(found.cursor) })
                    .collect());
            },
            Self::Chosen { channels, done } => {
                let mut next = Vec::new();
                for &channel in channels.iter().skip(*done).take(limit) {
                    let extent = patiently(async || stored.purge.extent(channel).await).await?;
                    next.push(Found { channel, last_seq: extent.map_or(0, |extent| extent.last_seq), cursor: None });
                }
                Ok(next)
            }
        }
    }

    /// The next one is done.
    pub fn pass(&mut self, found: &Found) {
        match self {
            Self::Parts { after, .. } => *after = found.cursor,
            Self::Chosen { done, .. } => *done += 1,
        }
    }
}
