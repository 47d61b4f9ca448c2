//! What became of requests.

use std::collections::{BTreeMap, HashMap};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use scylla::statement::batch::{Batch, BatchType};
use scylla::value::MaybeUnset;
use uuid::Uuid;

use super::errors::unavailable;
use super::rows::{bigint, seq};
use super::{CONCURRENCY, Inner, StoreError};
use crate::message::{ChannelId, Message, Username};
use crate::server::store::{Earlier, Refused};
use crate::wire::ErrorCode;

/// Requests looked up in one query.
const LOOKED_UP: usize = 100;

impl Inner {
    /// Notes the seqs of entries, those of a sender in one write.
    pub(super) async fn note_sends(
        &self,
        channel: ChannelId,
        entries: impl Iterator<Item = &Message>,
    ) -> Result<(), StoreError> {
        let mut by_sender: BTreeMap<&Username, Vec<&Message>> = BTreeMap::new();
        for entry in entries {
            by_sender.entry(&entry.sender).or_default().push(entry);
        }
        let note = |(sender, entries): (&Username, Vec<&Message>)| {
            let sender = sender.as_str();
            let values: Vec<_> = entries
                .iter()
                .map(|entry| (channel.0, sender.to_owned(), entry.client_id, bigint(entry.seq), self.dedup_ttl))
                .collect();
            async move {
                let statement = &self.statements.insert_send;
                if let [only] = &values[..] {
                    return self.write(statement, only).await;
                }
                let mut batch = Batch::new(BatchType::Unlogged);
                batch.set_is_idempotent(true);
                values.iter().for_each(|_| batch.append_statement(statement.clone()));
                self.cassandra.session.batch(&batch, &values).await.map_err(unavailable)?;
                Ok(())
            }
        };
        let notes: Vec<_> = by_sender.into_iter().map(note).collect();
        stream::iter(notes).buffer_unordered(CONCURRENCY).try_collect().await
    }

    pub(super) async fn note_refusals(&self, channel: ChannelId, refused: &[Refused]) -> Result<(), StoreError> {
        let note = |refused: &Refused| {
            let code = refused.code.map_or(MaybeUnset::Unset, |code| MaybeUnset::Set(code.as_str()));
            let values = (channel.0, refused.sender.as_str().to_owned(), refused.client_id, code, self.dedup_ttl);
            async move { self.write(&self.statements.insert_refusal, values).await }
        };
        let notes: Vec<_> = refused.iter().map(note).collect();
        stream::iter(notes).buffer_unordered(CONCURRENCY).try_collect().await
    }

    pub(super) async fn find_sends(
        &self,
        channel: ChannelId,
        sends: Vec<(Username, Uuid)>,
    ) -> Result<Vec<Option<Earlier>>, StoreError> {
        let mut by_sender: BTreeMap<&Username, Vec<Uuid>> = BTreeMap::new();
        for (sender, client_id) in &sends {
            by_sender.entry(sender).or_default().push(*client_id);
        }
        let mut queries = Vec::new();
        for (sender, mut client_ids) in by_sender {
            client_ids.sort_unstable();
            client_ids.dedup();
            let chunks: Vec<_> = client_ids.chunks(LOOKED_UP).map(<[Uuid]>::to_vec).collect();
            queries.extend(chunks.into_iter().map(|chunk| (sender.clone(), chunk)));
        }
        let look_up = |(sender, client_ids): (Username, Vec<Uuid>)| async move {
            let values = (channel.0, sender.as_str().to_owned(), client_ids);
            let rows: Vec<(Uuid, Option<i64>, Option<String>)> = self.rows(&self.statements.find_sends, values).await?;
            Ok::<_, StoreError>((sender, rows))
        };
        let answers: Vec<_> = queries.into_iter().map(look_up).collect();
        let answers: Vec<_> = stream::iter(answers).buffer_unordered(CONCURRENCY).try_collect().await?;
        let mut found = HashMap::new();
        for (sender, rows) in answers {
            for (client_id, stored, code) in rows {
                found.insert((sender.clone(), client_id), earlier(stored, code)?);
            }
        }
        Ok(sends.iter().map(|send| found.get(send).copied()).collect())
    }
}

fn earlier(stored: Option<i64>, code: Option<String>) -> Result<Earlier, StoreError> {
    match stored {
        Some(stored) => Ok(Earlier::Stored(seq(stored)?)),
        // A code of a later version is as good as any: what matters is that it was refused.
        None => Ok(Earlier::Refused(code.map(|code| code.parse().unwrap_or(ErrorCode::Conflict)))),
    }
}
