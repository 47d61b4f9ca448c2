//! What is particular to this store. What every store does is in the contract.

mod crashes;
mod late;
mod layout;
mod outages;
mod speed;

use super::*;
use crate::message::{Change, Kind, Millis, Seq};
use crate::server::cassandra::testing;
use crate::server::store::NewChannel;

const TTL: Duration = Duration::from_secs(600);

async fn store() -> CassandraStore {
    CassandraStore::new(testing::connect().await, TTL).await.unwrap()
}

/// The same database, as another process sees it.
async fn another(store: &CassandraStore) -> CassandraStore {
    CassandraStore::new(store.inner.cassandra.clone(), TTL).await.unwrap()
}

fn somebody() -> Username {
    Username::new(&testing::unique("u")).unwrap()
}

fn message(channel: ChannelId, seq: Seq, sender: &Username) -> Message {
    let (id, client_id) = (Uuid::now_v7(), Uuid::new_v4());
    let body = format!("entry {seq}");
    Message { channel, seq, id, sender: sender.clone(), client_id, kind: Kind::Text, body, at: Millis(seq as i64) }
}

fn change(channel: ChannelId, seq: Seq, by: &Username, change: Change) -> Message {
    Message { kind: Kind::System, body: change.to_body(), ..message(channel, seq, by) }
}

/// A channel in the hands of an owner.
struct Owned {
    id: ChannelId,
    state: ChannelState,
}

impl Owned {
    fn new() -> Self {
        let (kind, name) = (ChannelKind::Group, Some("Engines".to_owned()));
        let members = Default::default();
        let state = ChannelState { kind, name, last_seq: 0, members, delivered_by_all: 0, read_by_all: 0 };
        Self { id: ChannelId::new_group(), state }
    }

    /// A flush of these entries.
    fn batch(&mut self, entries: Vec<Message>) -> ChannelBatch {
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

    fn creation(&mut self, members: &[&Username]) -> ChannelBatch {
        let members: Vec<Username> = members.iter().copied().cloned().collect();
        let first = change(self.id, 1, &members[0].clone(), Change::Created { members });
        self.batch(vec![first])
    }
}

async fn append(store: &CassandraStore, batch: &ChannelBatch) {
    store.append(Arc::new(batch.clone())).await.unwrap();
}
