//! What is particular to this store. What every store does is in the contract.

mod crashes;
mod known;
mod late;
mod layout;
mod outages;
mod speed;

use super::*;
use crate::message::{Change, Millis, Seq};
use crate::server::cassandra::testing;
use crate::server::store::testing::{Owned, change, message};

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

async fn append(store: &CassandraStore, batch: &ChannelBatch) {
    store.append(Arc::new(batch.clone())).await.unwrap();
}
