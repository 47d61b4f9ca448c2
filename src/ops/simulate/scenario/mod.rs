//! What the simulated people do: a scenario, in YAML, one of the built-in ones or somebody's own.

mod parse;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use parse::{ScenarioError, read};

/// No part of a scenario lasts longer, nor do all phases together.
pub const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// The built-in scenarios by their names.
pub const BUILT_IN: [(&str, &str); 5] = [
    ("idle", include_str!("../scenarios/idle.yaml")),
    ("chat", include_str!("../scenarios/chat.yaml")),
    ("big-room", include_str!("../scenarios/big-room.yaml")),
    ("reconnect-storm", include_str!("../scenarios/reconnect-storm.yaml")),
    ("overload", include_str!("../scenarios/overload.yaml")),
];

/// A day of some people, in short.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// For people, in a line.
    pub about: String,
    pub clients: u32,
    /// Messages a second, of all together.
    #[serde(default)]
    pub rate: f64,
    /// How messages follow each other.
    #[serde(default)]
    pub arrival: Arrival,
    pub channels: Vec<Shape>,
    #[serde(default)]
    pub body: Body,
    /// The share of clients that speak MessagePack; the others speak JSON.
    #[serde(default)]
    pub msgpack: f64,
    #[serde(default)]
    pub receipts: Receipts,
    #[serde(default)]
    pub think: Think,
    #[serde(default)]
    pub per_message: PerMessage,
    /// What the server refuses for now is not tried again.
    #[serde(default)]
    pub gives_up: bool,
    pub phases: Vec<Phase>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// Independent of each other, as people are: there are lulls and rushes.
    #[default]
    Poisson,
    /// Each as long after the one before.
    Even,
}

/// A kind of channels, and how much is said in them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    pub shape: ShapeKind,
    /// Of a group: its members. Of a room: at most so many members, everybody if left out. Of a mix: members of the
    /// largest.
    pub members: Option<u32>,
    /// How many there are; by default as many as put each client into one.
    pub count: Option<u32>,
    /// Zipf's exponent of a mix: the n-th largest has n to this power times fewer members.
    pub exponent: Option<f64>,
    /// A message goes to a channel of this shape so many times as often as to one with weight 1.
    #[serde(default = "one")]
    pub weight: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShapeKind {
    /// Two people.
    Direct,
    Group,
    /// One channel with everybody.
    Room,
    /// Few large channels and many small ones.
    Zipf,
}

/// How long texts are, in bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    pub min: usize,
    pub max: usize,
}

impl Default for Body {
    fn default() -> Self {
        Self { min: 100, max: 100 }
    }
}

/// The shares of clients that report what they have and what they have read.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipts {
    #[serde(default)]
    pub delivered: f64,
    #[serde(default)]
    pub read: f64,
    /// A client gathers what it has delivered for so long.
    #[serde(with = "parse::duration", default = "a_second")]
    pub every: Duration,
}

impl Default for Receipts {
    fn default() -> Self {
        Self { delivered: 0.0, read: 0.0, every: a_second() }
    }
}

/// How long people take, between these two: to read what has come, and to write while others see them typing.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Think {
    #[serde(with = "parse::duration")]
    pub min: Duration,
    #[serde(with = "parse::duration")]
    pub max: Duration,
}

impl Default for Think {
    fn default() -> Self {
        Self { min: Duration::from_millis(500), max: Duration::from_secs(3) }
    }
}

/// What else is done, for each message that is sent: 0.1 is once in ten messages.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerMessage {
    #[serde(default)]
    pub history: f64,
    #[serde(default)]
    pub search: f64,
    /// The share of messages before which their writer is seen typing; the others are written at once.
    #[serde(default)]
    pub typing: f64,
}

/// A part of the run; the parts follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    pub phase: PhaseKind,
    #[serde(with = "parse::duration")]
    pub duration: Duration,
    /// Messages in this phase, as a multiple of the scenario's rate.
    pub rate: Option<f64>,
    /// Of a storm: the share of clients that lose their connection.
    pub share: Option<f64>,
    /// Of a storm: they come back at random within so long.
    #[serde(with = "parse::optional_duration", default)]
    pub within: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseKind {
    /// The clients connect, evenly over the phase; nothing is sent. Only the first phase can be one.
    Ramp,
    Hold,
    Burst,
    ReconnectStorm,
}

impl Phase {
    pub const fn name(&self) -> &'static str {
        match self.phase {
            PhaseKind::Ramp => "ramp",
            PhaseKind::Hold => "hold",
            PhaseKind::Burst => "burst",
            PhaseKind::ReconnectStorm => "reconnect storm",
        }
    }

    /// What the rate is multiplied by.
    pub fn factor(&self) -> f64 {
        match (self.phase, self.rate) {
            (PhaseKind::Ramp, _) => 0.0,
            (_, Some(factor)) => factor,
            (PhaseKind::Burst, None) => 3.0,
            (_, None) => 1.0,
        }
    }
}

impl Scenario {
    /// How long the clients connect.
    pub fn ramp(&self) -> Duration {
        match self.phases.first() {
            Some(phase) if phase.phase == PhaseKind::Ramp => phase.duration,
            _ => Duration::ZERO,
        }
    }

    /// The phases in which messages are sent.
    pub fn loaded(&self) -> &[Phase] {
        match self.phases.first() {
            Some(phase) if phase.phase == PhaseKind::Ramp => &self.phases[1..],
            _ => &self.phases,
        }
    }

    /// Stretches or shrinks the phases in which messages are sent to `duration` together.
    pub fn set_duration(&mut self, duration: Duration) {
        let whole: Duration = self.loaded().iter().map(|phase| phase.duration).sum();
        let factor = duration.as_secs_f64() / whole.as_secs_f64().max(1e-9);
        for phase in &mut self.phases {
            if phase.phase != PhaseKind::Ramp {
                phase.duration = phase.duration.mul_f64(factor);
            }
        }
    }

    /// Lets the clients take so long to connect.
    pub fn set_ramp(&mut self, duration: Duration) {
        match self.phases.first_mut() {
            Some(phase) if phase.phase == PhaseKind::Ramp => phase.duration = duration,
            _ => {
                let ramp = Phase { phase: PhaseKind::Ramp, duration, rate: None, share: None, within: None };
                self.phases.insert(0, ramp);
            }
        }
    }

    /// How long messages are sent.
    pub fn duration(&self) -> Duration {
        self.loaded().iter().map(|phase| phase.duration).sum()
    }

    /// How many messages that makes.
    pub fn messages(&self) -> f64 {
        self.loaded().iter().map(|phase| phase.duration.as_secs_f64() * phase.factor() * self.rate).sum()
    }
}

fn one() -> f64 {
    1.0
}

fn a_second() -> Duration {
    Duration::from_secs(1)
}
