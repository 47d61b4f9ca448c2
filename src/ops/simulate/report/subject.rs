//! What can be asked of a run: one figure of it, by a name such as `send_to_receive.p99` or `server.rss`.

use super::super::measured::{Latencies, Measured, Stage};
use super::unit::Unit;

/// A figure of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    P50,
    P90,
    P99,
    P999,
    Max,
    Mean,
    Count,
    Errors,
    /// Samples a second, over the time in which messages were sent; connections, over the whole run.
    Rate,
}

impl Metric {
    pub const ALL: [Self; 9] =
        [Self::P50, Self::P90, Self::P99, Self::P999, Self::Max, Self::Mean, Self::Count, Self::Errors, Self::Rate];

    pub const fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::Count => "count",
            Self::Errors => "errors",
            Self::Rate => "rate",
        }
    }

    const fn unit(self) -> Unit {
        match self {
            Self::P50 | Self::P90 | Self::P99 | Self::P999 | Self::Max | Self::Mean => Unit::Microseconds,
            Self::Count | Self::Errors => Unit::Count,
            Self::Rate => Unit::PerSecond,
        }
    }

    /// Of `latencies`; `None` where there are no samples, or no time in which they could have come.
    fn of(self, stage: Stage, latencies: &Latencies, measured: &Measured) -> Option<f64> {
        let micros = &latencies.micros;
        let during = if stage == Stage::Connect { measured.whole } else { measured.lasted };
        if micros.is_empty() {
            return None;
        }
        let quantile = |q| micros.value_at_quantile(q) as f64;
        match self {
            Self::P50 => Some(quantile(0.5)),
            Self::P90 => Some(quantile(0.9)),
            Self::P99 => Some(quantile(0.99)),
            Self::P999 => Some(quantile(0.999)),
            Self::Max => Some(micros.max() as f64),
            Self::Mean => Some(micros.mean()),
            Self::Count => Some(micros.len() as f64),
            Self::Errors => Some(latencies.error_count() as f64),
            Self::Rate => (!during.is_zero()).then(|| micros.len() as f64 / during.as_secs_f64()),
        }
    }
}

/// One figure of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Stage(Stage, Metric),
    /// Received ÷ expected.
    Reach,
    /// Of all stages.
    Errors,
    /// Messages received by members, the sender among them, a second, while messages were sent.
    ReceivedRate,
    ServerCpuPerDelivery,
    /// Resident memory.
    ServerRss,
    ConnectionBytes,
}

impl Subject {
    /// What is no figure of a stage.
    pub const OF_THE_RUN: [Self; 6] = [
        Self::Reach,
        Self::Errors,
        Self::ReceivedRate,
        Self::ServerCpuPerDelivery,
        Self::ServerRss,
        Self::ConnectionBytes,
    ];

    /// Every figure that has a name.
    pub fn all() -> impl Iterator<Item = Self> {
        let of_stages = Stage::ALL.into_iter().flat_map(|stage| Metric::ALL.map(|metric| Self::Stage(stage, metric)));
        of_stages.chain(Self::OF_THE_RUN)
    }

    pub fn name(self) -> String {
        match self {
            Self::Stage(stage, metric) => format!("{}.{}", stage.name(), metric.name()),
            Self::Reach => "reach".to_owned(),
            Self::Errors => "errors".to_owned(),
            Self::ReceivedRate => "received.rate".to_owned(),
            Self::ServerCpuPerDelivery => "server.cpu_per_delivery".to_owned(),
            Self::ServerRss => "server.rss".to_owned(),
            Self::ConnectionBytes => "connection.bytes".to_owned(),
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|subject| subject.name() == name)
    }

    pub const fn unit(self) -> Unit {
        match self {
            Self::Stage(_, metric) => metric.unit(),
            Self::Reach => Unit::Share,
            Self::Errors => Unit::Count,
            Self::ReceivedRate => Unit::PerSecond,
            Self::ServerCpuPerDelivery => Unit::Microseconds,
            Self::ServerRss | Self::ConnectionBytes => Unit::Bytes,
        }
    }

    /// Whether more of it is better.
    pub const fn is_better_larger(self) -> bool {
        matches!(self, Self::Reach | Self::ReceivedRate | Self::Stage(_, Metric::Rate))
    }

    /// Its value in a run, in its [`Subject::unit`].
    ///
    /// Errors: why the run has none. A figure that nothing was measured for is no zero: a server that answered nothing
    /// would else be the fastest.
    pub fn of(self, measured: &Measured) -> Result<f64, &'static str> {
        const UNSEEN: &str = "the server's CPU and memory can't be seen";
        match self {
            Self::Stage(stage, metric) => {
                let latencies = measured.stages.get(&stage);
                latencies.and_then(|latencies| metric.of(stage, latencies, measured)).ok_or("no samples")
            }
            Self::Reach if measured.expected == 0 => Err("nothing was to be received"),
            Self::Reach => Ok(measured.reach()),
            Self::Errors => Ok(measured.error_count() as f64),
            Self::ReceivedRate if measured.expected == 0 => Err("nothing was to be received"),
            Self::ReceivedRate => measured.received_rate().ok_or("nothing was sent"),
            Self::ServerCpuPerDelivery if measured.received == 0 => Err("nothing was received"),
            Self::ServerCpuPerDelivery => measured.cpu_per_delivery().ok_or(UNSEEN),
            Self::ServerRss => Ok(measured.server.as_ref().ok_or(UNSEEN)?.used.resident as f64),
            Self::ConnectionBytes if measured.clients == 0 => Err("nobody was connected"),
            Self::ConnectionBytes => measured.bytes_per_connection().ok_or(UNSEEN),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_rate_is_of_the_time_in_which_it_was_counted() {
        let run = super::super::fake::measured();
        let of = |name| Subject::named(name).unwrap().of(&run).unwrap();
        assert_eq!(of("connect.rate"), 5_000.0 / 47.0);
        assert_eq!(of("accepted.rate"), 35_000.0 / 40.0);
        assert_eq!(of("received.rate"), 119_988.0 / 40.0);
        assert_eq!(run.share_of_core(), Some(0.492 / 41.0));
    }

    #[test]
    fn every_name_is_its_own_and_leads_back() {
        let names: BTreeSet<_> = Subject::all().map(Subject::name).collect();
        assert_eq!(names.len(), Stage::ALL.len() * Metric::ALL.len() + Subject::OF_THE_RUN.len());
        for subject in Subject::all() {
            assert_eq!(Subject::named(&subject.name()), Some(subject));
        }
    }
}
