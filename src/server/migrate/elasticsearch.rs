//! The index template and the first index. Elasticsearch is asked for what it has; Cassandra remembers which version
//! was applied, so that a binary that is older or was built from other files is noticed.

use async_trait::async_trait;
use elasticsearch::Elasticsearch;
use tokio::time::Instant;

use super::compare::{self, compare};
use super::error::MigrateError;
use super::files::{ELASTICSEARCH, File};
use super::journal::Journal;
use super::lock::Lease;
use super::report::{Applied, Planned, Progress, State, Step, Target};
use super::target::{Schema, Tell, failed};
use crate::config::Config;
use crate::server::search::connect_elasticsearch as connect;
use crate::server::search::elasticsearch_schema::{self as schema, SchemaError};

const TARGET: Target = Target::Elasticsearch;

pub struct Index {
    journal: Journal,
    client: Elasticsearch,
    alias: String,
}

impl Index {
    /// Connects when it is first asked.
    pub fn new(journal: Journal, config: &Config) -> Result<Self, MigrateError> {
        let client = connect(&config.elasticsearch);
        let client = client.map_err(|source| MigrateError::Server { target: TARGET, action: "begin", source })?;
        Ok(Self { journal, client, alias: config.elasticsearch.alias.clone() })
    }

    /// The files to record, and the requests that Elasticsearch needs; either may be empty without the other.
    async fn pending(&self) -> Result<(Vec<&'static File>, Vec<schema::Step>), MigrateError> {
        let rows = self.journal.rows(TARGET).await?;
        let files = compare::pending(ELASTICSEARCH, &rows);
        let files = files.map_err(|source| MigrateError::Misfit { target: TARGET, source })?;
        Ok((files, schema::pending(&self.client, &self.alias).await.map_err(not_compared)?))
    }

    fn newest() -> &'static File {
        const NONE: File = File { version: 0, name: "none", text: "" };
        ELASTICSEARCH.last().unwrap_or(&NONE)
    }
}

#[async_trait]
impl Schema for Index {
    async fn status(&self) -> Result<Vec<Step>, MigrateError> {
        let mut steps = compare(TARGET, ELASTICSEARCH, &self.journal.rows(TARGET).await?);
        let differences = schema::verify(&self.client, &self.alias).await.map_err(not_compared)?;
        if let Some(last) = steps.last_mut()
            && matches!(last.state, State::Applied { .. })
            && !differences.is_empty()
        {
            let up_repairs = !self.pending().await?.1.is_empty();
            last.state = State::Differs { differences, up_repairs };
        }
        Ok(steps)
    }

    async fn plan(&self) -> Result<Vec<Planned>, MigrateError> {
        let (mut files, requests) = self.pending().await?;
        if files.is_empty() && !requests.is_empty() {
            files.push(Self::newest());
        }
        let mut statements: Vec<String> = requests.iter().map(ToString::to_string).collect();
        let planned = files.into_iter().map(|file| Planned {
            target: TARGET,
            version: Some(file.version),
            name: file.name.to_owned(),
            checksum: file.checksum(),
            // What is asked of the server is its newest state: the first step brings it there.
            statements: std::mem::take(&mut statements),
            begin: None,
            record: Some(self.journal.record_statement(TARGET, file, 0)),
            is_pending: true,
        });
        Ok(planned.collect())
    }

    async fn up(&self, lease: &Lease, tell: Tell<'_>) -> Result<Vec<Applied>, MigrateError> {
        let mut all = Vec::new();
        for step in self.plan().await? {
            let Some(file) = ELASTICSEARCH.iter().find(|file| Some(file.version) == step.version) else { continue };
            let (target, version, name) = (TARGET, step.version, step.name);
            tell(Progress::Applying { target, version, name: name.clone() });
            let started = Instant::now();
            lease.renew().await?;
            let applied = lease.guard(schema::apply(&self.client, &self.alias)).await?;
            applied.map_err(|error| match error {
                SchemaError::Refused { ref step, .. } => failed(TARGET, file, Some(&step.clone()), error.into()),
                error => failed(TARGET, file, None, error.into()),
            })?;
            let took_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
            lease.guard(self.journal.record(TARGET, file, took_ms)).await??;
            let applied = Applied { target, version, name, took_ms };
            tell(Progress::Applied(applied.clone()));
            all.push(applied);
        }
        Ok(all)
    }

    /// A server that can't be reached is no reason not to start: chat goes on without search.
    async fn verify(&self) -> Result<Vec<String>, MigrateError> {
        match schema::verify(&self.client, &self.alias).await {
            Ok(differences) => {
                let (files, requests) = self.pending().await?;
                if files.is_empty() && requests.is_empty() && !differences.is_empty() {
                    return Err(MigrateError::Differs { target: TARGET, differences });
                }
            }
            Err(error @ SchemaError::Unavailable(_)) => {
                tracing::warn!(%error, "the search index can't be compared with what this binary needs");
                return Ok(Vec::new());
            }
            Err(error) => return Err(not_compared(error)),
        }
        Ok(self.plan().await?.iter().map(Planned::label).collect())
    }
}

fn not_compared(error: SchemaError) -> MigrateError {
    MigrateError::Server { target: TARGET, action: "compare its index with this binary", source: error.into() }
}
