use std::time::Duration;

use super::compare::Misfit;
use super::report::{Holder, Target, label};

/// Why the schema is not what this binary needs, or was not made so.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("{target}: {source}")]
    Misfit { target: Target, source: Misfit },
    /// Only of [`super::Migrator::verify`]; the steps as `cassandra 0001_messages`.
    #[error("the schema is behind this binary: {}", steps.join(", "))]
    Pending { steps: Vec<String> },
    /// In a way that nothing is pending for.
    #[error("{target} is not as this binary needs it: {}", differences.join("; "))]
    Differs { target: Target, differences: Vec<String> },
    /// In a way that `up` doesn't change; it has changed nothing else either.
    #[error("{target}: `aula migrate` can't change what is another: {}", differences.join("; "))]
    Unrepaired { target: Target, differences: Vec<String> },
    #[error("{}", locked(holder.as_ref(), *waited))]
    Locked { holder: Option<Holder>, waited: Duration },
    #[error("the migration lock was lost{}: nothing more was applied", now_held(holder.as_ref()))]
    LockLost { holder: Option<Holder> },
    #[error("{target}: {} failed{}", label(*version, name), at(statement.as_deref()))]
    Step {
        target: Target,
        version: Option<u32>,
        name: String,
        /// The one that failed; those before it are in force.
        statement: Option<String>,
        source: anyhow::Error,
    },
    /// A value that the configuration's own checks let through.
    #[error("{key}: {problem}")]
    Configuration { key: &'static str, problem: String },
    #[error("{target}: can't {action}")]
    Server { target: Target, action: &'static str, source: anyhow::Error },
}

impl MigrateError {
    /// What a person can do about it, if that isn't plain from the error.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Misfit { source, .. } => Some(match source {
                Misfit::Newer { .. } => {
                    "this binary is older than the schema, which no longer has what it needs: run the version that \
                     migrated it, or a later one"
                }
                Misfit::Changed { .. } => {
                    "a released migration is never edited: use the binary that applied it, or move the change to a \
                     new version"
                }
                Misfit::Missing { .. } => "use the binary that applied it: `aula migrate status` lists what differs",
            }),
            Self::Pending { .. } => Some("run `aula migrate`"),
            Self::Locked { .. } => Some(
                "wait for the other process, or give it longer with `--wait`; if it is dead, its lock frees itself \
                 within half a minute (`aula migrate unlock` shows it)",
            ),
            Self::LockLost { .. } => Some("run `aula migrate` again: it goes on with the step that was interrupted"),
            Self::Step { .. } => Some(
                "what was done before is in force and stays; remove the cause and run `aula migrate` again: it goes \
                 on from there",
            ),
            Self::Differs { .. } => {
                Some("`aula migrate plan` says whether `aula migrate` puts it right; if not, it was changed by hand")
            }
            Self::Unrepaired { .. } => Some(
                "set back the settings that it follows from; or delete it (a queue when `aula queue-stats` says that it \
                 is empty: `rabbitmqctl delete_queue`), and the next `aula migrate` makes it anew",
            ),
            Self::Configuration { .. } | Self::Server { .. } => None,
        }
    }

    /// A request to Cassandra that failed.
    pub(super) fn cassandra<E: Into<anyhow::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Server { target: Target::Cassandra, action, source: source.into() }
    }
}

fn locked(holder: Option<&Holder>, waited: Duration) -> String {
    let waited = waited.as_secs_f64();
    match holder {
        Some(holder) => format!("{holder} is migrating (waited {waited:.1} s)"),
        None => format!("another process is migrating (waited {waited:.1} s)"),
    }
}

fn now_held(holder: Option<&Holder>) -> String {
    holder.map(|holder| format!(" to {holder}")).unwrap_or_default()
}

fn at(statement: Option<&str>) -> String {
    statement.map(|statement| format!(" at `{statement}`")).unwrap_or_default()
}
