//! One SQLite file in the data directory.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;

use super::{Backends, Events, Look, Part};
use crate::config::Config;
use crate::server::auth::sqlite::SqliteAccounts;
use crate::server::events::{EmbeddedBus, EventBus, EventSink, EventSource, EventTail};
use crate::server::queue::{SqliteQueue, SqliteQueueOptions};
use crate::server::search::{Fts5Search, Search};
use crate::server::sqlite::holder::{self, Holder};
use crate::server::sqlite::migrate::{self, Mode};
use crate::server::sqlite::{Database, FILE_NAME, Options};
use crate::server::store::{Scan, SqliteStore, Store};

/// How often a process that has the data directory to itself looks whether a command has changed something in it.
const POLL_ALONE: Duration = Duration::from_millis(250);

pub(super) fn check(config: &Config) -> anyhow::Result<()> {
    migrate::plan(&config.data_dir.join(FILE_NAME))?;
    Ok(())
}

pub(super) async fn open(config: &Config, part: Part) -> anyhow::Result<Backends> {
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
        // A data directory has one gateway: nobody else's task was accepted before.
        hand_over: part == Part::Whole,
    };
    let queue = SqliteQueue::open(database.clone(), queue, Arc::new(holder)).await.with_context(in_file)?;
    let search = Fts5Search::new(database.clone(), config.search.timeout, config.search.total_cap as u64);
    let mut background = tokio::task::JoinSet::new();
    // Whoever writes the log: a process that had its owners in it may have died before.
    if part != Part::Gateway {
        background.spawn(search.clone().recover());
    }
    let index = Arc::new(search);
    let store = Arc::new(SqliteStore::new(database.clone(), config.queue.dedup_ttl));
    Ok(Backends {
        queue: Arc::new(queue.clone()),
        store: Arc::clone(&store) as Arc<dyn Store>,
        scan: Arc::clone(&store) as Arc<dyn Scan>,
        purge: store,
        dead_letters: Arc::new(queue),
        search: Arc::clone(&index) as Arc<dyn Search>,
        index,
        answers: None,
        accounts: Arc::new(SqliteAccounts::new(database.clone())),
        events: Box::new(EventsTable(database)),
        background,
    })
}

/// The queue, only to look at.
pub(super) async fn look_at_queue(config: &Config) -> anyhow::Result<Look> {
    let path = config.data_dir.join(FILE_NAME);
    migrate::ensure(&path, Mode::Verify)?;
    let in_file = || path.display().to_string();
    let database = Database::open(&path, &Options::default()).with_context(in_file)?;
    let bus = Arc::new(EmbeddedBus::new(database.clone(), None));
    let queue = SqliteQueue::look(database, config.data_dir.clone()).await.with_context(in_file)?;
    Ok(Look { queue: Arc::new(queue.clone()), dead_letters: Arc::new(queue), bus, place: in_file() })
}

struct EventsTable(Database);

#[async_trait]
impl Events for EventsTable {
    fn bus(&self, gateway: Option<Arc<dyn EventSink>>) -> Arc<dyn EventBus> {
        Arc::new(EmbeddedBus::new(self.0.clone(), gateway))
    }

    async fn source(&self) -> anyhow::Result<Box<dyn EventSource>> {
        Ok(Box::new(EventTail::open(self.0.clone()).await?))
    }
}
