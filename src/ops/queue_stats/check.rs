//! `--check`: what monitoring wants to hold.

use std::str::FromStr;

use serde::Serialize;

use super::row::{Picture, Row};
use crate::ops::terminal::age;
use crate::ops::{Context, Exit, arguments};

/// `age<30s`, `depth<=1000`, `dead=0`, `consumers>=1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    text: String,
    figure: Figure,
    comparison: Comparison,
    /// Tasks, or milliseconds.
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    Age,
    Depth,
    Ready,
    Unacked,
    Dead,
    Consumers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            "expected: age, depth, ready, unacked, dead or consumers, then <, <=, >, >= or =, then a number (of an age: \
             a duration), such as 'age<30s' or 'depth<1000'"
                .to_owned()
        };
        let at = text.find(['<', '>', '=']).ok_or_else(expected)?;
        let (name, rest) = text.split_at(at);
        let symbols = [
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("<", Comparison::Less),
            (">", Comparison::More),
            ("=", Comparison::Equal),
        ];
        let found = symbols.into_iter().find_map(|(symbol, comparison)| Some((rest.strip_prefix(symbol)?, comparison)));
        let (value, comparison) = found.ok_or_else(expected)?;
        let figure = match name.trim() {
            "age" => Figure::Age,
            "depth" => Figure::Depth,
            "ready" => Figure::Ready,
            "unacked" => Figure::Unacked,
            "dead" => Figure::Dead,
            "consumers" => Figure::Consumers,
            _ => return Err(expected()),
        };
        let limit = match figure {
            Figure::Age => u64::try_from(arguments::duration(value.trim())?.as_millis()).map_err(|_| expected())?,
            _ => value.trim().parse().map_err(|_| expected())?,
        };
        Ok(Self { text: text.to_owned(), figure, comparison, limit })
    }
}

/// A check that does not hold for a lane.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Broken {
    queue: String,
    shard: u16,
    check: String,
    /// Tasks, or milliseconds; `None`: it can't be told.
    value: Option<u64>,
    #[serde(skip)]
    text: String,
}

impl Check {
    fn broken_by(&self, row: &Row) -> Option<Broken> {
        let lane = &row.lane;
        let value = match self.figure {
            Figure::Age if lane.depth == 0 => Some(0),
            Figure::Age => lane.oldest_ms,
            Figure::Depth => Some(lane.depth),
            Figure::Ready => lane.ready,
            Figure::Unacked => lane.unacknowledged,
            Figure::Dead => Some(lane.dead_letters),
            Figure::Consumers => Some(lane.consumers),
        };
        let holds = value.is_some_and(|value| match self.comparison {
            Comparison::Less => value < self.limit,
            Comparison::AtMost => value <= self.limit,
            Comparison::More => value > self.limit,
            Comparison::AtLeast => value >= self.limit,
            Comparison::Equal => value == self.limit,
        });
        if holds {
            return None;
        }
        let is = match (value, self.figure) {
            (Some(value), Figure::Age) => format!("it is {}", age(value)),
            (Some(value), _) => format!("it is {value}"),
            (None, _) => "it can't be told here".to_owned(),
        };
        let text = format!("{}.{}: {}: {is}", lane.queue, lane.shard, self.text);
        Some(Broken { queue: lane.queue.clone(), shard: lane.shard, check: self.text.clone(), value, text })
    }
}

/// Prints what doesn't hold.
pub fn run(context: &Context, picture: &Picture, checks: &[Check]) -> anyhow::Result<Exit> {
    let broken = checks.iter().flat_map(|check| picture.rows.iter().filter_map(|row| check.broken_by(row)));
    let broken: Vec<Broken> = broken.collect();
    if context.output.is_json() {
        context.output.json(&broken)?;
    } else if !broken.is_empty() {
        context.output.text(&broken.iter().map(|broken| format!("{}\n", broken.text)).collect::<String>())?;
    } else {
        context.output.note("all of it holds");
    }
    Ok(if broken.is_empty() { Exit::Done } else { Exit::Failed })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::super::row::tests::lane;
    use super::super::verdict::Verdict;
    use super::*;

    fn row(depth: u64, oldest_ms: Option<u64>) -> Row {
        let mut lane = lane("db_tasks", 1, depth, None);
        lane.oldest_ms = oldest_ms;
        let verdict = Verdict::Ok;
        Row { lane, in_per_s: None, out_per_s: None, drain_s: None, redelivered: None, memory_bytes: None, verdict }
    }

    fn said(check: &str, row: &Row) -> Option<String> {
        check.parse::<Check>().unwrap().broken_by(row).map(|broken| broken.text)
    }

    #[test]
    fn what_breaks_a_check_is_said() {
        assert_eq!(said("age<30s", &row(5, Some(29_999))), None);
        assert_eq!(said("age<30s", &row(5, Some(61_000))).unwrap(), "db_tasks.1: age<30s: it is 1 m 1 s");
        assert_eq!(said("depth < 5", &row(5, None)).unwrap(), "db_tasks.1: depth < 5: it is 5");
        assert_eq!(said("depth<=5", &row(5, None)), None);
        assert_eq!(said("consumers>=1", &row(5, None)).unwrap(), "db_tasks.1: consumers>=1: it is 0");
        assert_eq!(said("dead=0", &row(5, None)), None);
        assert_eq!(said("dead>0", &row(5, None)).unwrap(), "db_tasks.1: dead>0: it is 0");
    }

    #[test]
    fn what_can_t_be_told_holds_for_nobody() {
        assert_eq!(said("age<30s", &row(5, None)).unwrap(), "db_tasks.1: age<30s: it can't be told here");
        assert_eq!(said("age<30s", &row(0, None)), None, "nothing waits");
        assert!(said("ready<9", &row(5, None)).is_some());
    }

    #[test]
    fn other_expressions_are_refused() {
        for wrong in ["", "age", "age<30", "age<", "depth<30s", "depht<3", "<3", "depth<-1", "depth=<3"] {
            assert!(wrong.parse::<Check>().is_err(), "{wrong}");
        }
    }
}
