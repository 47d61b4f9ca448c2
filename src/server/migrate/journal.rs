//! The keyspace and the migrator's own tables in it: what is applied, and who migrates.
//!
//! They are no steps, because the steps are recorded in them and applied under their lock. So they are made without
//! a lock, perhaps by several processes at once. To make a keyspace twice is harmless. A table made twice at the same
//! time, on two nodes, gets two ids, and the nodes disagree about it for good (CASSANDRA-5202 and others); with the id
//! said in the statement it is the same table, whoever makes it. Ids are unique in a cluster, so the keyspace's name
//! is part of it. ScyllaDB takes the id as well, and puts changes of the schema in one order anyway.
//!
//! A node lists a table before it can be used there: it writes the schema down, then takes it into use. So who finds it
//! listed asks for some time, until it is known (`query`).

use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::response::query_result::QueryResult;
use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;
use scylla::value::CqlTimestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::compare::Row;
use super::error::MigrateError;
use super::files::{File, Kind};
use super::report::Target;
use crate::config;
use crate::message::Millis;
use crate::server::cassandra::Cassandra;
use crate::server::worker::Backoff;

/// For statements that change the schema: nodes answer only when they have written it.
const SCHEMA_CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// From a table's being listed to its being usable: less than a second, if the node isn't busy.
const USABLE_WITHIN: Duration = Duration::from_secs(20);

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
        let begun = Instant::now();
        let mut backoff = Backoff::new();
        for statement in self.bootstrap_plan().await? {
            while let Err(error) = self.change(&statement).await {
                // Somebody was faster, in a way that this node could not see yet: that is what we wanted.
                if matches!(db_error(&error), Some(DbError::AlreadyExists { .. })) || self.came_into_being().await? {
                    break;
                }
                // Or is at it, and the keyspace is listed already, but can't be used.
                if !is_not_usable_yet(&error) || begun.elapsed() >= USABLE_WITHIN {
                    return Err(MigrateError::cassandra("make its keyspace and tables for migrations")(error));
                }
                backoff.pause().await;
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
        let keyspace = &self.keyspace;
        let cql = format!("SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = '{keyspace}'");
        self.is_there(cql).await
    }

    pub async fn has_table(&self, table: &str) -> Result<bool, MigrateError> {
        let keyspace = &self.keyspace;
        self.is_there(format!(
            "SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{keyspace}' AND table_name = '{table}'"
        ))
        .await
    }

    pub async fn has_column(&self, table: &str, column: &str) -> Result<bool, MigrateError> {
        let keyspace = &self.keyspace;
        self.is_there(format!(
            "SELECT column_name FROM system_schema.columns \
             WHERE keyspace_name = '{keyspace}' AND table_name = '{table}' AND column_name = '{column}'"
        ))
        .await
    }

    async fn is_there(&self, cql: String) -> Result<bool, MigrateError> {
        let mut statement = Statement::new(cql);
        // The schema is the asked node's own table; there are no replicas to compare.
        statement.set_consistency(Consistency::One);
        let found = self.query(statement).await;
        let found = found.map_err(MigrateError::cassandra("read its schema"))?.into_rows_result();
        Ok(found.map_err(MigrateError::cassandra("read its schema"))?.rows_num() > 0)
    }

    /// Runs a statement about tables that are listed, and waits a while if they can't be used yet. It may be run twice.
    ///
    /// Values are written into the statement. With values beside it, it would have to be prepared, and nodes forget
    /// what was prepared whenever a table of the keyspace is made: there is no end of that while others migrate.
    pub(super) async fn query(&self, statement: Statement) -> Result<QueryResult, ExecutionError> {
        let begun = Instant::now();
        let mut backoff = Backoff::new();
        loop {
            match self.session().query_unpaged(statement.clone(), ()).await {
                Err(error) if is_not_usable_yet(&error) && begun.elapsed() < USABLE_WITHIN => {
                    tracing::debug!(%error, "asking again");
                    backoff.pause().await;
                }
                outcome => return outcome,
            }
        }
    }

    /// What is recorded for `target`, ascending; nothing if the table isn't there.
    pub async fn rows(&self, target: Target) -> Result<Vec<Row>, MigrateError> {
        if !self.has_table("schema_migrations").await? {
            return Ok(Vec::new());
        }
        let cql = format!(
            "SELECT version, name, checksum, kind, applied_at FROM {}.schema_migrations WHERE target = '{target}'",
            self.keyspace
        );
        let mut statement = Statement::new(cql);
        // With the write's, more than half of all replicas: in another datacenter as well.
        statement.set_consistency(Consistency::Quorum);
        let found = self.query(statement).await;
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

    /// The statement that records the state of a schema without versions: a row that is overwritten each time.
    pub fn state_statement(&self, target: Target, name: &str, state: &str, took_ms: i64) -> String {
        self.row_statement(target, (0, name), state, Kind::Expand, took_ms)
    }

    pub async fn record_state(
        &self,
        target: Target,
        name: &str,
        state: &str,
        took_ms: i64,
    ) -> Result<(), MigrateError> {
        self.write(self.state_statement(target, name, state, took_ms)).await
    }

    async fn write(&self, cql: String) -> Result<(), MigrateError> {
        let mut statement = Statement::new(cql);
        // As the reads.
        statement.set_consistency(Consistency::Quorum);
        // The same row with the same contents.
        statement.set_is_idempotent(true);
        self.query(statement).await.map_err(MigrateError::cassandra("record a step"))?;
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
    pub(super) async fn locking(&self, cql: String) -> Result<QueryResult, ExecutionError> {
        let mut statement = Statement::new(cql);
        // The whole cluster's, whatever the configuration says: local ones would give each datacenter a lock.
        statement.set_serial_consistency(Some(scylla::statement::SerialConsistency::Serial));
        statement.set_consistency(Consistency::Quorum);
        self.query(statement).await
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

/// Whether a node has perhaps not taken a table or its keyspace into use, which it lists: it says that there is none, or
/// stumbles over it.
fn is_not_usable_yet(error: &ExecutionError) -> bool {
    matches!(db_error(error), Some(DbError::Invalid | DbError::ServerError | DbError::Unprepared { .. }))
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
