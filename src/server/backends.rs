//! The one place that picks the backends of the stages.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::auth::secret::SigningKeys;
use super::auth::sqlite::SqliteAccounts;
use super::auth::{Accounts, Auth, AuthOptions};
use super::queue::{SqliteQueue, SqliteQueueOptions, TaskQueue};
use super::search::{Fts5Search, SearchIndex};
use super::sqlite::holder::{self, Holder};
use super::sqlite::migrate::{self, Mode};
use super::sqlite::{Database, FILE_NAME, Options};
use super::store::{SqliteStore, Store};
use super::worker::WorkerOptions;
use crate::config::{Config, QueueBackend, SearchBackend, StoreBackend};

/// How often a process that has the data directory to itself looks whether a command has changed something in it.
const POLL_ALONE: Duration = Duration::from_millis(250);
/// How long after taking a lane every send is looked up in the store.
const TAKEOVER: Duration = Duration::from_secs(60);
/// Channels whose state an owner keeps.
const OWNED_CHANNELS: usize = 10_000;

/// The stages of this process.
pub struct Backends {
    pub database: Database,
    pub queue: Arc<dyn TaskQueue>,
    pub store: Arc<dyn Store>,
    pub search: Arc<dyn SearchIndex>,
    pub accounts: Arc<dyn Accounts>,
}

/// What a process is to the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Gateway and workers: nobody else need be there.
    Whole,
    /// A gateway whose workers are other processes.
    Gateway,
    Worker,
}

impl Backends {
    /// Refuses a database that this binary can't serve, before anything is created or changed.
    pub fn check(config: &Config) -> anyhow::Result<()> {
        let StoreBackend::Sqlite = config.store.backend;
        migrate::plan(&config.data_dir.join(FILE_NAME))?;
        Ok(())
    }

    /// Opens what the configuration names. Blocks while the schema is migrated: call it before serving anything.
    pub async fn open(config: &Config, part: Part) -> anyhow::Result<Self> {
        let StoreBackend::Sqlite = config.store.backend;
        let QueueBackend::Sqlite = config.queue.backend;
        let SearchBackend::Fts5 = config.search.backend;
        let data_dir = &config.data_dir;
        let path = data_dir.join(FILE_NAME);
        let mode = if part == Part::Worker { Mode::Verify } else { Mode::ApplyPending };
        migrate::ensure(&path, mode)?;
        holder::sweep(data_dir);
        let (role, poll_interval) = match part {
            Part::Whole => ("serve", POLL_ALONE),
            Part::Gateway => ("serve", config.queue.poll_interval),
            Part::Worker => ("worker", config.queue.poll_interval),
        };
        let shards = config.queue.shard_count();
        let holder =
            Holder::register(data_dir, role).with_context(|| format!("can't register in {}", data_dir.display()))?;
        let options = Options {
            readers: config.store.readers,
            writer_queue: config.store.writer_queue,
            max_batch: config.store.max_batch,
            poll_interval,
        };
        let in_file = || path.display().to_string();
        let database = Database::open(&path, &options).with_context(in_file)?;
        let queue = SqliteQueueOptions {
            data_dir: data_dir.clone(),
            shards,
            max_depth: usize::try_from(config.queue.max_depth).unwrap_or(usize::MAX),
            lease: config.queue.lease,
        };
        let queue = SqliteQueue::open(database.clone(), queue, Arc::new(holder)).await.with_context(in_file)?;
        let search = Fts5Search::new(database.clone(), config.search.timeout, config.search.total_cap as u64);
        Ok(Self {
            queue: Arc::new(queue),
            store: Arc::new(SqliteStore::new(database.clone())),
            search: Arc::new(search),
            accounts: Arc::new(SqliteAccounts::new(database.clone())),
            database,
        })
    }

    /// The accounts, with the signing keys of the data directory.
    pub fn auth(&self, config: &Config, signup_open: bool) -> anyhow::Result<Auth> {
        let keys = SigningKeys::open(&config.data_dir)?;
        Ok(Auth::new(Arc::clone(&self.accounts), keys, AuthOptions::configured(&config.auth, signup_open)))
    }
}

/// The queue, only to look at: nothing is migrated, routed or consumed.
pub async fn look_at_queue(config: &Config) -> anyhow::Result<Arc<dyn TaskQueue>> {
    let QueueBackend::Sqlite = config.queue.backend;
    let path = config.data_dir.join(FILE_NAME);
    migrate::ensure(&path, Mode::Verify)?;
    let in_file = || path.display().to_string();
    let database = Database::open(&path, &Options::default()).with_context(in_file)?;
    Ok(Arc::new(SqliteQueue::look(database, config.data_dir.clone()).await.with_context(in_file)?))
}

/// Makes the data directory, for its owner alone, if it isn't there.
pub fn make_data_dir(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The bounds of this process' workers.
pub fn worker_options(config: &Config) -> WorkerOptions {
    WorkerOptions {
        prefetch: usize::from(config.queue.prefetch),
        max_members: config.channels.max_members,
        max_receipt_members: config.receipts.max_members,
        dedup_window: config.queue.dedup_window,
        always_look_up: match config.store.backend {
            StoreBackend::Sqlite => true,
        },
        takeover: TAKEOVER,
        cached_channels: OWNED_CHANNELS,
    }
}
