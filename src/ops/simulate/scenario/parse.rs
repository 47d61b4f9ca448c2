//! A scenario from its YAML.

use std::time::Duration;

use serde_saphyr::{DuplicateKeyPolicy, Error, Options};

use super::{BUILT_IN, LONGEST, PhaseKind, Scenario, ShapeKind};
use crate::ops::simulate::crowd::body::SHORTEST;

/// The longest file that is read.
const MAX_BYTES: usize = 64 << 10;

/// Why a text is no scenario.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    #[error("line {line}: {message}")]
    Syntax { line: u64, message: String },
    #[error("{key}: {message}")]
    Invalid { key: String, message: String },
    #[error("a scenario larger than {MAX_BYTES} bytes is refused")]
    TooLarge,
}

/// Reads a scenario and checks it.
///
/// Errors: the first thing that is wrong with it, and what would be right.
pub fn read(text: &str) -> Result<Scenario, ScenarioError> {
    if text.len() > MAX_BYTES {
        return Err(ScenarioError::TooLarge);
    }
    let scenario: Scenario = serde_saphyr::from_str_with_options(text, options()).map_err(|error| syntax(&error))?;
    check(&scenario)?;
    Ok(scenario)
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 8, flow_nesting_limit: 8, max_nodes: 5_000, max_events: 20_000 },
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
    }
}

fn syntax(error: &Error) -> ScenarioError {
    let error = error.without_snippet();
    let line = error.location().map_or(1, |location| location.line().max(1));
    let message = match error {
        Error::SerdeUnknownField { field, expected, .. } => format!("unknown key {field}{}", nearest(field, expected)),
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("{variant} is none of {}{}", expected.join(", "), nearest(variant, expected))
        }
        Error::SerdeMissingField { field, .. } => format!("the key {field} is missing"),
        other => {
            let text = other.to_string().replace(['\n', '\r'], " ");
            text.rsplit_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
        }
    };
    ScenarioError::Syntax { line, message }
}

/// The known word that was probably meant.
fn nearest(word: &str, known: &[&str]) -> String {
    let distance = |candidate: &&&str| strsim::damerau_levenshtein(word, candidate);
    match known.iter().min_by_key(distance) {
        Some(candidate) if distance(&candidate) <= 3 => format!("; did you mean {candidate}?"),
        _ => format!("; known are {}", known.join(", ")),
    }
}

fn check(scenario: &Scenario) -> Result<(), ScenarioError> {
    let wrong =
        |key: &str, message: &str| Err(ScenarioError::Invalid { key: key.to_owned(), message: message.to_owned() });
    if scenario.clients == 0 || scenario.clients > 1_000_000 {
        return wrong("clients", "a number from 1 to 1000000 is expected");
    }
    if !(0.0..=1e7).contains(&scenario.rate) {
        return wrong("rate", "messages a second, from 0 to 10000000, are expected");
    }
    if scenario.body.min < SHORTEST || scenario.body.max < scenario.body.min || scenario.body.max > 1 << 20 {
        return wrong("body", &format!("{SHORTEST} to 1048576 bytes are expected, and min not above max"));
    }
    if scenario.think.max < scenario.think.min {
        return wrong("think", "min is above max");
    }
    if scenario.receipts.every.is_zero() {
        return wrong("receipts.every", "a time above 0 is expected");
    }
    let times = [("think", scenario.think.max), ("receipts.every", scenario.receipts.every)];
    if let Some((key, _)) = times.iter().find(|(_, time)| *time > LONGEST) {
        return wrong(key, &too_long());
    }
    let shares = [
        ("msgpack", scenario.msgpack),
        // Somebody types before a message or doesn't.
        ("per_message.typing", scenario.per_message.typing),
        ("receipts.delivered", scenario.receipts.delivered),
        ("receipts.read", scenario.receipts.read),
    ];
    if let Some((key, _)) = shares.iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
        return wrong(key, "a share from 0 to 1 is expected");
    }
    let often =
        [("per_message.history", scenario.per_message.history), ("per_message.search", scenario.per_message.search)];
    if let Some((key, _)) = often.iter().find(|(_, times)| !(0.0..=100.0).contains(times)) {
        return wrong(key, "times for each message, from 0 to 100, are expected");
    }
    check_channels(scenario, wrong)?;
    check_phases(scenario, wrong)
}

