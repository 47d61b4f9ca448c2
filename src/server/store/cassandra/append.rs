//! Storing a batch, step by step: see [`super`].

use std::sync::Arc;

use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlTimestamp, CqlValue, MaybeUnset};

use super::errors::unavailable;
use super::heads::Head;
use super::plan::Plan;
use super::rows::{bigint, bucket, channel_kind_name, kind_name, moment, role_name};
use super::{CONCURRENCY, Inner, StoreError};
use crate::message::{ChannelId, Message, Seq, Username};
use crate::server::store::{ChannelBatch, Member};

/// Bytes of entries in one mutation. Cassandra refuses one of half a segment of its commit log (16 MiB); far below it
/// a mutation does not stop the others for long. The thresholds for the size of batches are about several partitions.
const MAX_BYTES: usize = 1 << 20;

/// Bytes of an entry besides its body, about.
const ENTRY_OVERHEAD: usize = 160;

/// Statements in one mutation of head and members. What changes members can't be split, watermarks can.
const MAX_WATERMARKS: usize = 1_000;

impl Inner {
    pub(super) async fn append(&self, batch: &ChannelBatch) -> Result<(), StoreError> {
        let outcome = self.try_append(batch).await;
        if outcome.is_err() {
            // Some of it may be stored: what the head is must be read.
            self.heads.forget(batch.channel);
        }
        outcome
    }

    async fn try_append(&self, batch: &ChannelBatch) -> Result<(), StoreError> {
        let id = batch.channel;
        let plan = match self.heads.get(id).and_then(|head| Plan::of(batch, Some(head))) {
            Some(plan) => plan,
            // Nothing known, or it does not fit to what was known.
            None => Plan::of(batch, self.read_head(id).await?).ok_or(StoreError::Conflict(id))?,
        };
        if let (Some(first), Some(last)) = (plan.stored.first(), plan.stored.last()) {
            let ids = self.ids_between(id, first.seq, last.seq).await?;
            let is_other = |entry: &&Arc<Message>| ids.get(&entry.seq) != Some(&entry.id);
            if let Some(newest) = plan.stored.iter().rfind(is_other) {
                // What was purged since was the same, or its owner would have been told then.
                let purged = self.extent(id).await?.map_or(0, |stored| stored.extent.purged_seq);
                if newest.seq > purged {
                    return Err(StoreError::Conflict(id));
                }
            }
        }
        try_join(self.note_refusals(id, &batch.refused), self.begin_channel(&plan)).await?;
        let notes = self.note_sends(id, plan.fresh.iter().map(Arc::as_ref));
        try_join(self.write_entries(plan.fresh), notes).await?;
        self.finish(&plan).await
    }

    pub(super) async fn begin_channel(&self, plan: &Plan<'_>) -> Result<(), StoreError> {
        let Some(create) = plan.batch.create.as_ref().filter(|_| plan.makes_channel()) else { return Ok(()) };
        let name = create.name.as_deref().map_or(MaybeUnset::Unset, MaybeUnset::Set);
        let at = plan.batch.entries.first().map_or(CqlTimestamp(0), |entry| moment(entry.at));
        let values = (1_i64, channel_kind_name(create.kind), name, at, plan.batch.channel.0);
        self.write(&self.statements.set_kind, values).await
    }

    /// One mutation after the other, so that what is stored is always a prefix.
    pub(super) async fn write_entries(&self, entries: &[Arc<Message>]) -> Result<(), StoreError> {
        let mut rest = entries;
        while !rest.is_empty() {
            let (part, later) = rest.split_at(first_part(rest));
            rest = later;
            let statement = &self.statements.insert_message;
            if let [only] = part {
                self.write(statement, values(only)).await?;
                continue;
            }
            let mut batch = Batch::new(BatchType::Unlogged);
            batch.set_is_idempotent(true);
            part.iter().for_each(|_| batch.append_statement(statement.clone()));
            let values: Vec<_> = part.iter().map(|entry| values(entry)).collect();
            self.cassandra.session.batch(&batch, values).await.map_err(unavailable)?;
        }
        Ok(())
    }

    /// What follows when the entries are in the log.
    pub(super) async fn finish(&self, plan: &Plan<'_>) -> Result<(), StoreError> {
        if plan.changes_members() {
            self.write_lists(plan).await?;
        }
        let id = plan.batch.channel;
        let new = plan.new_head();
        let mut changes = Changes::new(self, id);
        changes.head(plan, new);
        changes.members(plan, new);
        let mut watermarks = changes.watermarks(plan);
        let rest = watermarks.split_off(watermarks.len().min(MAX_WATERMARKS));
        changes.rows.extend(watermarks);
        changes.write().await?;
        // Only then: nobody has read what is not there.
        for part in rest.chunks(MAX_WATERMARKS) {
            Changes { inner: self, id, rows: part.to_vec() }.write().await?;
        }
        if plan.head.is_some() || plan.makes_channel() {
            self.heads.raise(id, new);
        }
        Ok(())
    }

