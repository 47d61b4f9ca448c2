//! Where a value came from, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from, weakest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The embedded file.
    Default,
    /// The configuration file, as it was named, and the line of the key, from 1.
    File { path: PathBuf, line: u64 },
    /// An environment variable.
    Environment(String),
    /// A flag, such as `--listen`.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// The sources of the values that aren't defaults, by key (`session.idle_timeout`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(pub(super) BTreeMap<String, Source>);

impl Sources {
    /// The source of `key`'s value.
    #[must_use]
    pub fn of(&self, key: &str) -> &Source {
        self.0.get(key).unwrap_or(&Source::Default)
    }

    /// The keys that aren't at their default, in alphabetical order, with their sources.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Source)> {
        self.0.iter().map(|(key, source)| (key.as_str(), source))
    }
}

/// One thing that is wrong. Displays as `aula.yaml:12: unknown key "session.idle_timout"; …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub source: Source,
    /// The key, such as `session.idle_timeout`; for an unknown environment variable its name.
    pub key: String,
    /// A sentence that names the key, the value and what is expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.message)
    }
}

/// Why there is no configuration. None is worth a retry; every one is a usage error (exit code 2).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named file, or one that exists under the usual name, couldn't be read.
    #[error("{}: cannot read the configuration file: {error}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        error: std::io::Error,
    },
    /// The file is larger than [`super::MAX_FILE_BYTES`].
    #[error("{}: a configuration file larger than {} bytes is refused", path.display(), super::MAX_FILE_BYTES)]
    TooLarge { path: PathBuf },
    /// The file isn't YAML, or goes beyond what a configuration needs (depth, aliases).
    #[error("{}:{line}: {message}", path.display())]
    Syntax { path: PathBuf, line: u64, message: String },
    /// Keys or values are wrong: all of them, by source, one a line when displayed.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
