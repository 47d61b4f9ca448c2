use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::tasks::{Broken, all_ended, first_end};
use super::{lanes, retention};
use crate::config::Config;
use crate::server::backends::{Backends, Part, worker_options};
use crate::server::http::{self, health::Health};
use crate::server::metrics;
use crate::server::queue::Family;
use crate::server::worker::{self, Stages};

/// Those who watch, at once: probes and scrapers.
const MAX_WATCHERS: usize = 64;

/// A process that only works on tasks.
pub struct Worker {
    workers: JoinSet<()>,
    stop: CancellationToken,
    health: Health,
    listening: Option<JoinHandle<()>>,
    stop_listening: CancellationToken,
    background: JoinSet<()>,
}

impl Worker {
    /// Works on the lanes of `families`, of db_tasks on those of `shards` if some are named, and answers probes on `listener`.
    pub async fn start(
        config: Config,
        families: &[Family],
        shards: Option<&[u16]>,
        listener: Option<TcpListener>,
    ) -> anyhow::Result<Self> {
        let recorder = metrics::install().context("can't begin to count")?;
        let mut backends = Backends::open(&config, Part::Worker).await?;
        let mut background = std::mem::take(&mut backends.background);
        let bus = backends.events.bus(None);
        let health = Health::new(backends.queue.clone(), None, recorder.clone());
        if families.contains(&Family::IndexTasks) {
            retention::keep_to(&config, &backends, Arc::clone(&bus), &mut background);
        }
        let Backends { queue, store, index, answers, .. } = backends;
        let stages = Stages { queue, store, index, bus, answers };
        let there = stages.queue.shards(Family::DbTasks);
        if let Some(shard) = shards.unwrap_or_default().iter().find(|shard| **shard >= there) {
            anyhow::bail!("there is no shard {shard}: queue.shards is {there}, and they count from 0");
        }
        background.spawn(metrics::upkeep(recorder));
        let (mut workers, stop) = (JoinSet::new(), CancellationToken::new());
        let lanes = lanes(&stages, families, shards);
        if let Some(idle) = families.iter().find(|family| stages.queue.shards(**family) == 0) {
            anyhow::bail!("{idle} is not used in this deployment: gateways ask the index themselves");
        }
        for lane in lanes {
            workers.spawn(worker::run(lane, stages.clone(), worker_options(&config), stop.clone()));
        }
        let stop_listening = CancellationToken::new();
        let listening = listener.map(|listener| {
            let app = http::health::worker_app(health.clone());
            tokio::spawn(http::listen::serve(listener, app, MAX_WATCHERS, stop_listening.clone()))
        });
        Ok(Self { workers, stop, health, listening, stop_listening, background })
    }

    /// Resolves when something has ended that the worker can't go on without; see [`super::Server::broken`].
    pub async fn broken(&mut self) -> Broken {
        tokio::select! {
            broken = first_end("the workers", &mut self.workers) => broken,
            broken = first_end("the background", &mut self.background) => broken,
        }
    }

    /// Finishes what was begun; whether it ended in time. Probes are answered to the end.
    pub async fn drain(mut self, timeout: Duration) -> bool {
        self.health.drain();
        self.stop.cancel();
        let in_time = tokio::time::timeout(timeout, all_ended(&mut self.workers)).await.is_ok();
        self.stop_listening.cancel();
        if let Some(listening) = self.listening {
            // A scraper that holds its connection open is not waited for.
            listening.abort();
        }
        in_time
    }
}
