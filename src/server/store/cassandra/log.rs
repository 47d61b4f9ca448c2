//! Reading the log.

use std::collections::HashMap;

use uuid::Uuid;

use super::rows::{BUCKET, MessageRow, bigint, bucket, message, seq};
use super::{Inner, StoreError};
use crate::message::{ChannelId, Message, Seq};
use crate::server::store::Page;

impl Inner {
    pub(super) async fn messages(&self, id: ChannelId, page: Page, limit: usize) -> Result<Vec<Message>, StoreError> {
        match page {
            _ if limit == 0 => Ok(Vec::new()),
            Page::After(seq) => self.messages_after(id, seq, limit).await,
            Page::Before(seq) => self.messages_before(id, seq, limit).await,
        }
    }

    pub(super) async fn messages_after(
        &self,
        id: ChannelId,
        mut after: Seq,
        limit: usize,
    ) -> Result<Vec<Message>, StoreError> {
        let mut found = Vec::new();
        // While the entry itself is there from which the page goes on, nothing behind it was purged, and where nothing
        // follows is the end: a look at the head is saved.
        let mut with_known = after > 0 && bucket(after) == bucket(after.saturating_add(1));
        let mut is_purge_known = false;
        while found.len() < limit && after < bigint(Seq::MAX) as Seq {
            let bucket = bucket(after + 1);
            let asked = one_more(limit - found.len()).saturating_add(i32::from(with_known));
            let values = (id.0, bigint(bucket), bigint(after) - i64::from(with_known), asked);
            let rows: Vec<MessageRow> = self.rows(&self.statements.messages_after, values).await?;
            let was_cut = rows.len() >= asked as usize;
            is_purge_known |= rows.first().is_some_and(|first| first.0 == bigint(after));
            with_known = false;
            if rows.iter().all(|row| row.0 <= bigint(after)) {
                let is_beginning = found.is_empty() && !is_purge_known;
                is_purge_known = true;
                match if is_beginning { self.extent(id).await? } else { None } {
                    Some(stored) if stored.extent.purged_seq > after => after = stored.extent.purged_seq,
                    _ => break,
                }
                continue;
            }
            after = take_page(&mut found, id, rows, was_cut, limit, after)?;
            if !was_cut && after % BUCKET != BUCKET - 1 {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn messages_before(&self, id: ChannelId, mut before: Seq, limit: usize) -> Result<Vec<Message>, StoreError> {
        let mut found = Vec::new();
        // A bound within the log finds something in its bucket. Else the head says where the log ends: its bucket has
        // all that came after it, too, but for what is being written this very moment.
        let mut asked_for_head = false;
        while found.len() < limit && before > 1 {
            let mut newest = bucket(before - 1);
            let asked = one_more(limit - found.len());
            let rows: Vec<MessageRow> = if bigint(before) == i64::MAX {
                Vec::new()
            } else {
                let values = (id.0, bigint(newest), bigint(before), asked);
                self.rows(&self.statements.messages_before, values).await?
            };
            if rows.is_empty() {
                // In the first bucket there is nothing below; and below a bucket that had something, none is empty.
                if newest == 0 || asked_for_head || !found.is_empty() {
                    break;
                }
                asked_for_head = true;
                let Some(head) = self.read_head(id).await? else { break };
                newest = newest.min(bucket(head.last_seq));
                before = before.min((newest + 1) * BUCKET);
                continue;
            }
            let was_cut = rows.len() >= asked as usize;
            before = take_page(&mut found, id, rows, was_cut, limit, 0)?;
            if !was_cut {
                before = newest * BUCKET;
            }
        }
        found.truncate(limit);
        found.reverse();
        Ok(found)
    }

    /// The ids of the stored entries from `first` to `last`.
    pub(super) async fn ids_between(
        &self,
        id: ChannelId,
        first: Seq,
        last: Seq,
    ) -> Result<HashMap<Seq, Uuid>, StoreError> {
        let mut ids = HashMap::new();
        for bucket in bucket(first)..=bucket(last) {
            let values = (id.0, bigint(bucket), bigint(first), bigint(last));
            let rows: Vec<(i64, Uuid)> = self.rows(&self.statements.ids_between, values).await?;
            for (stored, new) in rows {
                let seq = seq(stored)?;
                let known = ids.entry(seq).or_insert(new);
                if *known != new {
                    report_two(id, seq);
                    *known = new.min(*known);
                }
            }
        }
        Ok(ids)
    }
}

/// Takes in what a query brought of the entries above `after`; the seq to go on from. If it was cut, there may be another row of the last seq: one
/// that came alone is left for the next query, unless it is one more than is wanted.
fn take_page(
    found: &mut Vec<Message>,
    id: ChannelId,
    rows: Vec<MessageRow>,
    was_cut: bool,
    limit: usize,
    after: Seq,
) -> Result<Seq, StoreError> {
    let came_alone = matches!(&rows[..], [.., former, last] if former.0 != last.0);
    for row in rows.into_iter().filter(|row| row.0 > bigint(after)) {
        take_in(found, message(id, row)?);
    }
    if was_cut && came_alone && found.len() <= limit {
        found.pop();
    }
    Ok(found.last().map_or(after, |last| last.seq))
}

/// Of two rows with one seq, everyone takes the one with the smaller id.
fn take_in(found: &mut Vec<Message>, new: Message) {
    match found.last_mut() {
        Some(last) if last.seq == new.seq => {
            if last.id != new.id {
                report_two(new.channel, new.seq);
            }
            if new.id < last.id {
                *last = new;
            }
        }
        _ => found.push(new),
    }
}

fn report_two(channel: ChannelId, seq: Seq) {
    metrics::counter!("aula_store_split_seqs_total").increment(1);
    tracing::error!(%channel, seq, "two entries have one seq: two owners have written");
}

/// Rows to ask for: two rows of one seq count as one, so the last entry of a page shows only with the next row that it
/// is the only one.
fn one_more(limit: usize) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX).saturating_add(1)
}
