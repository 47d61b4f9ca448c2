//! A channel in the hands of an owner, for tests that need stored ones.

use std::sync::Arc;

use uuid::Uuid;

use super::{ChannelBatch, ChannelState, NewChannel};
use crate::message::{Change, ChannelId, ChannelKind, Kind, Message, Millis, Seq, Username};

pub(crate) fn message(channel: ChannelId, seq: Seq, sender: &Username) -> Message {
    let (id, client_id) = (Uuid::now_v7(), Uuid::new_v4());
    let body = format!("entry {seq}");
    Message { channel, seq, id, sender: sender.clone(), client_id, kind: Kind::Text, body, at: Millis(seq as i64) }
}

pub(crate) fn change(channel: ChannelId, seq: Seq, by: &Username, change: Change) -> Message {
    Message { kind: Kind::System, body: change.to_body(), ..message(channel, seq, by) }
}

/// Its state is what the owner takes it for.
pub(crate) struct Owned {
    pub(crate) id: ChannelId,
    pub(crate) state: ChannelState,
}

impl Owned {
    pub(crate) fn new() -> Self {
        let (kind, name) = (ChannelKind::Group, Some("Engines".to_owned()));
        let members = Default::default();
        let state = ChannelState { kind, name, last_seq: 0, members, delivered_by_all: 0, read_by_all: 0 };
        Self { id: ChannelId::new_group(), state }
    }

    /// A flush of these entries.
    pub(crate) fn batch(&mut self, entries: Vec<Message>) -> ChannelBatch {
        let create =
            (self.state.last_seq == 0).then(|| NewChannel { kind: self.state.kind, name: self.state.name.clone() });
        let mut concerned = std::collections::BTreeSet::new();
        for entry in &entries {
            concerned.extend(self.state.apply(entry));
        }
        let (mut members, mut departed) = (Vec::new(), Vec::new());
        for user in concerned {
            match self.state.members.get(&user) {
                Some(member) => members.push((user, member.clone())),
                None => departed.push(user),
            }
        }
        ChannelBatch {
            channel: self.id,
            create,
            entries: entries.into_iter().map(Arc::new).collect(),
            members,
            departed,
            delivered_by_all: 0,
            read_by_all: 0,
            refused: Vec::new(),
        }
    }

    pub(crate) fn creation(&mut self, members: &[&Username]) -> ChannelBatch {
        let members: Vec<Username> = members.iter().copied().cloned().collect();
        let first = change(self.id, 1, &members[0].clone(), Change::Created { members });
        self.batch(vec![first])
    }
}
