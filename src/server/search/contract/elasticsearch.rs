use super::super::elasticsearch::testing::TestIndex;
use super::super::{ElasticsearchIndex, ElasticsearchRebuild};
use super::*;
use crate::server::sqlite::testing::TempDatabase;
use crate::server::store::SqliteStore;

/// With an embedded store: all the index asks of it is who is a member of what.
pub struct OnElasticsearch {
    database: TempDatabase,
    test: TestIndex,
    index: ElasticsearchIndex,
}

#[async_trait]
impl Backend for OnElasticsearch {
    async fn fresh(timeout: Duration, total_cap: u64) -> Self {
        let (database, test) = (TempDatabase::new(), TestIndex::new().await);
        let store = Arc::new(SqliteStore::new(database.database(), Duration::from_secs(60)));
        let index = ElasticsearchIndex::new(test.client.clone(), test.alias.clone(), store, timeout, total_cap);
        Self { database, test, index }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::new(self.database.database(), Duration::from_secs(60)))
    }

    fn index(&self) -> Arc<dyn SearchIndex> {
        Arc::new(self.index.clone())
    }

    fn rebuild(&self) -> Arc<dyn Rebuild> {
        let store = Arc::new(SqliteStore::new(self.database.database(), Duration::from_secs(60)));
        let (client, alias) = (self.test.client.clone(), self.test.alias.clone());
        Arc::new(ElasticsearchRebuild::new(client, alias, Arc::clone(&store) as Arc<dyn Store>, store))
    }

    fn purge(&self) -> Arc<dyn Purge> {
        Arc::new(SqliteStore::new(self.database.database(), Duration::from_secs(60)))
    }

    async fn settle(&self) {
        self.test.refresh().await;
    }
}
