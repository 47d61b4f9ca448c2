//! The connection to Cassandra that the store, the accounts and the migrations share. ScyllaDB speaks the same
//! protocol.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub(crate) mod testing;

use std::sync::Arc;
use std::time::Duration;

use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::{Consistency, SerialConsistency};

use super::tls;
use crate::config;

/// How long the first connections may take, contact points that don't answer included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

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
            // The one before is for open connections only, this for those that are being opened, too.
            .tcp_keepalive_interval(config.request_timeout)
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
        // The driver waits for ever where a server closes the connection during a TLS handshake, now and then.
        let built = tokio::time::timeout(CONNECT_TIMEOUT, builder.build()).await;
        let built = built.map_err(|_elapsed| format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()));
        let session = built.and_then(|built| built.map_err(|error| error.to_string()));
        let session = session.map_err(|said| unreachable(config, &said))?;
        Ok(Self { session: Arc::new(session), reads, keyspace: config.keyspace.clone() })
    }
}

/// The driver's text goes through all its layers; of what an operator can mend, the way is named.
fn unreachable(config: &config::Cassandra, said: &str) -> anyhow::Error {
    let points = config.contact_points.join(", ");
    let advice = if said.contains("Authentication is required") {
        " (set cassandra.username and cassandra.password)".to_owned()
    } else if said.contains("bad credentials") {
        " (cassandra.username or cassandra.password is wrong)".to_owned()
    } else {
        tls::advice("cassandra", config.tls.then_some(&config.cert_file), said)
    };
    anyhow::anyhow!("can't reach Cassandra at {points} (cassandra.contact_points){advice}: {said}")
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
