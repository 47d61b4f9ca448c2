//! The connection to Cassandra that the store, the accounts and the migrations share. ScyllaDB speaks the same
//! protocol.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub(crate) mod testing;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::{Consistency, SerialConsistency};

use super::tls;
use crate::config;

/// A session with the cluster. Clones share it.
#[derive(Clone)]
pub struct Cassandra {
    pub session: Arc<Session>,
    /// For statements that only read; writes go by the session's default.
    pub reads: ExecutionProfileHandle,
    pub keyspace: String,
}

impl Cassandra {
    /// Connects, and enters the keyspace if `enter`: it must be there then.
    pub async fn connect(config: &config::Cassandra, enter: bool) -> anyhow::Result<Self> {
        let writes = profile(config, config.write_consistency).into_handle_with_label("writes".into());
        let reads = profile(config, config.read_consistency).into_handle_with_label("reads".into());
        let mut builder = SessionBuilder::new()
            .known_nodes(&config.contact_points)
            .default_execution_profile_handle(writes)
            .connection_timeout(config.request_timeout)
            // A connection whose other end is gone without a word answers nothing, and is not replaced before that is
            // noticed: by default after a minute.
            .keepalive_interval(config.request_timeout)
            .keepalive_timeout(config.request_timeout)
            .tcp_nodelay(true)
            // The driver asks for the schema to route by token: the keyspace's replication is all it needs.
            .keyspaces_to_fetch([&config.keyspace])
            .schema_agreement_interval(Duration::from_millis(100))
            // A node that missed a change while it was away asks for it a minute after it came back, not before.
            .schema_agreement_timeout(Duration::from_secs(90));
        if !config.datacenter.is_empty() {
            builder = builder.prefer_datacenter(config.datacenter.clone());
        }
        if !config.username.is_empty() {
            builder = builder.user(&config.username, &config.password);
        }
        if config.tls {
            builder = builder.tls_context(Some(tls::client(&config.ca_file, &config.cert_file, &config.key_file)?));
        }
        if enter {
            builder = builder.use_keyspace(&config.keyspace, false);
        }
        let session = builder.build().await.with_context(|| {
            format!("can't reach Cassandra at {} (cassandra.contact_points)", config.contact_points.join(", "))
        })?;
        Ok(Self { session: Arc::new(session), reads, keyspace: config.keyspace.clone() })
    }
}

/// The driver's default policy repeats only idempotent statements.
fn profile(config: &config::Cassandra, consistency: config::Consistency) -> ExecutionProfile {
    ExecutionProfile::builder()
        .consistency(level(consistency))
        .serial_consistency(Some(serial(config.write_consistency)))
        .request_timeout(Some(config.request_timeout))
        .build()
}

fn level(consistency: config::Consistency) -> Consistency {
    match consistency {
        config::Consistency::One => Consistency::One,
        config::Consistency::LocalOne => Consistency::LocalOne,
        config::Consistency::Two => Consistency::Two,
        config::Consistency::Three => Consistency::Three,
        config::Consistency::Quorum => Consistency::Quorum,
        config::Consistency::LocalQuorum => Consistency::LocalQuorum,
        config::Consistency::All => Consistency::All,
    }
}

/// Lightweight transactions span as far as ordinary writes do.
fn serial(writes: config::Consistency) -> SerialConsistency {
    match writes {
        config::Consistency::LocalOne | config::Consistency::LocalQuorum => SerialConsistency::LocalSerial,
        _ => SerialConsistency::Serial,
    }
}
