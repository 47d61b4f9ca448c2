//! RabbitMQ, Cassandra and Elasticsearch.

use std::sync::Arc;

use super::{Backends, Part};
use crate::config::Config;
use crate::server::queue::TaskQueue;

pub(super) async fn open(_config: &Config, _part: Part) -> anyhow::Result<Backends> {
    anyhow::bail!("this build serves the embedded backends alone")
}

pub(super) async fn look_at_queue(_config: &Config) -> anyhow::Result<Arc<dyn TaskQueue>> {
    anyhow::bail!("this build serves the embedded backends alone")
}
