//! The keyspace and the migrator's own tables in it: what is applied, and who migrates.
//!
//! They are no steps, because the steps are recorded in them and applied under their lock. So they are made without
//! a lock, perhaps by several processes at once. To make a keyspace twice is harmless. A table made twice at the same
//! time, on two nodes, gets two ids, and the nodes disagree about it for good (CASSANDRA-5202 and others); with the id
//! said in the statement it is the same table, whoever makes it. Ids are unique in a cluster, so the keyspace's name
//! is part of it.

use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;
use scylla::value::CqlTimestamp;
use uuid::Uuid;

use super::compare::Row;
use super::error::MigrateError;
use super::files::{File, Kind};
use super::report::Target;
use crate::config;
use crate::message::Millis;
use crate::server::cassandra::Cassandra;

/// For statements that change the schema: nodes answer only when they have written it.
const SCHEMA_CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// The migrator's connection.
#[derive(Clone)]
pub struct Journal {
    cassandra: Cassandra,
    keyspace: String,
    replication: String,
}

impl Journal {
    /// Errors: a keyspace or a replication that can't be written in CQL.
    pub fn new(cassandra: Cassandra, config: &config::Cassandra) -> Result<Self, MigrateError> {
        let keyspace = keyspace(&config.keyspace)?;
        Ok(Self { cassandra, keyspace, replication: replication(&config.replication)? })
    }

    pub fn session(&self) -> &Session {
        &self.cassandra.session
    }

    pub fn keyspace(&self) -> &str {
        &self.keyspace
    }

