//! For those who watch: `/healthz`, `/readyz`, `/metrics`, and a word for those who come by with a browser.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::server::gateway::Gateway;
use crate::server::metrics::process;
use crate::server::queue::TaskQueue;

/// How long the queue may take to say that it can be written.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the probes ask.
#[derive(Clone)]
pub struct Health {
    queue: Arc<dyn TaskQueue>,
    /// None in a process that only works.
    gateway: Option<Arc<Gateway>>,
    metrics: PrometheusHandle,
    draining: Arc<AtomicBool>,
}

impl Health {
    pub fn new(queue: Arc<dyn TaskQueue>, gateway: Option<Arc<Gateway>>, metrics: PrometheusHandle) -> Self {
        Self { queue, gateway, metrics, draining: Arc::default() }
    }

    /// From now on the process is not ready: a balancer sends nobody here any more.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// All that a process answers that only works.
pub fn worker_app(health: Health) -> Router {
    super::refuse_the_rest(probes::<Health>()).with_state(health)
}

pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Health: FromRef<S>,
{
    Router::new().route("/", get(greeting)).merge(probes())
}

fn probes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Health: FromRef<S>,
{
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

async fn greeting() -> &'static str {
    "aula is here.\n\n\
     Clients connect to /ws with the subprotocol aula.v1.json or aula.v1.msgpack.\n\
     The HTTP interface is described in /api/v1/openapi.json.\n"
}

/// Ready means: it takes connections or works, and a task would be accepted.
async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    if health.draining.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".into());
    }
    match tokio::time::timeout(PROBE_TIMEOUT, health.queue.probe()).await {
        Ok(Ok(())) => (StatusCode::OK, "ready\n".into()),
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        Err(_elapsed) => (StatusCode::SERVICE_UNAVAILABLE, "the queue does not answer\n".into()),
    }
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    if let Some(gateway) = &health.gateway {
        metrics::gauge!("aula_sessions").set(gateway.session_count() as f64);
        metrics::gauge!("aula_rooms").set(gateway.room_count() as f64);
    }
    match health.queue.stats().await {
        Ok(lanes) => {
            for lane in lanes {
                let labels = [("queue", lane.queue), ("shard", lane.shard.to_string())];
                metrics::gauge!("aula_queue_depth", &labels).set(lane.depth as f64);
                let age = lane.oldest_ms.unwrap_or(0) as f64 / 1000.0;
                metrics::gauge!("aula_queue_oldest_seconds", &labels).set(age);
                metrics::gauge!("aula_queue_dead_letters", &labels).set(lane.dead_letters as f64);
            }
        }
        Err(error) => tracing::warn!(%error, "the queues can't be measured"),
    }
    let mut text = health.metrics.render();
    match tokio::task::spawn_blocking(process::exposition).await {
        Ok(figures) => text.push_str(&figures),
        Err(error) => tracing::warn!(%error, "the process's own use can't be measured"),
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
