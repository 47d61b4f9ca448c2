//! A process from its start to its end: a server, or a [`Worker`].

mod retention;
mod tasks;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::FromRef;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::auth::Auth;
use super::backends::{Backends, Part, make_data_dir, worker_options};
use super::events::EventSink;
use super::gateway::Gateway;
use super::http::health::Health;
use super::lock::ServerLock;
use super::queue::{Family, Lane};
use super::socket::Sockets;
use super::worker::{self as work, Stages};
use super::{http, metrics, socket};
use crate::config::Config;

pub use tasks::Broken;
use tasks::{all_ended, first_end};
pub use worker::Worker;

/// How often revocations are looked for, while somebody is connected.
const FOLLOW: Duration = Duration::from_millis(500);
/// How often what has expired is forgotten.
const PRUNE: Duration = Duration::from_secs(3600);
/// Between the word that the server goes away and the close: what is under way is answered meanwhile.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// A server that accepts connections.
pub struct Server {
    // Dropped last but for the lock: everything below works through it.
    config: Arc<Config>,
    gateway: Arc<Gateway>,
    sockets: Sockets,
    health: Health,
    workers: JoinSet<()>,
    stop_workers: CancellationToken,
    stop_listening: CancellationToken,
    listening: tokio::task::JoinHandle<()>,
    background: JoinSet<()>,
    _lock: ServerLock,
}

#[derive(Clone)]
struct State {
    auth: Auth,
    gateway: Arc<Gateway>,
    sockets: Sockets,
    health: Health,
}

impl FromRef<State> for Auth {
    fn from_ref(state: &State) -> Self {
        state.auth.clone()
    }
}
impl FromRef<State> for Arc<Gateway> {
    fn from_ref(state: &State) -> Self {
        Arc::clone(&state.gateway)
    }
}
impl FromRef<State> for Sockets {
    fn from_ref(state: &State) -> Self {
        state.sockets.clone()
    }
}
impl FromRef<State> for Health {
    fn from_ref(state: &State) -> Self {
        state.health.clone()
    }
}

impl Server {
    /// Opens the data directory, starts the workers if `with_workers`, and serves `listener`.
    pub async fn start(config: Config, listener: TcpListener, with_workers: bool) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let data_dir = &config.data_dir;
        let shown = data_dir.display();
        Backends::check(&config)?;
        make_data_dir(data_dir).with_context(|| format!("can't make the data directory {shown}"))?;
        let lock = ServerLock::take(data_dir)?;
        let recorder = metrics::install().context("can't begin to count")?;
        let part = if with_workers { Part::Whole } else { Part::Gateway };
        let mut backends = Backends::open(&config, part).await?;

        let address = listener.local_addr()?;
        let auth = backends.auth(&config, config.auth.signup.is_open(address.ip()))?;
        let (queue, store) = (Arc::clone(&backends.queue), Arc::clone(&backends.store));
        let search = Arc::clone(&backends.search);
        let gateway =
            Gateway::new(Arc::clone(&config), auth.clone(), queue, store, search, backends.events.between_gateways());
        let sink: Arc<dyn EventSink> = gateway.clone();
        let events = backends.events.source().await?;

        let mut background = std::mem::take(&mut backends.background);
        background.spawn(events.run(Arc::clone(&sink)));
        background.spawn(metrics::upkeep(recorder.clone()));
        background.spawn(Arc::clone(&gateway).write_answers());
        background.spawn(Arc::clone(&gateway).repair_when_asked());
        background.spawn(follow_revocations(Arc::clone(&gateway)));
        background.spawn(prune(auth.clone()));
        let (receipts, queue) = (Arc::clone(gateway.receipts()), Arc::clone(&backends.queue));
        background.spawn(async move { receipts.run(queue).await });

        let health = Health::new(Arc::clone(&backends.queue), Some(Arc::clone(&gateway)), recorder);
        let mut workers = JoinSet::new();
        let stop_workers = CancellationToken::new();
        if with_workers {
            let bus = backends.events.bus(Some(sink));
            retention::keep_to(&config, &backends, Arc::clone(&bus), &mut background);
            let Backends { queue, store, index, answers, .. } = backends;
            let stages = Stages { queue, store, index, bus, answers };
            for lane in lanes(&stages, &Family::ALL, None) {
                workers.spawn(work::run(lane, stages.clone(), worker_options(&config), stop_workers.clone()));
            }
        }

