//! Purging: whole buckets where that is possible, each by one tombstone.

use async_trait::async_trait;
use uuid::Uuid;

use super::errors::unreadable;
use super::rows::{BUCKET, bigint, bucket, seq, seq_or_zero};
use super::{CassandraStore, Inner, StoreError};
use crate::message::{ChannelId, Millis, Seq};
use crate::server::store::{Extent, Purge, PurgeRecord, Removed};

/// Months that are looked through for records of all channels.
const MONTHS: u32 = 24;

pub(super) struct StoredExtent {
    pub(super) extent: Extent,
    /// Up to here nothing is left in the log.
    removed_seq: Seq,
}

impl Inner {
    pub(super) async fn extent(&self, id: ChannelId) -> Result<Option<StoredExtent>, StoreError> {
        type Row = (Uuid, Option<i64>, Option<i64>, Option<i64>);
        let rows: Vec<Row> = self.rows(&self.statements.extent, (id.0,)).await?;
        let Some(&(_, Some(last_seq), purged, removed)) = rows.first() else { return Ok(None) };
        let extent = Extent { purged_seq: seq_or_zero(purged)?, last_seq: seq(last_seq)? };
        Ok(Some(StoredExtent { extent, removed_seq: seq_or_zero(removed)? }))
    }

    /// One bucket. What a step before noted as gone, and did not remove, comes first.
    async fn remove(&self, id: ChannelId, through: Seq) -> Result<Removed, StoreError> {
        let nothing = |purged_seq| Removed { purged_seq, entries: 0, indexed: 0, is_done: true };
        let Some(stored) = self.extent(id).await? else { return Ok(nothing(0)) };
        let StoredExtent { extent: Extent { purged_seq, last_seq }, removed_seq } = stored;
        let target = through.min(last_seq).max(purged_seq);
        if removed_seq >= target {
            return Ok(nothing(purged_seq));
        }
        let bucket = bucket(removed_seq + 1);
        let last_of_bucket = (bucket + 1) * BUCKET - 1;
        let end = target.min(last_of_bucket);
        if end > purged_seq {
            self.write(&self.statements.set_purged, (bigint(end), bigint(end), id.0)).await?;
        }
        if end == last_of_bucket {
            self.write(&self.statements.delete_bucket, (id.0, bigint(bucket))).await?;
        } else {
            self.write(&self.statements.delete_entries, (id.0, bigint(bucket), bigint(end))).await?;
        }
        self.write(&self.statements.set_removed, (bigint(end), bigint(end), id.0)).await?;
        Ok(Removed { purged_seq: end.max(purged_seq), entries: end - removed_seq, indexed: 0, is_done: end == target })
    }
}

#[async_trait]
impl Purge for CassandraStore {
    async fn extent(&self, id: ChannelId) -> Result<Option<Extent>, StoreError> {
        Ok(self.inner.extent(id).await?.map(|stored| stored.extent))
    }

    async fn remove(&self, id: ChannelId, through: Seq, _limit: usize) -> Result<Removed, StoreError> {
        self.inner.remove(id, through).await
    }

    async fn keep(&self, record: PurgeRecord) -> Result<(), StoreError> {
        let json = serde_json::to_string(&record).map_err(unreadable)?;
        let Inner { statements, .. } = &*self.inner;
        let of_channel = (record.channel.0, record.id, json.as_str());
        self.inner.write(&statements.keep_of_channel, of_channel).await?;
        self.inner.write(&statements.keep_of_month, (month(record.began_at), record.id, json.as_str())).await
    }

    async fn records(&self, of: Option<ChannelId>, limit: usize) -> Result<Vec<PurgeRecord>, StoreError> {
        let Inner { statements, .. } = &*self.inner;
        let asked = i32::try_from(limit).unwrap_or(i32::MAX);
        let mut found: Vec<(String,)> = Vec::new();
        match of {
            Some(id) => found = self.inner.rows(&statements.purges_of_channel, (id.0, asked)).await?,
            None => {
                let mut month = Month::of(Millis::now());
                for _ in 0..MONTHS {
                    let left = asked.saturating_sub(i32::try_from(found.len()).unwrap_or(i32::MAX));
                    if left <= 0 {
                        break;
                    }
                    let of_month: Vec<(String,)> =
                        self.inner.rows(&statements.purges_of_month, (month.to_string(), left)).await?;
                    found.extend(of_month);
                    month = month.before();
                }
            }
        }
        found.iter().map(|(json,)| serde_json::from_str(json).map_err(unreadable)).collect()
    }
}

fn month(at: Millis) -> String {
    Month::of(at).to_string()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Month {
    year: i32,
    /// 1 to 12.
    number: u8,
}

impl Month {
    fn of(at: Millis) -> Self {
        let text = at.to_string();
        let year = text.get(..4).and_then(|year| year.parse().ok()).unwrap_or(1970);
        let number = text.get(5..7).and_then(|month| month.parse().ok()).unwrap_or(1);
        Self { year, number }
    }

    fn before(self) -> Self {
        match self.number {
            1 => Self { year: self.year - 1, number: 12 },
            number => Self { number: number - 1, ..self },
        }
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_month_before_january_is_december() {
        let january = Month::of(Millis(1_768_435_200_000));
        assert_eq!(january.to_string(), "2026-01");
        assert_eq!(january.before().to_string(), "2025-12");
        assert_eq!(january.before().before().to_string(), "2025-11");
    }
}