fn check_channels(
    scenario: &Scenario,
    wrong: impl Fn(&str, &str) -> Result<(), ScenarioError>,
) -> Result<(), ScenarioError> {
    if scenario.channels.is_empty() {
        return wrong("channels", "at least one is expected");
    }
    if scenario.rate > 0.0 && scenario.channels.iter().all(|shape| shape.weight == 0.0) {
        return wrong("channels", "a weight above 0 is expected for one of them: messages go nowhere else");
    }
    for (index, shape) in scenario.channels.iter().enumerate() {
        let key = |name: &str| format!("channels[{index}].{name}");
        if shape.weight.is_nan() || shape.weight < 0.0 || shape.weight.is_infinite() {
            return wrong(&key("weight"), "a number from 0 on is expected");
        }
        if shape.members.is_some_and(|members| members < 2) {
            return wrong(&key("members"), "at least 2 are expected");
        }
        if shape.exponent.is_some() && shape.shape != ShapeKind::Zipf {
            return wrong(&key("exponent"), "only a zipf mix has one");
        }
        if shape.exponent.is_some_and(|exponent| !(0.0..=4.0).contains(&exponent)) {
            return wrong(&key("exponent"), "a number from 0 to 4 is expected");
        }
        match (shape.shape, shape.members, shape.count) {
            (ShapeKind::Direct, Some(_), _) => return wrong(&key("members"), "a direct channel has two"),
            (ShapeKind::Group, None, _) => return wrong(&key("members"), "a group needs a number of members"),
            (ShapeKind::Zipf, _, None) => return wrong(&key("count"), "a zipf mix needs a number of channels"),
            (_, _, Some(0)) => return wrong(&key("count"), "at least 1 is expected"),
            _ => {}
        }
    }
    Ok(())
}

fn check_phases(
    scenario: &Scenario,
    wrong: impl Fn(&str, &str) -> Result<(), ScenarioError>,
) -> Result<(), ScenarioError> {
    if scenario.loaded().is_empty() {
        return wrong("phases", "at least one phase besides the ramp is expected");
    }
    for (index, phase) in scenario.phases.iter().enumerate() {
        let key = |name: &str| format!("phases[{index}].{name}");
        if phase.phase == PhaseKind::Ramp && index > 0 {
            return wrong(&key("phase"), "only the first phase can be a ramp");
        }
        if phase.duration.is_zero() && phase.phase != PhaseKind::Ramp {
            return wrong(&key("duration"), "a time above 0 is expected");
        }
        if phase.duration > LONGEST {
            return wrong(&key("duration"), &too_long());
        }
        if phase.rate.is_some_and(|factor| !(0.0..=1000.0).contains(&factor)) {
            return wrong(&key("rate"), "a multiple of the rate from 0 to 1000 is expected");
        }
        let is_storm = phase.phase == PhaseKind::ReconnectStorm;
        if !is_storm && (phase.share.is_some() || phase.within.is_some()) {
            return wrong(&key("share"), "only a reconnect_storm has share and within");
        }
        if phase.share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return wrong(&key("share"), "a share from 0 to 1 is expected");
        }
        if phase.within.is_some_and(|within| within > phase.duration) {
            return wrong(&key("within"), "no more than the phase's duration is expected");
        }
    }
    if scenario.phases.iter().map(|phase| phase.duration).sum::<Duration>() > LONGEST {
        return wrong("phases", &too_long());
    }
    Ok(())
}

fn too_long() -> String {
    format!("no more than {} days are expected", LONGEST.as_secs() / 86_400)
}

impl Scenario {
    /// A built-in one; they are checked by a test.
    pub fn built_in(name: &str) -> Option<Result<Self, ScenarioError>> {
        BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| read(text))
    }
}

/// Durations as people write them: `30s`, `250ms`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        crate::ops::arguments::duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}us", duration.as_micros()))
    }
}

pub(super) mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| crate::ops::arguments::duration(&text).map_err(D::Error::custom)).transpose()
    }

    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }
}
