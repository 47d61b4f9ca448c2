//! Cassandra: reachable, of a known version, with all its nodes, its clock.

use std::time::Instant;

use scylla::client::session::Session;
use scylla::value::CqlTimestamp;

use super::finding::Finding;
use super::{clock, version};
use crate::config::Config;
use crate::message::Millis;
use crate::server::cassandra::Cassandra;

const CHECK: &str = "cassandra";

pub async fn check(config: &Config) -> Vec<Finding> {
    let points = config.cassandra.contact_points.join(", ");
    let cassandra = match Cassandra::connect(&config.cassandra, false).await {
        Ok(cassandra) => cassandra,
        Err(error) => {
            let cure = "is it up, and is cassandra.contact_points right? `nodetool status` there; \
                        runbooks/cassandra-down.md";
            return vec![Finding::problem(CHECK, format!("{error:#}"), cure)];
        }
    };
    let session = &cassandra.session;
    let began = Instant::now();
    let version = local_version(session).await;
    let latency = began.elapsed();
    let mut findings = match version {
        Ok(version) => vec![
            Finding::ok(CHECK, format!("{points} answers in {:.1} ms", latency.as_secs_f64() * 1_000.0)),
            judge_version(session, &version).await,
        ],
        Err(error) => {
            let cure = "`nodetool status` on a node; runbooks/cassandra-down.md";
            return vec![Finding::problem(
                CHECK,
                format!("{points} takes connections and no queries: {error:#}"),
                cure,
            )];
        }
    };
    findings.push(nodes(session));
    findings.push(clock(session).await);
    findings
}

async fn local_version(session: &Session) -> anyhow::Result<String> {
    let rows = session.query_unpaged("SELECT release_version FROM system.local", ()).await?.into_rows_result()?;
    Ok(rows.first_row::<(String,)>()?.0)
}

/// ScyllaDB tells the version of Cassandra that it is compatible with, which says nothing of its own.
async fn judge_version(session: &Session, version: &str) -> Finding {
    let asked = session.query_unpaged("SELECT version FROM system.versions WHERE key = 'local'", ()).await;
    let scylla = asked.ok().and_then(|rows| rows.into_rows_result().ok()?.first_row::<(String,)>().ok());
    match scylla {
        Some((version,)) => Finding::ok("cassandra version", format!("ScyllaDB {version}")),
        None => version::CASSANDRA.judge("cassandra version", version),
    }
}

fn nodes(session: &Session) -> Finding {
    let state = session.get_cluster_state();
    let nodes = state.get_nodes_info();
    let down: Vec<String> =
        nodes.iter().filter(|node| !node.is_connected()).map(|node| node.address.to_string()).collect();
    if down.is_empty() {
        return Finding::ok("cassandra nodes", format!("all {} can be reached", nodes.len()));
    }
    let found = format!("{} of {} can't be reached: {}", down.len(), nodes.len(), down.join(", "));
    Finding::warning("cassandra nodes", found, "`nodetool status`; runbooks/cassandra-down.md")
}

async fn clock(session: &Session) -> Finding {
    const CHECK: &str = "cassandra clock";
    let asked = Millis::now();
    let rows = session.query_unpaged("SELECT toTimestamp(now()) FROM system.local", ()).await;
    let answered = Millis::now();
    let read = rows.map_err(anyhow::Error::from).and_then(|rows| Ok(rows.into_rows_result()?));
    match read.and_then(|rows| Ok(rows.first_row::<(CqlTimestamp,)>()?)) {
        Ok((CqlTimestamp(theirs),)) => clock::judge(CHECK, Millis(theirs), asked, answered, 1),
        Err(error) => Finding::unknown(CHECK, format!("{error:#}"), "`date -u` on both hosts"),
    }
}
