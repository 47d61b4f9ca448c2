//! The broker's topology. It has no versions: the broker is asked what it has.
//!
//! Whether its queues are bound only its management interface tells. Without it the bindings are declared again each
//! time. A change that was interrupted may leave queues unbound, and sends refused; so Cassandra remembers that a change
//! was begun, and of what it was completed.

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
    self, DB_TASKS, Declaration, Difference, DifferenceKind, Progress as Replacing, ReplaceOptions, Topology,
    TopologyError, Values,
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

    /// Of exchanges and queues; none: the broker has them as they should be.
    async fn differences(&self) -> Result<Vec<Difference>, MigrateError> {
        match topology::verify(&self.link, &self.topology).await {
            Ok(()) => Ok(Vec::new()),
            Err(TopologyError::Differs(differences)) => Ok(differences),
            Err(error) => Err(not_seen(error.into())),
        }
    }

    /// The bindings that are not there; `None` if that can't be seen.
    async fn unbound(&self) -> Option<Vec<Difference>> {
        match topology::unbound(self.management.as_ref()?, &self.topology).await {
            Ok(unbound) => Some(unbound),
            Err(error) => {
                // It is there for more information, and nothing depends on it.
                tracing::warn!(%error, "the bindings of the queues can't be compared");
                None
            }
        }
    }

    async fn look(&self) -> Result<Found, MigrateError> {
        let mut differences = self.differences().await?;
        let unbound = self.unbound().await;
        let are_bindings_seen = unbound.is_some();
        // Of a queue that is to be made or replaced, it goes without saying.
        let is_new = |queue: &str| differences.iter().any(|difference| difference.name == queue);
        let unbound: Vec<_> = unbound.into_iter().flatten().filter(|difference| !is_new(&difference.name)).collect();
        differences.extend(unbound);
        Ok(Found { differences, are_bindings_seen, recorded: self.recorded().await? })
    }

    /// What is recorded of the last change: [`BEGUN`], or the checksum of what it was completed to.
    async fn recorded(&self) -> Result<Option<String>, MigrateError> {
        Ok(self.journal.rows(TARGET).await?.into_iter().next().map(|row| row.checksum))
    }

    fn is_complete(&self, found: &Found) -> bool {
        found.differences.is_empty() && found.recorded.as_deref() == Some(&self.checksum())
    }

    /// What `up` does where all is as it should be, as far as that can be seen.
    fn is_bound_again(&self, found: &Found) -> bool {
        self.is_complete(found) && !found.are_bindings_seen
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
        let found = self.look().await?;
        let state = if self.is_complete(&found) {
            State::InForce
        } else if found.differences.is_empty() {
            let unfinished = if found.are_bindings_seen {
                "all is there, but `aula migrate` has not completed it"
            } else {
                "all is there, but `aula migrate` has not completed it: bindings may be missing"
            };
            State::Differs { differences: vec![unfinished.to_owned()], up_repairs: true }
        } else if self.is_all_missing(&found.differences) {
            State::Absent
        } else {
            let up_repairs = found.differences.iter().all(is_repaired);
            State::Differs { differences: sentences(&found.differences), up_repairs }
        };
        Ok(vec![Step { target: TARGET, version: None, name: NAME.to_owned(), checksum: self.checksum(), state }])
    }

    /// Errors: [`MigrateError::Unrepaired`].
    async fn plan(&self) -> Result<Vec<Planned>, MigrateError> {
        let found = self.look().await?;
        let (target, version, name, checksum) = (TARGET, None, NAME.to_owned(), self.checksum());
        if self.is_bound_again(&found) {
            let bindings = self.topology.declarations().filter(|it| matches!(it, Declaration::Binding(..)));
            let remark = "# without rabbitmq.management_url nobody sees whether they are there".to_owned();
            let statements = std::iter::once(remark).chain(bindings.map(|binding| binding.to_string())).collect();
            let (begin, record, is_pending) = (None, None, false);
            return Ok(vec![Planned { target, version, name, checksum, statements, begin, record, is_pending }]);
        }
        if self.is_complete(&found) {
            return Ok(Vec::new());
        }
        let unrepaired: Vec<Difference> =
            found.differences.iter().filter(|difference| !is_repaired(difference)).cloned().collect();
        if !unrepaired.is_empty() {
            return Err(MigrateError::Unrepaired { target, differences: sentences(&unrepaired) });
        }
        let operations = topology::operations(&self.link, &self.topology, self.management.as_ref()).await;
        let operations = operations.map_err(|error| not_seen(error.into()))?;
        // Why: of what is only missing, the declaration says it.
        let reasons = found.differences.iter().filter(|difference| !difference.is_missing()).cloned();
        let reasons = sentences(&reasons.collect::<Vec<_>>()).into_iter().map(|sentence| format!("# {sentence}"));
        Ok(vec![Planned {
            target,
            version,
            name,
            statements: reasons.chain(operations.iter().map(ToString::to_string)).collect(),
            begin: Some(self.journal.state_statement(target, NAME, BEGUN, 0)),
            record: Some(self.journal.state_statement(target, NAME, &checksum, 0)),
            checksum,
            is_pending: true,
        }])
    }

    async fn up(&self, lease: &Lease, tell: Tell<'_>) -> Result<Vec<Applied>, MigrateError> {
        let Some(planned) = self.plan().await?.into_iter().next() else { return Ok(Vec::new()) };
        let (target, version, name) = (TARGET, None, NAME.to_owned());
        let failed = |error: TopologyError| {
            let (name, statement) = (NAME.to_owned(), None);
            MigrateError::Step { target, version, name, statement, source: error.into() }
        };
        if !planned.is_pending {
            lease.guard(topology::bind_all(&self.link, &self.topology)).await?.map_err(failed)?;
            return Ok(Vec::new());
        }
        tell(Progress::Applying { target, version, name: name.clone() });
        let started = Instant::now();
        lease.renew().await?;
        lease.guard(self.journal.record_state(TARGET, NAME, BEGUN, 0)).await??;
        let options = ReplaceOptions { deadline: EMPTY_WITHIN };
        let note = &mut |step| tell(Progress::Note { target, text: text(&step) });
        let migrating = topology::migrate(&self.link, &self.topology, self.management.as_ref(), &options, note);
        lease.guard(migrating).await?.map_err(failed)?;
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
        let mut missing = differences;
        if missing.is_empty() && self.recorded().await?.as_deref() != Some(BEGUN) {
            missing.extend(self.unbound().await.into_iter().flatten());
        }
        if missing.iter().all(|difference| difference.kind != DifferenceKind::Different) {
            return Ok(sentences(&missing).into_iter().map(|sentence| format!("{TARGET} {sentence}")).collect());
        }
        Err(MigrateError::Differs { target: TARGET, differences: sentences(&missing) })
    }
}

/// What the broker has, beside what it should have.
struct Found {
    differences: Vec<Difference>,
    /// Whether there are bindings among what was compared.
    are_bindings_seen: bool,
    recorded: Option<String>,
}

fn not_seen(source: anyhow::Error) -> MigrateError {
    MigrateError::Server { target: TARGET, action: "look at its topology", source }
}

fn sentences(differences: &[Difference]) -> Vec<String> {
    differences.iter().map(|difference| format!("{} {}", difference.name, difference.what)).collect()
}

/// What is missing is declared, and queues of shards are replaced; whatever else is another stays so.
fn is_repaired(difference: &Difference) -> bool {
    let shard = difference.name.strip_prefix(&format!("queue {DB_TASKS}."));
    difference.kind != DifferenceKind::Different || shard.is_some_and(|shard| shard.parse::<u16>().is_ok())
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
