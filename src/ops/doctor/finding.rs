//! What a check found, and what brings it right.

use serde::Serialize;

/// How something is; the worse is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    #[serde(rename = "ok")]
    Ok,
    /// It could not be looked at, or not in the time there was.
    #[serde(rename = "could not look")]
    Unknown,
    /// It works, and will not for ever.
    #[serde(rename = "warning")]
    Warning,
    #[serde(rename = "problem")]
    Problem,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "could not look",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub state: State,
    pub found: String,
    /// What to do: a command as a rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

impl Finding {
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Ok, found: found.into(), cure: None }
    }

    pub fn unknown(check: &'static str, why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check, state: State::Unknown, found: why.into(), cure: Some(cure.into()) }
    }

    pub fn warning(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check, state: State::Warning, found: found.into(), cure: Some(cure.into()) }
    }

    pub fn problem(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check, state: State::Problem, found: found.into(), cure: Some(cure.into()) }
    }
}
