//! Steps of CQL: statement by statement, each of which may be repeated, with the schema agreed upon in between.

use async_trait::async_trait;

use super::cql;
use super::error::MigrateError;
use super::files::File;
use super::journal::Journal;
use super::lock::Lease;
use super::report::Target;
use super::target::{Runner, failed};

pub struct Cql(pub Journal);

#[async_trait]
impl Runner for Cql {
    fn target(&self) -> Target {
        Target::Cassandra
    }

    async fn statements(&self, file: &File) -> Result<Vec<String>, MigrateError> {
        let mut statements = Vec::new();
        for statement in split(file)? {
            if !self.is_done(&statement).await? {
                statements.push(statement);
            }
        }
        Ok(statements)
    }

    async fn run(&self, file: &File, lease: &Lease) -> Result<(), MigrateError> {
        // For every connection of the session.
        let entered = self.0.session().use_keyspace(self.0.keyspace(), false).await;
        entered.map_err(MigrateError::cassandra("enter the keyspace"))?;
        for statement in split(file)? {
            if self.is_done(&statement).await? {
                continue;
            }
            let changed = lease.guard(self.0.change(&statement)).await?;
            changed.map_err(|error| failed(Target::Cassandra, file, Some(&statement), error.into()))?;
        }
        Ok(())
    }
}

impl Cql {
    /// Whether it must be left out: it would fail, because an earlier attempt got so far.
    async fn is_done(&self, statement: &str) -> Result<bool, MigrateError> {
        match cql::added_column(statement) {
            Some((table, column)) => self.0.has_column(&table, &column).await,
            None => Ok(false),
        }
    }
}

fn split(file: &File) -> Result<Vec<String>, MigrateError> {
    cql::split(file.text).map_err(|error| failed(Target::Cassandra, file, None, error.into()))
}
