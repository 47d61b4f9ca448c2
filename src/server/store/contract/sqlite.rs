use super::super::SqliteStore;
use super::*;
use crate::server::sqlite::testing::TempDatabase;

pub struct Sqlite {
    store: SqliteStore,
    database: TempDatabase,
}

impl Sqlite {
    fn on(database: TempDatabase) -> Self {
        Self { store: SqliteStore::new(database.database(), std::time::Duration::from_secs(60)), database }
    }
}

#[async_trait]
impl Backend for Sqlite {
    const SEES_REPEATED_SENDS: bool = true;
    const CASES: u32 = 64;

    async fn fresh() -> Self {
        Self::on(TempDatabase::new())
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    fn scan(&self) -> Arc<dyn Scan> {
        Arc::new(self.store.clone())
    }

    fn purge(&self) -> Arc<dyn Purge> {
        Arc::new(self.store.clone())
    }

    async fn after_kill(self) -> Self {
        Self::on(self.database.after_kill())
    }
}
