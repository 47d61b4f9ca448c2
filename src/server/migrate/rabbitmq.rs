//! The broker's topology. It has no versions: the broker is asked what it has.
//!
//! What it can't be asked is whether its queues are bound. A change that was interrupted may leave them unbound, and
//! sends refused. So Cassandra remembers that a change was begun, and of what it was completed.

use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::error::MigrateError;
use super::files::hexadecimal;
use super::journal::Journal;
use super::lock::Lease;
use super::report::{Applied, Planned, Progress, State, Step, Target};
use super::target::{Schema, Tell};
use crate::config::Config;
use crate::server::rabbitmq::Link;
use crate::server::rabbitmq::management::Management;
use crate::server::rabbitmq::topology::{
    self, DB_TASKS, Difference, Progress as Replacing, ReplaceOptions, Topology, TopologyError, Values,
};

const TARGET: Target = Target::Rabbitmq;
const NAME: &str = "topology";
/// Recorded in the place of a checksum while a change is under way.
const BEGUN: &str = "begun";
/// For queues that are to be replaced: their workers empty them meanwhile.
const EMPTY_WITHIN: Duration = Duration::from_secs(300);

pub struct Broker {
    journal: Journal,
    link: Link,
    management: Option<Management>,
    topology: Topology,
}

impl Broker {
    pub async fn new(journal: Journal, config: &Config) -> Result<Self, MigrateError> {
        let begin = |source| MigrateError::Server { target: TARGET, action: "begin", source };
        let topology = Topology::new(&Values::configured(config)).map_err(|error| begin(error.into()))?;
        let management = Management::new(&config.rabbitmq).map_err(begin)?;
        let link = Link::open(&config.rabbitmq, "migrate").await.map_err(begin)?;
        Ok(Self { journal, link, management, topology })
    }

    /// None: the broker has all as it should be.
    async fn differences(&self) -> Result<Vec<Difference>, MigrateError> {
        match topology::verify(&self.link, &self.topology).await {
            Ok(()) => Ok(Vec::new()),
            Err(TopologyError::Differs(differences)) => Ok(differences),
            Err(error) => {
                Err(MigrateError::Server { target: TARGET, action: "look at its topology", source: error.into() })
            }
        }
    }

    /// Whether the last change was completed, and was one to what is wanted now.
    async fn is_complete(&self) -> Result<bool, MigrateError> {
        let rows = self.journal.rows(TARGET).await?;
        Ok(rows.iter().any(|row| row.checksum == self.checksum()))
    }

    fn is_all_missing(&self, differences: &[Difference]) -> bool {
        let all = self.topology.exchanges.len() + self.topology.queues.len();
        differences.len() == all && differences.iter().all(Difference::is_missing)
    }

    /// The declarations as they will be made: with the configuration's numbers in them.
    fn declarations(&self) -> Vec<String> {
        self.topology.declarations().map(|declaration| declaration.to_string()).collect()
    }

    fn checksum(&self) -> String {
        hexadecimal(&Sha256::digest(self.declarations().join("\n").as_bytes()))
    }
}

#[async_trait]
impl Schema for Broker {
    async fn status(&self) -> Result<Vec<Step>, MigrateError> {
        let differences = self.differences().await?;
        let state = if differences.is_empty() && self.is_complete().await? {
            State::InForce
        } else if differences.is_empty() {
            let unfinished = "all is there, but `aula migrate` has not completed it: bindings may be missing";
            State::Differs { differences: vec![unfinished.to_owned()], up_repairs: true }
        } else if self.is_all_missing(&differences) {
            State::Absent
        } else {
            let up_repairs = differences.iter().all(is_repaired);
            State::Differs { differences: sentences(&differences), up_repairs }
        };
        Ok(vec![Step { target: TARGET, version: None, name: NAME.to_owned(), checksum: self.checksum(), state }])
    }

    async fn plan(&self) -> Result<Vec<Planned>, MigrateError> {
        let differences = self.differences().await?;
        if differences.is_empty() && self.is_complete().await? {
            return Ok(Vec::new());
        }
        let mut statements = Vec::new();
        // What is there and is another can't be declared over.
        let present: Vec<Difference> = differences.into_iter().filter(|difference| !difference.is_missing()).collect();
        statements.extend(sentences(&present).iter().map(|sentence| format!("# {sentence}")));
        if present.iter().any(is_repaired) {
            statements.push(format!(
                "# the queues of {DB_TASKS} are replaced: unbind all, wait until the workers have emptied them, delete them"
            ));
        }
        statements.extend(self.declarations());
        let (name, checksum) = (NAME.to_owned(), self.checksum());
        Ok(vec![Planned { target: TARGET, version: None, name, checksum, statements, record: None }])
    }

    async fn up(&self, lease: &Lease, tell: Tell<'_>) -> Result<Vec<Applied>, MigrateError> {
        if self.plan().await?.is_empty() {
            return Ok(Vec::new());
        }
        let (target, version, name) = (TARGET, None, NAME.to_owned());
        tell(Progress::Applying { target, version, name: name.clone() });
        let started = Instant::now();
        lease.renew().await?;
        lease.guard(self.journal.record_state(TARGET, NAME, BEGUN, 0)).await??;
        let options = ReplaceOptions { deadline: EMPTY_WITHIN };
        let note = &mut |step| tell(Progress::Note { target, text: text(&step) });
        let migrating = topology::migrate(&self.link, &self.topology, self.management.as_ref(), &options, note);
        lease.guard(migrating).await?.map_err(|error| MigrateError::Step {
            target,
            version,
            name: name.clone(),
            statement: None,
            source: error.into(),
        })?;
        let took_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        lease.guard(self.journal.record_state(TARGET, NAME, &self.checksum(), took_ms)).await??;
        let applied = Applied { target, version, name, took_ms };
        tell(Progress::Applied(applied.clone()));
        Ok(vec![applied])
    }

    /// Says what differs, because there is no number that could. A change under way is no hindrance: the workers of the
    /// old queues have to empty them.
    async fn verify(&self) -> Result<Vec<String>, MigrateError> {
        let differences = self.differences().await?;
        if self.is_all_missing(&differences) {
            return Ok(vec![format!("{TARGET} {NAME}")]);
        }
        if differences.iter().all(Difference::is_missing) {
            return Ok(sentences(&differences).into_iter().map(|sentence| format!("{TARGET} {sentence}")).collect());
        }
        Err(MigrateError::Differs { target: TARGET, differences: sentences(&differences) })
    }
}

fn sentences(differences: &[Difference]) -> Vec<String> {
    differences.iter().map(|difference| format!("{} {}", difference.name, difference.what)).collect()
}

/// What is missing is declared, and queues of shards are replaced; whatever else is another stays so.
fn is_repaired(difference: &Difference) -> bool {
    difference.is_missing() || difference.name.starts_with(&format!("queue {DB_TASKS}."))
}

fn text(step: &Replacing) -> String {
    match step {
        Replacing::Refusing { shards } => format!("sends to the {shards} old queues are refused from now on"),
        Replacing::Waiting { queue, ready, unacknowledged, consumers } => {
            let in_hand = unacknowledged.map(|number| format!(", {number} in the workers' hands")).unwrap_or_default();
            format!("waiting for {queue} to become empty: {ready} tasks wait{in_hand}, {consumers} consumers")
        }
        Replacing::Deleted { queue } => format!("{queue} is deleted"),
        Replacing::Accepting { shards } => format!("tasks are taken by {shards} shards"),
    }
}
