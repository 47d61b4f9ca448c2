//! The largest rate, or number of clients, that meets all thresholds.

use serde::Serialize;

use super::Prober;
use super::arguments::{Scale, Wanted};
use super::conduct::Outcome;
use super::measured::KEEP_UP;
use super::report::{Judged, Reporter};
use crate::ops::Exit;

/// Runs, at most: the first ones double, the others halve what is between.
const MOST_RUNS: usize = 16;
/// As close as it is looked.
const CLOSE_ENOUGH: f64 = 1.1;

/// Doubles the load until a threshold isn't met, then looks between; the scenario's own is where it begins.
pub(super) fn find(prober: &Prober<'_>, scale: Scale, reporter: &Reporter) -> anyhow::Result<Exit> {
    #[derive(Serialize)]
    struct Found {
        scale: &'static str,
        largest: Option<u64>,
        runs: Vec<Step>,
    }
    let mut search = Search::new(start(&prober.wanted, scale));
    let mut runs = Vec::new();
    let mut best = None;
    while let Some(load) = search.next().filter(|_| runs.len() < MOST_RUNS && prober.interrupt.count() == 0) {
        let wanted = with(&prober.wanted, scale, load);
        let missed = match prober.probe(&wanted) {
            // More than can be tried is more than is borne: what was met before stands.
            Err(error) if !runs.is_empty() && prober.interrupt.count() == 0 => vec![format!("{error:#}")],
            // What was found until somebody wished to end is told.
            Err(_) if !runs.is_empty() => break,
            Err(error) => return Err(error),
            Ok(Outcome { measured, is_unjudged, notes, .. }) => {
                notes.iter().for_each(|note| prober.context.output.note(note));
                if measured.was_interrupted {
                    break;
                }
                if measured.verdict.as_ref().is_some_and(|verdict| verdict.broken > 0) {
                    prober.context.output.note(format_args!("{} {load}: a promise was broken", scale.name()));
                    return reporter.conclude(&measured, &prober.context.output);
                }
                let judged = reporter.judge(&measured);
                let missed = judged.iter().filter(|judged| !judged.met).map(describe);
                let unoffered = (measured.offered.unwritten > 0)
                    .then(|| format!("the load tool did not keep up: it takes {KEEP_UP}"));
                let missed: Vec<_> = missed
                    .chain(is_unjudged.then(|| "what was to be checked could not be".to_owned()))
                    .chain(unoffered)
                    .collect();
                if missed.is_empty() && search.largest().is_none_or(|largest| largest < load) {
                    best = Some(measured);
                }
                missed
            }
        };
        let met = missed.is_empty();
        let word = if met { "met".to_owned() } else { missed.join("; ") };
        prober.context.output.note(format_args!("{} {load}: {word}", scale.name()));
        search.tell(load, met);
        runs.push(Step { load, met, missed });
    }
    let written = best.map_or(Ok(()), |measured| reporter.write(&measured, &prober.context.output));
    let found = Found { scale: scale.name(), largest: search.largest(), runs };
    prober.context.output.value(&found, || match found.largest {
        Some(largest) => format!("the largest {} that met all thresholds: {largest}", scale.name()),
        None => format!("no {} met all thresholds", scale.name()),
    })?;
    written?;
    Ok(if found.largest.is_some() { Exit::Done } else { Exit::Threshold })
}

fn describe(judged: &Judged) -> String {
    format!("{}: {}", judged.threshold, judged.actual_text())
}

#[derive(Serialize)]
struct Step {
    load: u64,
    met: bool,
    missed: Vec<String>,
}

impl Scale {
    const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Clients => "clients",
        }
    }
}

fn start(wanted: &Wanted, scale: Scale) -> u64 {
    match scale {
        Scale::Rate => (wanted.scenario.rate as u64).max(1),
        Scale::Clients => u64::from(wanted.scenario.clients),
    }
}

fn with(wanted: &Wanted, scale: Scale, load: u64) -> Wanted {
    let mut wanted = wanted.clone();
    match scale {
        Scale::Rate => wanted.scenario.rate = load as f64,
        Scale::Clients => {
            wanted.scenario.clients = u32::try_from(load).unwrap_or(u32::MAX);
            wanted.are_clients_asked = true;
        }
    }
    wanted
}

/// Between the largest load that was borne and the smallest that wasn't.
#[derive(Debug)]
struct Search {
    borne: Option<u64>,
    not_borne: Option<u64>,
    start: u64,
}

impl Search {
    const fn new(start: u64) -> Self {
        Self { borne: None, not_borne: None, start }
    }

    /// What to try; none when it is known closely enough.
    fn next(&self) -> Option<u64> {
        match (self.borne, self.not_borne) {
            (None, None) => Some(self.start),
            (Some(borne), None) => borne.checked_mul(2),
            // Less than where it began.
            (None, Some(not_borne)) => (not_borne > 2).then_some(not_borne / 2),
            (Some(borne), Some(not_borne)) => {
                let is_close = not_borne as f64 <= borne as f64 * CLOSE_ENOUGH || not_borne - borne < 2;
                (!is_close).then_some(borne + (not_borne - borne) / 2)
            }
        }
    }

    fn tell(&mut self, load: u64, is_borne: bool) {
        if is_borne {
            self.borne = self.borne.max(Some(load));
        } else {
            self.not_borne = Some(self.not_borne.map_or(load, |known| known.min(load)));
        }
    }

    const fn largest(&self) -> Option<u64> {
        self.borne
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found where all up to `capacity` is borne, and how many runs that takes.
    fn search(start: u64, capacity: u64) -> (Option<u64>, usize) {
        let mut search = Search::new(start);
        let mut runs = 0;
        while let Some(load) = search.next() {
            search.tell(load, load <= capacity);
            runs += 1;
        }
        (search.largest(), runs)
    }

    #[test]
    fn the_largest_is_found_to_a_tenth() {
        for capacity in [1_000u64, 1_234, 4_000, 60_000] {
            let (found, runs) = search(1_000, capacity);
            let found = found.unwrap();
            assert!(found <= capacity && found as f64 >= capacity as f64 / CLOSE_ENOUGH, "{found} of {capacity}");
            assert!(runs <= MOST_RUNS, "{runs}");
        }
        assert!(search(1_000, 130).0.unwrap() >= 118);
        assert_eq!(search(1_000, 0).0, None);
    }
}
