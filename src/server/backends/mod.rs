//! The one place that picks the backends of the stages: all embedded, or all servers.

mod distributed;
mod embedded;
mod stored;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::auth::secret::{SigningKeys, keys_file};
use super::auth::{Accounts, Auth, AuthOptions};
use super::events::{EventBus, EventSink, EventSource};
use super::queue::{DeadLetters, TaskQueue};
use super::search::{Search, SearchAnswers, SearchIndex};
use super::store::{Purge, Scan, Store};
use super::worker::WorkerOptions;
use crate::config::{Config, Deployment};

pub use stored::Stored;

/// Channels whose state an owner keeps.
const OWNED_CHANNELS: usize = 10_000;

/// The stages of this process.
pub struct Backends {
    pub queue: Arc<dyn TaskQueue>,
    pub store: Arc<dyn Store>,
    pub scan: Arc<dyn Scan>,
    pub purge: Arc<dyn Purge>,
    pub dead_letters: Arc<dyn DeadLetters>,
    /// What gateways ask.
    pub search: Arc<dyn Search>,
    /// What the workers write.
    pub index: Arc<dyn SearchIndex>,
    /// Where searches go through a queue: the way back, for those who answer.
    pub answers: Option<Arc<dyn SearchAnswers>>,
    pub accounts: Arc<dyn Accounts>,
    pub events: Box<dyn Events>,
    /// What the backends do by themselves; ends when this is dropped.
    pub background: JoinSet<()>,
}

/// The way from the workers to the gateways.
#[async_trait::async_trait]
pub trait Events: Send + Sync {
    /// For the workers of this process; `gateway` is the one of this process, if it has one.
    fn bus(&self, gateway: Option<Arc<dyn EventSink>>) -> Arc<dyn EventBus>;

    /// For what gateways tell each other, where there may be several.
    fn between_gateways(&self) -> Option<Arc<dyn EventBus>> {
        None
    }

    /// For the gateway of this process. From when it resolves on, no event is missed unsaid.
    async fn source(&self) -> anyhow::Result<Box<dyn EventSource>>;
}

/// What a process is to the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Gateway and workers: in an embedded deployment nobody else need be there.
    Whole,
    /// A gateway whose workers are other processes.
    Gateway,
    Worker,
}

impl Backends {
    /// Refuses what this binary can't serve, before anything is created or changed.
    pub fn check(config: &Config) -> anyhow::Result<()> {
        match config.deployment() {
            Deployment::Embedded => embedded::check(config),
            Deployment::Distributed => Ok(()),
        }
    }

    /// Opens what the configuration names. An embedded schema is migrated first, and that blocks: call it before
    /// serving anything.
    pub async fn open(config: &Config, part: Part) -> anyhow::Result<Self> {
        match config.deployment() {
            Deployment::Embedded => embedded::open(config, part).await,
            Deployment::Distributed => distributed::open(config, part).await,
        }
    }

    /// The accounts, with the signing keys of this configuration.
    pub fn auth(&self, config: &Config, signup_open: bool) -> anyhow::Result<Auth> {
        let keys = SigningKeys::open(&keys_file(config))?;
        Ok(Auth::new(Arc::clone(&self.accounts), keys, AuthOptions::configured(&config.auth, signup_open)))
    }
}

/// A queue to look at.
pub struct Look {
    pub queue: Arc<dyn TaskQueue>,
    pub dead_letters: Arc<dyn DeadLetters>,
    /// To the gateways, which are other processes.
    pub bus: Arc<dyn EventBus>,
    /// The file, or the broker.
    pub place: String,
}

/// The queue, only to look at: nothing is migrated, routed or consumed.
pub async fn look_at_queue(config: &Config) -> anyhow::Result<Look> {
    match config.deployment() {
        Deployment::Embedded => embedded::look_at_queue(config).await,
        Deployment::Distributed => distributed::look_at_queue(config).await,
    }
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
        cached_channels: OWNED_CHANNELS,
    }
}
