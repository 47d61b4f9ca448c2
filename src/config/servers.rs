//! The typed values of the sections that name other servers.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;

/// `aula worker` alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// As `server.listen`, or `off`.
    pub listen: String,
}

/// The store of a distributed deployment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cassandra {
    /// `host:port` each.
    pub contact_points: Vec<String>,
    /// Empty: that of the first node that answers.
    pub datacenter: String,
    pub keyspace: String,
    /// `datacenter:replicas` each; none: one replica.
    pub replication: Vec<String>,
    pub read_consistency: Consistency,
    pub write_consistency: Consistency,
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// Empty: no authentication.
    pub username: String,
    pub password: String,
    pub tls: bool,
    pub ca_file: PathBuf,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

/// How many replicas must have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    One,
    LocalOne,
    Two,
    Three,
    Quorum,
    LocalQuorum,
    All,
}

/// The queues of a distributed deployment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rabbitmq {
    /// `amqp://` or `amqps://`, with user, password and virtual host.
    pub url: String,
    /// Empty: none.
    pub management_url: String,
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// Tasks without a confirm.
    pub publish_window: usize,
    /// Deliveries of a task.
    pub delivery_limit: u32,
    /// Bundles of events that wait for a gateway.
    pub events_backlog: u32,
    pub ca_file: PathBuf,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

/// The search index of a distributed deployment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elasticsearch {
    pub url: String,
    pub alias: String,
    /// Empty: no authentication.
    pub username: String,
    pub password: String,
    pub ca_file: PathBuf,
}

/// Without what is secret: a configuration may end up in a log.
macro_rules! debug_without_secrets {
    ($($section:ident),*) => {$(
        impl std::fmt::Debug for $section {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($section)).finish_non_exhaustive()
            }
        }
    )*};
}
debug_without_secrets!(Cassandra, Rabbitmq, Elasticsearch);
