//! What is said about the schema of a deployment: one shape for all its servers.

use std::fmt;

use serde::Serialize;

use super::files::Kind;
use crate::message::Millis;

/// A server with a schema of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Sqlite,
    Cassandra,
    Elasticsearch,
    Rabbitmq,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sqlite => "sqlite",
            Self::Cassandra => "cassandra",
            Self::Elasticsearch => "elasticsearch",
            Self::Rabbitmq => "rabbitmq",
        })
    }
}

/// A version of a schema, known to this binary or found on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub target: Target,
    /// RabbitMQ's topology has none: it is as declared, or not.
    pub version: Option<u32>,
    pub name: String,
    /// SHA-256 in hexadecimal: of this binary's file, or what the server recorded if this binary has none.
    pub checksum: String,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    Applied {
        at: Millis,
    },
    Pending,
    /// Applied, from a file with other contents than this binary's.
    Changed,
    /// Applied, but this binary, which knows later versions, doesn't have it.
    Missing,
    /// Applied by a later binary.
    Newer {
        kind: Kind,
    },
    /// Without versions: the server has it as this binary would declare it.
    InForce,
    /// The server was asked, and has something else, or this and something else.
    Differs {
        differences: Vec<String>,
        /// Whether `up` puts it right.
        up_repairs: bool,
    },
    /// Without versions: the server has nothing of it.
    Absent,
}

impl State {
    /// The word for tables.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::Pending => "pending",
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Newer { .. } => "newer",
            Self::InForce => "in force",
            Self::Differs { .. } => "differs",
            Self::Absent => "absent",
        }
    }
}

/// A step that `up` would apply now. Taking the lock is no part of it; of durations it says 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    pub target: Target,
    pub version: Option<u32>,
    pub name: String,
    pub checksum: String,
    /// The CQL that says in Cassandra, before the statements, that it is begun: for RabbitMQ's topology alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begin: Option<String>,
    /// To be run one after the other, in the language of the server: SQL, CQL, HTTP requests, what AMQP's methods do.
    pub statements: Vec<String>,
    /// The CQL that records the step in Cassandra afterwards; SQLite's records itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// Whether something is known to be missing. Bindings that can't be compared are made again, and nothing is pending.
    #[serde(rename = "pending")]
    pub is_pending: bool,
}

impl Planned {
    /// `cassandra 0001_messages`
    pub(super) fn label(&self) -> String {
        format!("{} {}", self.target, label(self.version, &self.name))
    }
}

/// A step that `up` has applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    pub target: Target,
    pub version: Option<u32>,
    pub name: String,
    pub took_ms: i64,
}

/// What `up` is doing, for people who wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Another process holds the lock.
    Waiting {
        holder: Option<Holder>,
    },
    Applying {
        target: Target,
        version: Option<u32>,
        name: String,
    },
    /// How far a long step is.
    Note {
        target: Target,
        text: String,
    },
    Applied(Applied),
}

/// The process that holds the migration lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Of this very holding: no other one has it.
    pub id: String,
    pub host: String,
    pub pid: u32,
    pub since: Millis,
    /// Seconds until the lock frees itself, unless its holder renews it before.
    pub expires_in_s: i32,
    /// Whether the holder has renewed it when it should: it lives, as far as one can tell.
    pub fresh: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {} since {}", self.pid, self.host, self.since)
    }
}

/// `0001_messages`, or the name alone where there are no versions.
pub fn label(version: Option<u32>, name: &str) -> String {
    match version {
        Some(version) => format!("{version:04}_{name}"),
        None => name.to_owned(),
    }
}
