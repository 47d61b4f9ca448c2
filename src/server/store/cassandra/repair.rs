//! Completing what a process had begun to store when it died.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::partition::{Picture, READINGS, changes_too_fast};
use super::plan::Plan;
use super::{Inner, StoreError};
use crate::message::{ChannelId, Message, Seq, Username};
use crate::server::store::{ChannelBatch, ChannelState, NewChannel};

/// Entries that are completed at a time; a flush has fewer.
const CHUNK: usize = 1_000;

impl Inner {
    /// The channel as an owner goes on from it: all entries that are in the log are taken in, and complete.
    pub(super) async fn load(&self, id: ChannelId) -> Result<Option<ChannelState>, StoreError> {
        for _ in 0..READINGS {
            let Some(picture) = self.picture(id).await? else { return Ok(None) };
            let head = picture.head;
            if let Some(head) = head {
                self.heads.raise(id, head);
            }
            let last_seq = head.map_or(0, |head| head.last_seq);
            let above = self.messages_after(id, last_seq, CHUNK).await?;
            let above = dense_after(last_seq, above);
            if above.is_empty() {
                return Ok(head.is_some().then(|| picture.state()));
            }
            let is_all = above.len() < CHUNK;
            let state = self.complete(id, picture, above).await?;
            // Not read once more: beside an owner that is at work there would always be something new.
            if is_all {
                return Ok(Some(state));
            }
        }
        Err(changes_too_fast())
    }

    /// Does for entries that are in the log what was to be done after they were written there.
    async fn complete(&self, id: ChannelId, picture: Picture, above: Vec<Message>) -> Result<ChannelState, StoreError> {
        let head = picture.head;
        let mut state = picture.state();
        let create = head.is_none().then(|| NewChannel { kind: state.kind, name: state.name.clone() });
        let mut concerned: BTreeSet<Username> = BTreeSet::new();
        for entry in &above {
            concerned.extend(state.apply(entry));
        }
        tracing::warn!(channel = %id, head = head.map_or(0, |head| head.last_seq), entries = above.len(),
            "completing entries that a process was storing when it stopped");
        metrics::counter!("aula_store_repaired_total").increment(above.len() as u64);
        let (mut members, mut departed) = (Vec::new(), Vec::new());
        for user in concerned {
            match state.members.get(&user) {
                Some(member) => members.push((user, member.clone())),
                None => departed.push(user),
            }
        }
        let batch = ChannelBatch {
            channel: id,
            create,
            entries: above.into_iter().map(Arc::new).collect(),
            members,
            departed,
            delivered_by_all: 0,
            read_by_all: 0,
            refused: Vec::new(),
        };
        let Some(plan) = Plan::of(&batch, head) else { return Err(StoreError::Conflict(id)) };
        self.note_sends(id, plan.fresh.iter().map(Arc::as_ref)).await?;
        self.finish(&plan).await?;
        Ok(state)
    }
}

/// The entries that follow each other from right after `head` on.
fn dense_after(head: Seq, mut entries: Vec<Message>) -> Vec<Message> {
    let dense = (head + 1..).zip(&entries).take_while(|(seq, entry)| *seq == entry.seq).count();
    entries.truncate(dense);
    entries
}
