use super::super::Fts5Search;
use super::*;
use crate::server::sqlite::testing::TempDatabase;
use crate::server::store::SqliteStore;

pub struct Sqlite {
    database: TempDatabase,
    index: Fts5Search,
}

#[async_trait]
impl Backend for Sqlite {
    async fn fresh(timeout: Duration, total_cap: u64) -> Self {
        let database = TempDatabase::new();
        Self { index: Fts5Search::new(database.database(), timeout, total_cap), database }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::new(self.database.database(), std::time::Duration::from_secs(60)))
    }

    fn index(&self) -> Arc<dyn SearchIndex> {
        Arc::new(self.index.clone())
    }

    fn rebuild(&self) -> Arc<dyn Rebuild> {
        Arc::new(self.index.clone())
    }

    fn purge(&self) -> Arc<dyn Purge> {
        Arc::new(SqliteStore::new(self.database.database(), std::time::Duration::from_secs(60)))
    }

    async fn settle(&self) {}
}