    /// What makes the keyspace and the two tables, as far as they are missing.
    pub async fn bootstrap_plan(&self) -> Result<Vec<String>, MigrateError> {
        let keyspace = &self.keyspace;
        let mut statements = Vec::new();
        if !self.has_keyspace().await? {
            statements
                .push(format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {}", self.replication));
        }
        let (migrations, lock) = ("schema_migrations", "schema_lock");
        if !self.has_table(migrations).await? {
            statements.push(format!(
                "CREATE TABLE IF NOT EXISTS {keyspace}.{migrations} (\n    target text,\n    version int,\n    \
                 name text,\n    checksum text,\n    kind text,\n    applied_at timestamp,\n    took_ms bigint,\n    \
                 PRIMARY KEY ((target), version)\n) WITH ID = {}",
                self.table_id(migrations)
            ));
        }
        if !self.has_table(lock).await? {
            statements.push(format!(
                "CREATE TABLE IF NOT EXISTS {keyspace}.{lock} (\n    name text PRIMARY KEY,\n    id text,\n    \
                 host text,\n    pid int,\n    since timestamp,\n    lease int\n) WITH ID = {}",
                self.table_id(lock)
            ));
        }
        Ok(statements)
    }

    /// Makes what is missing; any number of processes may do so at once.
    pub async fn bootstrap(&self) -> Result<(), MigrateError> {
        for statement in self.bootstrap_plan().await? {
            if let Err(error) = self.change(&statement).await {
                // Somebody was faster, in a way that this node could not see yet: that is what we wanted.
                if !matches!(db_error(&error), Some(DbError::AlreadyExists { .. })) && !self.came_into_being().await? {
                    return Err(MigrateError::cassandra("make its keyspace and tables for migrations")(error));
                }
            }
        }
        // Those that others made are known to the node they asked, not yet to all.
        self.agree().await.map_err(MigrateError::cassandra("await that all nodes have the same schema"))
    }

    async fn came_into_being(&self) -> Result<bool, MigrateError> {
        self.agree().await.map_err(MigrateError::cassandra("await that all nodes have the same schema"))?;
        Ok(self.bootstrap_plan().await?.is_empty())
    }

    fn table_id(&self, table: &str) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("aula {}.{table}", self.keyspace).as_bytes())
    }

    async fn has_keyspace(&self) -> Result<bool, MigrateError> {
        let cql = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
        self.is_there(cql, (&self.keyspace,)).await
    }

    pub async fn has_table(&self, table: &str) -> Result<bool, MigrateError> {
        let cql = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";
        self.is_there(cql, (&self.keyspace, table)).await
    }

    pub async fn has_column(&self, table: &str, column: &str) -> Result<bool, MigrateError> {
        let cql = "SELECT column_name FROM system_schema.columns \
                   WHERE keyspace_name = ? AND table_name = ? AND column_name = ?";
        self.is_there(cql, (&self.keyspace, table, column)).await
    }

    async fn is_there(&self, cql: &str, values: impl SerializeRow) -> Result<bool, MigrateError> {
        let mut statement = Statement::new(cql);
        // The schema is the asked node's own table; there are no replicas to compare.
        statement.set_consistency(Consistency::One);
        let found = self.session().query_unpaged(statement, values).await;
        let found = found.map_err(MigrateError::cassandra("read its schema"))?.into_rows_result();
        Ok(found.map_err(MigrateError::cassandra("read its schema"))?.rows_num() > 0)
    }

    /// What is recorded for `target`, ascending; nothing if the table isn't there.
    pub async fn rows(&self, target: Target) -> Result<Vec<Row>, MigrateError> {
        if !self.has_table("schema_migrations").await? {
            return Ok(Vec::new());
        }
        let cql = format!(
            "SELECT version, name, checksum, kind, applied_at FROM {}.schema_migrations WHERE target = ?",
            self.keyspace
        );
        let mut statement = Statement::new(cql);
        // With the write's, more than half of all replicas: in another datacenter as well.
        statement.set_consistency(Consistency::Quorum);
        let found = self.session().query_unpaged(statement, (target.to_string(),)).await;
        let rows = found.map_err(anyhow::Error::from).and_then(read_rows);
        rows.map_err(MigrateError::cassandra("read schema_migrations"))
    }

    /// The statement that records a step.
    pub fn record_statement(&self, target: Target, file: &File, took_ms: i64) -> String {
        self.row_statement(target, (file.version, file.name), &file.checksum(), file.kind(), took_ms)
    }

    /// Names and checksums are our own and need no quoting.
    fn row_statement(
        &self,
        target: Target,
        (version, name): (u32, &str),
        checksum: &str,
        kind: Kind,
        took_ms: i64,
    ) -> String {
        format!(
            "INSERT INTO {}.schema_migrations (target, version, name, checksum, kind, applied_at, took_ms) VALUES \
             ('{target}', {version}, '{name}', '{checksum}', '{}', toTimestamp(now()), {took_ms})",
            self.keyspace,
            kind.name()
        )
    }

    pub async fn record(&self, target: Target, file: &File, took_ms: i64) -> Result<(), MigrateError> {
        self.write(self.record_statement(target, file, took_ms)).await
    }

    /// For a schema without versions: a row that is overwritten each time.
    pub async fn record_state(
        &self,
        target: Target,
        name: &str,
        state: &str,
        took_ms: i64,
    ) -> Result<(), MigrateError> {
        self.write(self.row_statement(target, (0, name), state, Kind::Expand, took_ms)).await
    }

    async fn write(&self, cql: String) -> Result<(), MigrateError> {
        let mut statement = Statement::new(cql);
        // As the reads.
        statement.set_consistency(Consistency::Quorum);
        // The same row with the same contents.
        statement.set_is_idempotent(true);
        self.session().query_unpaged(statement, ()).await.map_err(MigrateError::cassandra("record a step"))?;
        Ok(())
    }

    /// Runs a statement that changes the schema, once all nodes agree on the present one, and returns when they agree
    /// on the new one.
    pub async fn change(&self, cql: &str) -> Result<(), ExecutionError> {
        self.agree().await?;
        let mut statement = Statement::new(cql);
        statement.set_request_timeout(Some(SCHEMA_CHANGE_TIMEOUT));
        // Whether a statement that timed out was executed is unknown: the driver must not repeat it elsewhere meanwhile.
        statement.set_is_idempotent(false);
        self.session().query_unpaged(statement, ()).await?;
        self.agree().await
    }

    /// Waits until all nodes that can be reached have one schema, as long as the session's timeout (90 s) allows.
    async fn agree(&self) -> Result<(), ExecutionError> {
        self.session().await_schema_agreement().await?;
        Ok(())
    }

    /// A request about the lock.
    pub(super) async fn locking(&self, cql: &str, values: impl SerializeRow) -> Result<QueryResult, ExecutionError> {
        let mut statement = Statement::new(cql);
        // The whole cluster's, whatever the configuration says: local ones would give each datacenter a lock.
        statement.set_serial_consistency(Some(scylla::statement::SerialConsistency::Serial));
        statement.set_consistency(Consistency::Quorum);
        self.session().query_unpaged(statement, values).await
    }
}

