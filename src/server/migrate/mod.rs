//! Versioned schemas of the servers of a distributed deployment, and what all schemas have in common.
//!
//! The steps are the files below `schema/`, built into the binary. What has been applied to Cassandra and
//! Elasticsearch is recorded in Cassandra's table `schema_migrations`; RabbitMQ's topology has no versions and is
//! compared with what the broker has. Everything happens under one lock in Cassandra, so that any number of processes
//! may try at once. Looking creates and changes nothing.
//!
//! A step is not a transaction: Cassandra knows none for schemas. So each of its statements may be repeated, and a
//! step that was interrupted is run again from its first statement. See `schema/README.md`.
//!
//! | file | idea |
//! |---|---|
//! | `report.rs`, `error.rs` | what is said |
//! | `files.rs`, `cql.rs` | the steps, and CQL as statements |
//! | `compare.rs` | steps beside what is recorded |
//! | `journal.rs`, `lock.rs` | the tables in Cassandra: what is recorded, who migrates |
//! | `target.rs` | a server's schema |
//! | `cassandra.rs`, `elasticsearch.rs`, `rabbitmq.rs` | the servers |

mod cassandra;
pub(crate) mod compare;
pub(crate) mod cql;
mod elasticsearch;
mod error;
pub(crate) mod files;
mod journal;
mod lock;
mod rabbitmq;
mod report;
mod target;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use compare::{Misfit, Row};
pub use error::MigrateError;
pub use files::{CASSANDRA, ELASTICSEARCH, File, Kind};
use journal::Journal;
pub use lock::LEASE;
use lock::Lease;
pub use report::{Applied, Holder, Planned, Progress, State, Step, Target, label};
use target::{Schema, Versioned};

use super::cassandra::Cassandra;
use crate::config::Config;

/// The servers of a distributed deployment, in the order in which they are brought up.
pub const TARGETS: [Target; 3] = [Target::Cassandra, Target::Elasticsearch, Target::Rabbitmq];

/// The schemas of a distributed deployment.
pub struct Migrator {
    journal: Journal,
    lease: Duration,
    /// In the order of [`TARGETS`].
    schemas: Vec<Box<dyn Schema>>,
}

/// What became of a request to take the lock away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlocked {
    /// Nobody held it.
    Free,
    Removed(Holder),
    /// The holder lives, as far as one can tell, and keeps it.
    Refused(Holder),
    /// It passed on to this one, or was given back, in the meantime.
    Changed(Option<Holder>),
}

impl Migrator {
    /// For the schemas of `targets`, on the servers that the configuration names. Cassandra has to be there in any
    /// case; its keyspace need not exist.
    pub async fn connect(config: &Config, targets: &[Target]) -> Result<Self, MigrateError> {
        let connected = Cassandra::connect(&config.cassandra, false).await;
        let cassandra = connected.map_err(MigrateError::cassandra("begin"))?;
        let journal = Journal::new(cassandra, &config.cassandra)?;
        let mut schemas: Vec<Box<dyn Schema>> = Vec::new();
        if targets.contains(&Target::Cassandra) {
            schemas.push(cassandra_schema(&journal, CASSANDRA));
        }
        if targets.contains(&Target::Elasticsearch) {
            schemas.push(Box::new(elasticsearch::Index::new(journal.clone(), config)?));
        }
        if targets.contains(&Target::Rabbitmq) {
            schemas.push(Box::new(rabbitmq::Broker::new(journal.clone(), config).await?));
        }
        Ok(Self { journal, lease: LEASE, schemas })
    }

    /// Every step this binary knows and every one that the servers have.
    pub async fn status(&self) -> Result<Vec<Step>, MigrateError> {
        let mut steps = Vec::new();
        for schema in &self.schemas {
            steps.extend(schema.status().await?);
        }
        Ok(steps)
    }

