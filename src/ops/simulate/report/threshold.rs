//! `--threshold 'send_to_receive.p99<50ms'`: what a run must keep to.
//!
//! `SUBJECT OPERATOR VALUE`: a figure by its name ([`Subject`]), one of `<`, `<=`, `>`, `>=`, and a value with the unit of
//! that figure ([`Unit`](super::unit::Unit)). Spaces around the operator don't matter.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::super::measured::{Measured, Stage};
use super::subject::{Metric, Subject};
use crate::config::nearest;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Operator {
    /// The longer ones first: `<` begins `<=` as well.
    const WRITTEN: [(&str, Self); 4] =
        [("<=", Self::AtMost), (">=", Self::AtLeast), ("<", Self::Less), (">", Self::More)];

    fn holds(self, actual: f64, limit: f64) -> bool {
        match self {
            Self::Less => actual < limit,
            Self::AtMost => actual <= limit,
            Self::More => actual > limit,
            Self::AtLeast => actual >= limit,
        }
    }
}

/// A limit that a run meets or crosses. Displays as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    expression: String,
    subject: Subject,
    operator: Operator,
    /// In the subject's unit.
    limit: f64,
}

/// How a run stands to a threshold.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    pub threshold: Threshold,
    /// In the subject's unit, or why there is none. A threshold on what was not measured is not met.
    pub actual: Result<f64, &'static str>,
    pub met: bool,
}

impl Threshold {
    pub fn subject(&self) -> Subject {
        self.subject
    }

    pub fn judge(&self, measured: &Measured) -> Judged {
        let actual = self.subject.of(measured);
        let met = actual.is_ok_and(|actual| self.operator.holds(actual, self.limit));
        Judged { threshold: self.clone(), actual, met }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expression.fmt(f)
    }
}

impl Judged {
    /// The actual figure for people, or why there is none.
    pub fn actual_text(&self) -> String {
        match self.actual {
            Ok(actual) => self.threshold.subject.unit().show(actual),
            Err(reason) => reason.to_owned(),
        }
    }
}

impl Serialize for Judged {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'a> {
            threshold: &'a str,
            met: bool,
            actual: Option<f64>,
            unit: super::unit::Unit,
            #[serde(skip_serializing_if = "Option::is_none")]
            why_not: Option<&'static str>,
        }
        let Threshold { expression, subject, .. } = &self.threshold;
        let (actual, why_not) = (self.actual.ok(), self.actual.err());
        Written { threshold: expression, met: self.met, actual, unit: subject.unit(), why_not }.serialize(serializer)
    }
}

/// What is wrong with a threshold, and where: its text shows the expression with the place marked below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidThreshold {
    problem: String,
    /// Without what would steer a terminal, a character for a character.
    expression: String,
    /// In characters, from 0.
    from: usize,
    length: usize,
}

impl InvalidThreshold {
    /// `part` is a slice of `expression`, or what lies beyond its end.
    fn at(expression: &str, from: usize, part: &str, problem: String) -> Self {
        let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        Self {
            problem: problem.chars().map(shown).collect(),
            expression: expression.chars().map(shown).collect(),
            from: expression.get(..from).map_or(0, |before| before.chars().count()),
            length: part.chars().count().max(1),
        }
    }
}

impl fmt::Display for InvalidThreshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { problem, expression, from, length } = self;
        write!(f, "{problem} (column {})\n  {expression}\n  {:from$}{:^<length$}", from + 1, "", "")
    }
}

impl std::error::Error for InvalidThreshold {}

impl FromStr for Threshold {
    type Err = InvalidThreshold;

    fn from_str(expression: &str) -> Result<Self, Self::Err> {
        let invalid = |from, part: &str, problem| InvalidThreshold::at(expression, from, part, problem);
        let Some(middle) = expression.find(['<', '>', '=']) else {
            let end = expression.trim_end().len();
            return Err(invalid(end, "", "an operator is missing: one of <, <=, >, >=".to_owned()));
        };
        let (before, rest) = expression.split_at(middle);
        let written = Operator::WRITTEN.into_iter().find(|(text, _)| rest.starts_with(text));
        let Some((text, operator)) = written else {
            return Err(invalid(middle, "=", "figures are compared with one of <, <=, >, >=".to_owned()));
        };

        let name = before.trim();
        let name_from = before.len() - before.trim_start().len();
        let subject = Subject::named(name).ok_or_else(|| {
            let (offset, part, problem) = unknown(name);
            invalid(name_from + offset, part, problem)
        })?;

        let after = &rest[text.len()..];
        let value = after.trim();
        let value_from = expression.len() - after.trim_start().len();
        let limit = subject.unit().parse(value).ok_or_else(|| {
            let expected = subject.unit().expected();
            let problem = match value {
                "" => format!("a value is missing: {} is compared with {expected}", subject.name()),
                _ => format!("`{value}` is not a value for {}, which takes {expected}", subject.name()),
            };
            invalid(value_from, value, problem)
        })?;
        Ok(Self { expression: expression.trim().to_owned(), subject, operator, limit })
    }
}

/// Which part of `name` is unknown (its offset and text), and what was probably meant.
fn unknown(name: &str) -> (usize, &str, String) {
    let hint = |near: Option<&str>, known: &str| match near {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("use {known}"),
    };
    let metrics = Metric::ALL.map(Metric::name);
    let stages = Stage::ALL.map(Stage::name);
    let of_the_run = Subject::OF_THE_RUN.map(Subject::name);

    let (first, metric) = name.split_once('.').unwrap_or((name, ""));
    if stages.contains(&first) {
        if metric.is_empty() {
            return (0, name, format!("`{first}` needs a metric, as in `{first}.p99`; use {}", metrics.join(", ")));
        }
        // Percentiles differ by a digit or two: none is a misspelling of another.
        let is_percentile = metric.strip_prefix('p').is_some_and(|digits| digits.parse::<f64>().is_ok());
        let near = if is_percentile { None } else { nearest(metric, metrics.into_iter()) };
        let problem = format!("`{metric}` is not a metric of a stage; {}", hint(near, &metrics.join(", ")));
        return (first.len() + 1, metric, problem);
    }

    let near = nearest(name, of_the_run.iter().map(String::as_str));
    if let (None, Some(stage)) = (near, nearest(first, stages.into_iter())) {
        return (0, first, format!("`{first}` is not a stage; did you mean `{stage}`?"));
    }
    let wrong = if name.is_empty() { "the figure is missing".to_owned() } else { format!("`{name}` is not a figure") };
    let known = format!("{}, or STAGE.METRIC with one of {}", of_the_run.join(", "), stages.join(", "));
    (0, name, format!("{wrong}; {}", hint(near, &known)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