    pub(super) async fn write_lists(&self, plan: &Plan<'_>) -> Result<(), StoreError> {
        let (id, timestamp) = (plan.batch.channel.0, bigint(plan.new_head().last_seq));
        let comes = |(user, member): &(Username, Member)| {
            let values = (user.as_str().to_owned(), id, bigint(member.joined_seq), timestamp);
            async move { self.write(&self.statements.list_channel, values).await }
        };
        let goes = |user: &Username| {
            let values = (timestamp, user.as_str().to_owned(), id);
            async move { self.write(&self.statements.unlist_channel, values).await }
        };
        let newcomers = plan.batch.members.iter().filter(|(_, member)| plan.begins(member.joined_seq));
        let coming: Vec<_> = newcomers.map(comes).collect();
        let going: Vec<_> = plan.batch.departed.iter().map(goes).collect();
        try_join(
            stream::iter(coming).buffer_unordered(CONCURRENCY).try_collect::<()>(),
            stream::iter(going).buffer_unordered(CONCURRENCY).try_collect::<()>(),
        )
        .await?;
        Ok(())
    }
}

/// How many of the entries the first mutation takes: those of one bucket, up to the limit, and at least one.
fn first_part(entries: &[Arc<Message>]) -> usize {
    let first_bucket = entries.first().map_or(0, |first| bucket(first.seq));
    let mut bytes = 0;
    let fits = |entry: &&Arc<Message>| {
        bytes += ENTRY_OVERHEAD + entry.body.len();
        bytes <= MAX_BYTES && bucket(entry.seq) == first_bucket
    };
    entries.iter().take_while(fits).count().max(1)
}

type EntryValues<'e> =
    (uuid::Uuid, i64, i64, uuid::Uuid, &'e str, uuid::Uuid, &'static str, &'e str, CqlTimestamp, i64);

fn values(entry: &Message) -> EntryValues<'_> {
    let seq = bigint(entry.seq);
    let bucket = bigint(bucket(entry.seq));
    let Message { id, client_id, .. } = *entry;
    let (sender, kind) = (entry.sender.as_str(), kind_name(entry.kind));
    (entry.channel.0, bucket, seq, id, sender, client_id, kind, &entry.body, moment(entry.at), seq)
}

type Row<'s> = (&'s PreparedStatement, Vec<CqlValue>);

/// One mutation of a channel's partition.
struct Changes<'s> {
    inner: &'s Inner,
    id: ChannelId,
    rows: Vec<Row<'s>>,
}

impl<'s> Changes<'s> {
    fn new(inner: &'s Inner, id: ChannelId) -> Self {
        Self { inner, id, rows: Vec::new() }
    }

    fn channel(&self) -> CqlValue {
        CqlValue::Uuid(self.id.0)
    }

    /// What has not changed since the known head is not written.
    fn head(&mut self, plan: &Plan<'_>, new: Head) {
        let statements = &self.inner.statements;
        let old = plan.head.unwrap_or(Head::NONE);
        if plan.has_news() {
            let (seq, at) = (number(new.last_seq), CqlValue::Timestamp(moment(new.last_at)));
            self.rows.push((&statements.set_head, vec![seq.clone(), seq, at, self.channel()]));
        }
        for (statement, old, new) in [
            (&statements.set_delivered_by_all, old.delivered_by_all, new.delivered_by_all),
            (&statements.set_read_by_all, old.read_by_all, new.read_by_all),
        ] {
            if new > old {
                self.rows.push((statement, vec![number(new), number(new), self.channel()]));
            }
        }
    }

    /// Who came, went, or has a new role, as of the new head.
    fn members(&mut self, plan: &Plan<'_>, new: Head) {
        if !plan.changes_members() {
            return;
        }
        let statements = &self.inner.statements;
        let as_of = || number(new.last_seq);
        for (user, Member { role, joined_seq, .. }) in &plan.batch.members {
            let role = CqlValue::Text(role_name(*role).to_owned());
            self.rows
                .push((&statements.set_role, vec![as_of(), role, self.channel(), name(user), number(*joined_seq)]));
            // Went and came back within this batch.
            if plan.begins(*joined_seq) && *joined_seq > 1 {
                self.end_memberships(user, new.last_seq, joined_seq - 1);
            }
        }
        for user in &plan.batch.departed {
            self.end_memberships(user, new.last_seq, new.last_seq);
        }
    }

    fn end_memberships(&mut self, user: &Username, timestamp: Seq, begun_up_to: Seq) {
        let values = vec![number(timestamp), self.channel(), name(user), number(begun_up_to)];
        self.rows.push((&self.inner.statements.end_memberships, values));
    }

    fn watermarks(&self, plan: &Plan<'_>) -> Vec<Row<'s>> {
        let statements = &self.inner.statements;
        let mut rows = Vec::new();
        for (user, Member { joined_seq, delivered, read, .. }) in &plan.batch.members {
            let key = || [self.channel(), name(user), number(*joined_seq)];
            let mut push = |statement, values: &[CqlValue]| {
                rows.push((statement, values.iter().cloned().chain(key()).collect()));
            };
            // The watermark is its own timestamp: a lower one can't win.
            match (number(*delivered), number(*read)) {
                (delivered, read) if delivered == read => {
                    push(&statements.set_both, &[delivered.clone(), delivered, read]);
                }
                (delivered, read) => {
                    push(&statements.set_delivered, &[delivered.clone(), delivered]);
                    push(&statements.set_read, &[read.clone(), read]);
                }
            }
        }
        rows
    }

    async fn write(self) -> Result<(), StoreError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        let mut values = Vec::with_capacity(self.rows.len());
        for (statement, row) in self.rows {
            batch.append_statement(statement.clone());
            values.push(row);
        }
        self.inner.cassandra.session.batch(&batch, values).await.map_err(unavailable)?;
        Ok(())
    }
}

fn number(seq: Seq) -> CqlValue {
    CqlValue::BigInt(bigint(seq))
}

fn name(user: &Username) -> CqlValue {
    CqlValue::Text(user.as_str().to_owned())
}