    /// What [`Migrator::up`] would do, in its order; nothing, if there is nothing to do.
    ///
    /// Errors: [`MigrateError::Misfit`] and [`MigrateError::Unrepaired`] if it would refuse.
    pub async fn plan(&self) -> Result<Vec<Planned>, MigrateError> {
        let mut plan = Vec::new();
        for schema in &self.schemas {
            plan.extend(schema.plan().await?);
        }
        if plan.is_empty() {
            return Ok(plan);
        }
        let mut statements = self.journal.bootstrap_plan().await?;
        if plan.iter().any(|step| step.target == Target::Cassandra) {
            // The steps don't name it.
            statements.push(format!("USE {}", self.journal.keyspace()));
        }
        if !statements.is_empty() {
            plan.insert(0, keyspace(statements));
        }
        Ok(plan)
    }

    /// Applies what is pending and returns it. Waits up to `wait` for another migrator.
    ///
    /// Errors: those of [`Migrator::plan`], before anything is changed; [`MigrateError::Locked`];
    /// [`MigrateError::Step`] and [`MigrateError::LockLost`], after which the statements before stay in force and
    /// the next call goes on.
    pub async fn up(
        &self,
        wait: Duration,
        tell: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Vec<Applied>, MigrateError> {
        // A refusal leaves no trace, and with nothing to do no lock is taken.
        if self.plan().await?.is_empty() {
            return Ok(Vec::new());
        }
        self.journal.bootstrap().await?;
        let waiting = &mut |holder| tell(Progress::Waiting { holder });
        let lease = Lease::acquire(&self.journal, self.lease, wait, waiting).await?;
        let mut applied = Vec::new();
        let mut outcome = Ok(());
        for schema in &self.schemas {
            match schema.up(&lease, tell).await {
                Ok(steps) => applied.extend(steps),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        lease.release().await;
        outcome.map(|()| applied)
    }

    /// Who migrates now, if anybody does.
    pub async fn holder(&self) -> Result<Option<Holder>, MigrateError> {
        lock::holder(&self.journal).await
    }

    /// Takes the lock from a holder that has stopped renewing it, or from any if `force`: it stops at its next step,
    /// and what it has begun may still come into force.
    pub async fn unlock(&self, force: bool) -> Result<Unlocked, MigrateError> {
        let Some(holder) = self.holder().await? else { return Ok(Unlocked::Free) };
        if holder.fresh && !force {
            return Ok(Unlocked::Refused(holder));
        }
        if lock::remove(&self.journal, &holder.id).await? {
            return Ok(Unlocked::Removed(holder));
        }
        Ok(Unlocked::Changed(self.holder().await?))
    }

    /// That the schemas are such that this binary can work with them, for a process that is starting: all its steps
    /// are applied, and none that is newer has taken away what it needs.
    ///
    /// Errors: [`MigrateError::Misfit`], [`MigrateError::Pending`], [`MigrateError::Differs`].
    pub async fn verify(&self) -> Result<(), MigrateError> {
        let mut steps = Vec::new();
        for schema in &self.schemas {
            steps.extend(schema.verify().await?);
        }
        if steps.is_empty() { Ok(()) } else { Err(MigrateError::Pending { steps }) }
    }
}

/// What has to be there before the first step of any server.
fn keyspace(statements: Vec<String>) -> Planned {
    Planned {
        target: Target::Cassandra,
        version: None,
        name: "keyspace".to_owned(),
        checksum: String::new(),
        begin: None,
        statements,
        record: None,
        is_pending: true,
    }
}

fn cassandra_schema(journal: &Journal, files: &'static [File]) -> Box<dyn Schema> {
    let runner = cassandra::Cql(journal.clone());
    Box::new(Versioned { journal: journal.clone(), files, runner })
}

/// [`Migrator::verify`] for the deployment of `config`.
pub async fn verify(config: &Config) -> Result<(), MigrateError> {
    Migrator::connect(config, &TARGETS).await?.verify().await
}
