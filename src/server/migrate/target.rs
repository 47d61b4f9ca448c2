//! What every server's schema can do, and how those do it that have versions.

use async_trait::async_trait;
use tokio::time::Instant;

use super::compare::{self, compare};
use super::error::MigrateError;
use super::files::File;
use super::journal::Journal;
use super::lock::Lease;
use super::report::{Applied, Planned, Progress, Step, Target};

/// Where progress is told.
pub type Tell<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// A server's schema.
#[async_trait]
pub trait Schema: Send + Sync {
    /// Every step this binary knows and every one the server has. A schema that doesn't fit is no error.
    async fn status(&self) -> Result<Vec<Step>, MigrateError>;

    /// What [`Schema::up`] would do. Errors: those with which it would refuse, [`MigrateError::Misfit`] above all.
    async fn plan(&self) -> Result<Vec<Planned>, MigrateError>;

    /// The steps that a process has to find applied and doesn't, in words. Errors: as [`Schema::plan`].
    async fn verify(&self) -> Result<Vec<String>, MigrateError> {
        Ok(self.plan().await?.iter().map(Planned::label).collect())
    }

    /// Does it, as long as the lock is held. After an error the steps before it are in force.
    async fn up(&self, lease: &Lease, tell: Tell<'_>) -> Result<Vec<Applied>, MigrateError>;
}

/// How the steps of a server are run.
#[async_trait]
pub trait Runner: Send + Sync {
    fn target(&self) -> Target;

    /// What [`Runner::run`] would run now.
    async fn statements(&self, file: &File) -> Result<Vec<String>, MigrateError>;

    /// Runs one step. It may have been run before, in part or as a whole.
    async fn run(&self, file: &File, lease: &Lease) -> Result<(), MigrateError>;
}

/// Steps with versions, recorded in Cassandra.
pub struct Versioned<R> {
    pub journal: Journal,
    pub files: &'static [File],
    pub runner: R,
}

impl<R: Runner> Versioned<R> {
    async fn pending(&self) -> Result<Vec<&'static File>, MigrateError> {
        let target = self.runner.target();
        let rows = self.journal.rows(target).await?;
        compare::pending(self.files, &rows).map_err(|source| MigrateError::Misfit { target, source })
    }

    async fn apply(&self, file: &File, lease: &Lease, tell: Tell<'_>) -> Result<Applied, MigrateError> {
        let target = self.runner.target();
        let (version, name) = (Some(file.version), file.name.to_owned());
        tell(Progress::Applying { target, version, name: name.clone() });
        let started = Instant::now();
        lease.renew().await?;
        self.runner.run(file, lease).await?;
        let took_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        lease.guard(self.journal.record(target, file, took_ms)).await??;
        let applied = Applied { target, version, name, took_ms };
        tell(Progress::Applied(applied.clone()));
        Ok(applied)
    }
}

#[async_trait]
impl<R: Runner> Schema for Versioned<R> {
    async fn status(&self) -> Result<Vec<Step>, MigrateError> {
        let target = self.runner.target();
        Ok(compare(target, self.files, &self.journal.rows(target).await?))
    }

    async fn plan(&self) -> Result<Vec<Planned>, MigrateError> {
        let target = self.runner.target();
        let mut plan = Vec::new();
        for file in self.pending().await? {
            plan.push(Planned {
                target,
                version: Some(file.version),
                name: file.name.to_owned(),
                checksum: file.checksum(),
                statements: self.runner.statements(file).await?,
                begin: None,
                record: Some(self.journal.record_statement(target, file, 0)),
                is_pending: true,
            });
        }
        Ok(plan)
    }

    async fn up(&self, lease: &Lease, tell: Tell<'_>) -> Result<Vec<Applied>, MigrateError> {
        let mut applied = Vec::new();
        for file in self.pending().await? {
            applied.push(self.apply(file, lease, tell).await?);
        }
        Ok(applied)
    }
}

/// A step that failed, at `statement` if it is known which.
pub fn failed(target: Target, file: &File, statement: Option<&str>, source: anyhow::Error) -> MigrateError {
    let statement = statement.map(str::to_owned);
    MigrateError::Step { target, version: Some(file.version), name: file.name.to_owned(), statement, source }
}
