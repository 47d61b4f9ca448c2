//! Steps of CQL: statement by statement, each of which may be repeated, with the schema agreed upon in between.

use async_trait::async_trait;

use super::cql;
use super::error::MigrateError;
use super::files::File;
use super::journal::Journal;
use super::lock::Lease;
use super::report::{Planned, Target};
use super::target::{Runner, failed};

pub struct Cql(pub Journal);

#[async_trait]
impl Runner for Cql {
    fn target(&self) -> Target {
        Target::Cassandra
    }

    fn statements(&self, file: &File) -> anyhow::Result<Vec<String>> {
        Ok(cql::split(file.text)?)
    }

    /// The keyspace and the migrator's tables, and the `USE` for the steps, which don't name the keyspace.
    async fn preparation(&self) -> Result<Option<Planned>, MigrateError> {
        let mut statements = self.0.bootstrap_plan().await?;
        statements.push(format!("USE {}", self.0.keyspace()));
        Ok(Some(Planned {
            target: Target::Cassandra,
            version: None,
            name: "keyspace".to_owned(),
            checksum: String::new(),
            statements,
            record: None,
        }))
    }

    async fn run(&self, file: &File, lease: &Lease) -> Result<(), MigrateError> {
        let fail = |statement: Option<&str>, error| failed(Target::Cassandra, file, statement, error);
        let statements = self.statements(file).map_err(|error| fail(None, error))?;
        // For every connection of the session.
        let entered = self.0.session().use_keyspace(self.0.keyspace(), false).await;
        entered.map_err(MigrateError::cassandra("enter the keyspace"))?;
        for statement in statements {
            if let Some((table, column)) = cql::added_column(&statement)
                && self.0.has_column(&table, &column).await?
            {
                tracing::debug!(table, column, "the column is there already");
                continue;
            }
            lease.guard(self.0.change(&statement)).await?.map_err(|error| fail(Some(&statement), error.into()))?;
        }
        Ok(())
    }
}
