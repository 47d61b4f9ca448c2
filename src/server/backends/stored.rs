//! What a deployment keeps, for commands that read or fill it: without queues, events or anything that runs by itself.

use std::sync::Arc;

use anyhow::Context as _;

use crate::config::{Config, Deployment};
use crate::server::auth::Accounts;
use crate::server::auth::cassandra::CassandraAccounts;
use crate::server::auth::sqlite::SqliteAccounts;
use crate::server::cassandra::Cassandra;
use crate::server::search::audit::IndexAudit;
use crate::server::search::rebuild::Rebuild;
use crate::server::search::{ElasticsearchIndex, ElasticsearchRebuild, Fts5Search, SearchIndex, connect_elasticsearch};
use crate::server::sqlite::migrate::{self, Mode};
use crate::server::sqlite::{Database, FILE_NAME, Options};
use crate::server::store::audit::Audit;
use crate::server::store::{CassandraStore, Purge, Scan, SqliteStore, Store};

/// The store, what can be read of all of it, the accounts and the index.
pub struct Stored {
    pub store: Arc<dyn Store>,
    pub scan: Arc<dyn Scan>,
    pub purge: Arc<dyn Purge>,
    pub accounts: Arc<dyn Accounts>,
    pub index: Arc<dyn SearchIndex>,
    pub rebuild: Arc<dyn Rebuild>,
    pub audit: Arc<dyn Audit>,
    pub index_audit: Arc<dyn IndexAudit>,
    /// The file, or the keyspace.
    pub place: String,
}

impl Stored {
    /// What is there, beside running processes or without them. Nothing is migrated, made or consumed.
    ///
    /// Errors: the schema is another than this binary's; a server can't be reached.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        match config.deployment() {
            Deployment::Embedded => embedded(config),
            Deployment::Distributed => distributed(config).await,
        }
    }
}

fn embedded(config: &Config) -> anyhow::Result<Stored> {
    let path = config.data_dir.join(FILE_NAME);
    migrate::ensure(&path, Mode::Verify)?;
    let place = path.display().to_string();
    let options = Options {
        readers: config.store.readers,
        writer_queue: config.store.writer_queue,
        max_batch: config.store.max_batch,
        ..Options::default()
    };
    let database = Database::open(&path, &options).with_context(|| place.clone())?;
    let store = Arc::new(SqliteStore::new(database.clone(), config.queue.dedup_ttl));
    let search = Fts5Search::new(database.clone(), config.search.timeout, config.search.total_cap as u64);
    Ok(Stored {
        store: Arc::clone(&store) as Arc<dyn Store>,
        scan: Arc::clone(&store) as Arc<dyn Scan>,
        audit: Arc::clone(&store) as Arc<dyn Audit>,
        purge: store,
        accounts: Arc::new(SqliteAccounts::new(database)),
        index: Arc::new(search.clone()),
        index_audit: Arc::new(search.clone()),
        rebuild: Arc::new(search),
        place,
    })
}

async fn distributed(config: &Config) -> anyhow::Result<Stored> {
    let cassandra = Cassandra::connect(&config.cassandra, true).await?;
    let place = format!("the keyspace {} of Cassandra", cassandra.keyspace);
    let store = Arc::new(CassandraStore::new(cassandra.clone(), config.queue.dedup_ttl).await?);
    let purge = Arc::clone(&store) as Arc<dyn Purge>;
    let accounts = CassandraAccounts::open(&cassandra).await.context("accounts can't be read from Cassandra")?;
    let client = connect_elasticsearch(&config.elasticsearch)?;
    let (alias, asked) = (config.elasticsearch.alias.clone(), Arc::clone(&store) as Arc<dyn Store>);
    let (timeout, total_cap) = (config.search.timeout, config.search.total_cap as u64);
    let scan = Arc::clone(&store) as Arc<dyn Scan>;
    let audit = Arc::clone(&store) as Arc<dyn Audit>;
    let rebuild = ElasticsearchRebuild::new(client.clone(), alias.clone(), Arc::clone(&asked), Arc::clone(&scan));
    let rebuild = Arc::new(rebuild);
    Ok(Stored {
        store,
        scan,
        purge,
        accounts: Arc::new(accounts),
        index: Arc::new(ElasticsearchIndex::new(client, alias, asked, timeout, total_cap)),
        index_audit: Arc::clone(&rebuild) as Arc<dyn IndexAudit>,
        rebuild,
        audit,
        place,
    })
}