fn read_rows(answer: QueryResult) -> anyhow::Result<Vec<Row>> {
    let answer = answer.into_rows_result()?;
    let mut rows = Vec::new();
    for row in answer.rows::<(i32, String, String, String, CqlTimestamp)>()? {
        let (version, name, checksum, kind, at) = row?;
        let version = u32::try_from(version)?;
        rows.push(Row { version, name, checksum, kind: Kind::named(&kind), applied_at: Millis(at.0) });
    }
    Ok(rows)
}

/// What the server answered, if it was an answer.
pub(super) fn db_error(error: &ExecutionError) -> Option<&DbError> {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _)) => Some(error),
        _ => None,
    }
}

/// Names that need no quoting (<https://cassandra.apache.org/doc/latest/cassandra/developing/cql/ddl.html>).
fn keyspace(name: &str) -> Result<String, MigrateError> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain && name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.len() <= 48 {
        return Ok(name.to_lowercase());
    }
    let problem = format!("{name:?}: at most 48 letters, digits and underscores, a letter first");
    Err(MigrateError::Configuration { key: "cassandra.keyspace", problem })
}

fn replication(datacenters: &[String]) -> Result<String, MigrateError> {
    if datacenters.is_empty() {
        return Ok("{'class': 'SimpleStrategy', 'replication_factor': 1}".to_owned());
    }
    let mut text = "{'class': 'NetworkTopologyStrategy'".to_owned();
    for entry in datacenters {
        let split = entry.rsplit_once(':').map(|(name, replicas)| (name.trim(), replicas.trim().parse::<u8>()));
        let (name, replicas) = match split {
            Some((name, Ok(replicas))) if !name.is_empty() && !name.contains('\'') && replicas > 0 => (name, replicas),
            _ => {
                let problem = format!("{entry:?}: a datacenter and its number of replicas, such as dc1:3");
                return Err(MigrateError::Configuration { key: "cassandra.replication", problem });
            }
        };
        text.push_str(&format!(", '{name}': {replicas}"));
    }
    Ok(text + "}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replication_is_said_as_in_the_configuration() {
        let said = |entries: &[&str]| replication(&entries.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>());
        assert_eq!(said(&[]).unwrap(), "{'class': 'SimpleStrategy', 'replication_factor': 1}");
        assert_eq!(said(&["dc1:3", "dc 2: 2"]).unwrap(), "{'class': 'NetworkTopologyStrategy', 'dc1': 3, 'dc 2': 2}");
        for bad in ["dc1", "dc1:", "dc1:0", ":3", "d'c:3"] {
            assert!(said(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn keyspaces_are_plain_names() {
        assert_eq!(keyspace("Aula_2").unwrap(), "aula_2");
        for bad in ["", "2aula", "a;b", "a-b", &"a".repeat(49)] {
            assert!(keyspace(bad).is_err(), "{bad}");
        }
    }
}
