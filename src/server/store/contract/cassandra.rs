use super::super::CassandraStore;
use super::renamed::{Corner, Renamed};
use super::*;
use crate::server::cassandra::{Cassandra, testing};

/// A corner of the tests' keyspace.
pub struct OnCassandra {
    store: CassandraStore,
    cassandra: Cassandra,
    corner: Corner,
}

impl OnCassandra {
    async fn on(cassandra: Cassandra, corner: Corner) -> Self {
        let ttl = std::time::Duration::from_secs(600);
        Self { store: CassandraStore::new(cassandra.clone(), ttl).await.unwrap(), cassandra, corner }
    }
}

#[async_trait]
impl Backend for OnCassandra {
    const SEES_REPEATED_SENDS: bool = false;
    const CASES: u32 = 12;

    async fn fresh() -> Self {
        Self::on(testing::connect().await, Corner::new()).await
    }

    fn store(&self) -> Arc<dyn Store> {
        let inner: Arc<dyn Store> = Arc::new(self.store.clone());
        Arc::new(Renamed { inner, corner: self.corner.clone() })
    }

    fn scan(&self) -> Arc<dyn Scan> {
        let inner: Arc<dyn Scan> = Arc::new(self.store.clone());
        Arc::new(Renamed { inner, corner: self.corner.clone() })
    }

    fn purge(&self) -> Arc<dyn Purge> {
        let inner: Arc<dyn Purge> = Arc::new(self.store.clone());
        Arc::new(Renamed { inner, corner: self.corner.clone() })
    }

    /// Another process knows what is in the database, and nothing else.
    async fn after_kill(self) -> Self {
        Self::on(self.cassandra, self.corner).await
    }
}