        let sockets = Sockets::new(Arc::clone(&gateway));
        let state = State { auth, gateway: Arc::clone(&gateway), sockets: sockets.clone(), health: health.clone() };
        let stop_listening = CancellationToken::new();
        let most = config.server.max_connections;
        let listening = tokio::spawn(http::listen::serve(listener, app(state), most, stop_listening.clone()));
        Ok(Self {
            config,
            gateway,
            sockets,
            health,
            workers,
            stop_workers,
            stop_listening,
            listening,
            background,
            _lock: lock,
        })
    }

    /// Resolves when something has ended that the server can't go on without. What was begun is in the queue, and the
    /// next process goes on with it: there is nothing to drain.
    pub async fn broken(&mut self) -> Broken {
        tokio::select! {
            broken = first_end("the workers", &mut self.workers) => broken,
            broken = first_end("the gateway", &mut self.background) => broken,
            ended = &mut self.listening => match ended {
                Ok(()) => Broken::Ended("the listener"),
                Err(_panicked) => Broken::Panicked("the listener"),
            },
        }
    }

    /// Stops accepting, sends everybody away, finishes what was begun. Whether all of that ended in time; what did
    /// not is still in the queue.
    pub async fn drain(mut self) -> bool {
        let in_time = tokio::time::timeout(self.config.server.drain_timeout, self.finish()).await.is_ok();
        self.background.shutdown().await;
        in_time
    }

    async fn finish(&mut self) {
        self.health.drain();
        self.stop_listening.cancel();
        self.gateway.announce_drain();
        tokio::time::sleep(LAST_ANSWERS).await;
        self.gateway.send_away();
        self.sockets.ended().await;
        if let Err(error) = (&mut self.listening).await {
            tracing::error!(%error, "the listener did not end well");
        }
        self.gateway.receipts().flush(self.gateway.queue().as_ref());
        self.stop_workers.cancel();
        all_ended(&mut self.workers).await;
    }
}

fn app(state: State) -> Router {
    let routes = Router::new()
        .merge(socket::router())
        .merge(http::accounts::router())
        .merge(http::channels::router())
        .merge(http::openapi::router())
        .merge(http::health::router());
    http::refuse_the_rest(routes).with_state(state)
}

/// The lanes of some families, or of some of their shards.
pub fn lanes(stages: &Stages, families: &[Family], shards: Option<&[u16]>) -> Vec<Lane> {
    let of_family = |family: &Family| {
        let family = *family;
        (0..stages.queue.shards(family)).map(move |shard| Lane { family, shard })
    };
    let wanted = |lane: &Lane| lane.family != Family::DbTasks || shards.is_none_or(|list| list.contains(&lane.shard));
    families.iter().flat_map(of_family).filter(wanted).collect()
}

/// Closes the sockets of those whose rights were taken back, by this process or another.
async fn follow_revocations(gateway: Arc<Gateway>) {
    const PAGE: u32 = 256;
    let accounts = Arc::clone(gateway.auth().accounts());
    let mut cursor = None;
    loop {
        // A socket authenticates after looking at the same table: with nobody connected there is nobody to close.
        if gateway.session_count() > 0 || cursor.is_none() {
            let found = match cursor {
                None => accounts.latest_revocation_id().await.map(|latest| {
                    cursor = Some(latest);
                    Vec::new()
                }),
                Some(after) => accounts.revocations_after(after, PAGE).await,
            };
            match found {
                Ok(revocations) => {
                    for revocation in revocations {
                        gateway.revoke(&revocation).await;
                        cursor = Some(revocation.id);
                    }
                }
                Err(error) => tracing::warn!(%error, "revocations can't be read"),
            }
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

async fn prune(auth: Auth) {
    loop {
        loop {
            match auth.prune().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "what has expired can't be forgotten");
                    break;
                }
            }
        }
        tokio::time::sleep(PRUNE).await;
    }
}
