//! A run as it might have been, for the tests of what is told about it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::measured::{Latencies, Measured, Offered, Own, Second, Server, Stage, Usage, Verdict};
use crate::oracle::{Counts, Unjudged};

/// Forty seconds of `chat`: a ramp, then a steady rate with one bad second, and a few errors.
pub(super) fn measured() -> Measured {
    let stages =
        [(Stage::Connect, 2_100), (Stage::Accepted, 900), (Stage::Persisted, 1_700), (Stage::SendToReceive, 1_300)];
    let mut run = Measured {
        scenario: "chat".to_owned(),
        settings: [("clients", "1000"), ("rate", "1000"), ("duration", "40s"), ("encoding", "json")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        began_at: 1_795_377_600_120,
        lasted: Duration::from_secs(40),
        watched: Duration::from_secs(41),
        whole: Duration::from_secs(47),
        was_interrupted: false,
        clients: 1000,
        stages: BTreeMap::new(),
        received: 119_988,
        expected: 120_000,
        offered: Offered { planned: 40_000, attempted: 40_000, unwritten: 0, late_us: 12_400 },
        seconds: Vec::new(),
        server: Some(Server {
            used: Usage { cpu: Duration::from_millis(492), resident: 24_117_248 },
            at_rest: 9_437_184,
            connected: 13_950_976,
        }),
        own: Own {
            used: Usage { cpu: Duration::from_millis(318), resident: 11_534_336 },
            at_rest: 8_388_608,
            connected: 10_485_760,
        },
        verdict: Some(Verdict {
            counts: Counts { attempts: 40_000, acknowledged: 39_997, ok: 39_997, recovered: 3, ..Counts::default() },
            broken: 0,
            violations: Vec::new(),
            unjudged: Unjudged::default(),
        }),
    };
    for at in 0..40 {
        let connecting = at < 5;
        let mut second = Second {
            at,
            connected: if connecting { (at + 1) * 200 } else { 1000 },
            sent: if connecting { at * 200 } else { 1000 },
            received: if connecting { at * 600 } else { 3000 },
            errors: u64::from(at == 25) * 3,
            stages: BTreeMap::new(),
            server: Some(Usage {
                cpu: Duration::from_micros(12_000 + at % 3 * 200),
                resident: 13_950_976 + at * 240_000,
            }),
        };
        for (stage, typical) in stages {
            if (stage == Stage::Connect) != connecting {
                continue;
            }
            let bad = if at == 25 { 12 } else { 1 };
            let latencies = run.stages.entry(stage).or_insert_with(|| Latencies::new().unwrap());
            for sample in 0..1000_u64 {
                // A long tail, by a sequence that is the same each time.
                let tail = (sample * 7919 % 1000) as f64 / 1000.0;
                let micros = f64::from(typical) * f64::from(bad) * (0.6 + 0.5 * tail + 0.02 / (1.001 - tail));
                latencies.record(Duration::from_micros(micros as u64));
            }
            let micros =
                |share: f64| (f64::from(typical) * f64::from(bad) * share * (1.0 + (at % 4) as f64 / 50.0)) as u64;
            second.stages.insert(stage, (1000, micros(0.9), micros(2.9)));
        }
        run.seconds.push(second);
    }
    let errors = [("rate_limited".to_owned(), 2), ("timeout".to_owned(), 1)];
    run.stages.entry(Stage::Accepted).and_modify(|latencies| latencies.errors.extend(errors));
    run
}
