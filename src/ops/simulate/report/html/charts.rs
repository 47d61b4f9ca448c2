//! Which charts a page has: percentile curves, and what happened second by second.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::super::super::measured::{Latencies, Measured, Second, Stage};
use super::super::json::curve;
use super::super::unit::{Unit, clock, grouped, rate};
use super::plot::{Line, Plot};
use super::scale::Scale;

const WIDE: (f64, f64) = (960.0, 340.0);
const SMALL: (f64, f64) = (470.0, 170.0);

/// More points than this on a line can't be told apart; a long run's seconds are drawn together.
const MOST_POINTS: usize = 400;

const NAMED_QUANTILES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")];

/// The class of a stage's colour.
pub fn class(stage: Stage) -> String {
    format!("s-{}", stage.name())
}

fn micros(value: f64) -> String {
    Unit::Microseconds.show(value)
}

/// The share of samples on the x axis, how long they took at most on the y axis; an earlier run's are dashed.
pub fn percentiles(run: &Measured, earlier: Option<&Measured>) -> Markup {
    let lines = |run: &Measured, is_earlier: bool| -> Vec<Line> {
        let sampled = run.stages.iter().filter(|(_, latencies)| !latencies.micros.is_empty());
        sampled.map(|(stage, latencies)| percentile_line(*stage, latencies, is_earlier)).collect()
    };
    let mut all = lines(run, false);
    all.extend(earlier.into_iter().flat_map(|earlier| lines(earlier, true)));
    let values = || all.iter().flat_map(|line| line.points.iter().map(|(_, micros)| *micros));
    if values().next().is_none() {
        return html! { p { "No samples." } };
    }
    let samples = [Some(run), earlier].into_iter().flatten().flat_map(|run| run.stages.values());
    let x = Scale::nines(samples.map(|latencies| latencies.micros.len()).max().unwrap_or(0));
    let (lowest, highest) = values().fold((f64::MAX, 1.0), |(low, high), value| (value.min(low), value.max(high)));
    let y = Scale::log(lowest.max(1.0), highest, micros);
    let stages = [Some(run), earlier].into_iter().flatten().flat_map(|run| run.stages.keys().copied());
    html! {
        (legend(stages))
        .wide { (Plot { title: "Latency by percentile", size: WIDE, x, y, lines: all, columns: Vec::new() }.draw()) }
    }
}

fn legend(stages: impl Iterator<Item = Stage>) -> Markup {
    let stages: BTreeSet<_> = stages.collect();
    html! { p.legend { @for stage in stages { span { span.swatch.(class(stage)) {} (stage.name()) } } } }
}

fn percentile_line(stage: Stage, latencies: &Latencies, is_earlier: bool) -> Line {
    let histogram = &latencies.micros;
    // The highest of n samples stands where 1 of n is left, not at infinity.
    let last = 1.0 - 1.0 / histogram.len().max(2) as f64;
    let when = if is_earlier { " then" } else { "" };
    let told = |name: &str, value: f64| format!("{} {name}{when}: {}", stage.name(), micros(value));
    let named = NAMED_QUANTILES.into_iter().filter(|(quantile, _)| *quantile < last);
    let mut dots: Vec<_> = named
        .map(|(quantile, name)| (quantile, name, histogram.value_at_quantile(quantile)))
        .chain([(last, "max", histogram.max())])
        .map(|(quantile, name, value)| (quantile, value as f64, told(name, value as f64)))
        .collect();
    let mut points: Vec<_> = curve(histogram).into_iter().map(|(at, micros)| (at.min(last), micros as f64)).collect();
    // The line leads through its dots.
    points.extend(dots.iter().map(|(quantile, value, _)| (*quantile, *value)));
    points.sort_by(|(a, left), (b, right)| a.total_cmp(b).then(left.total_cmp(right)));
    if is_earlier {
        dots.clear();
    }
    Line { class: class(stage), points, dots, is_earlier }
}

/// Some seconds drawn as one.
struct Span<'a> {
    from: f64,
    to: f64,
    seconds: &'a [Second],
}

impl Span<'_> {
    fn mean(&self, of: impl Fn(&Second) -> f64) -> f64 {
        self.seconds.iter().map(of).sum::<f64>() / self.seconds.len().max(1) as f64
    }

    fn highest(&self, of: impl Fn(&Second) -> Option<f64>) -> Option<f64> {
        self.seconds.iter().filter_map(of).reduce(f64::max)
    }

    fn middle(&self) -> f64 {
        f64::midpoint(self.from, self.to)
    }
}

fn spans(seconds: &[Second]) -> Vec<Span<'_>> {
    let each = seconds.len().div_ceil(MOST_POINTS).max(1);
    let span = |seconds: &'_ [Second]| {
        let (first, last) = (seconds.first()?.at as f64, seconds.last()?.at as f64);
        Some((first, last + 1.0))
    };
    seconds.chunks(each).filter_map(|chunk| span(chunk).map(|(from, to)| Span { from, to, seconds: chunk })).collect()
}

/// What happened second by second.
pub fn over_time(run: &Measured) -> Markup {
    let spans = spans(&run.seconds);
    if spans.is_empty() {
        return html! { p { "The run was shorter than a second." } };
    }
    let share_of_core = |second: &Second| second.server.map(|usage| usage.cpu.as_secs_f64() * 100.0);
    let resident = |second: &Second| second.server.map(|usage| usage.resident as f64 / 1_048_576.0);
    let count = |value: f64| grouped(value.round());
    let percent = |value: f64| format!("{value:.0}%");
    let mebibytes = |value: f64| format!("{}MiB", rate(value));
    html! {
        figure {
            figcaption { "p99 by stage" }
            (p99(&spans))
        }
        .pair {
            (single("Clients connected", &spans, |span| Some(span.mean(|second| second.connected as f64)), count))
            (single("Messages sent a second", &spans, |span| Some(span.mean(|second| second.sent as f64)), count))
            (single("Messages received a second", &spans, |span| Some(span.mean(|second| second.received as f64)), count))
            (single("Errors a second", &spans, |span| Some(span.mean(|second| second.errors as f64)), count))
            @if run.seconds.iter().any(|second| second.server.is_some()) {
                (single("Server’s CPU, of a core", &spans, |span| span.highest(share_of_core), percent))
                (single("Server’s resident memory", &spans, |span| span.highest(resident), mebibytes))
            }
        }
    }
}

fn p99(spans: &[Span<'_>]) -> Markup {
    let of_stage = |span: &Span<'_>, stage: Stage| {
        span.highest(|second| second.stages.get(&stage).filter(|(count, ..)| *count > 0).map(|(_, _, p99)| *p99 as f64))
    };
    let mut lines = Vec::new();
    for stage in Stage::ALL {
        // Where a stage has no samples its line is interrupted: nothing was seen there.
        let mut pieces: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
        for span in spans {
            match (of_stage(span, stage), pieces.last_mut()) {
                (Some(value), Some(piece)) => piece.push((span.middle(), value.max(1.0))),
                (None, Some(piece)) if !piece.is_empty() => pieces.push(Vec::new()),
                _ => {}
            }
        }
        let drawn = pieces.into_iter().filter(|piece| !piece.is_empty());
        lines.extend(drawn.map(|points| Line { class: class(stage), points, dots: Vec::new(), is_earlier: false }));
    }
    let values = || lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value));
    let lowest = values().fold(f64::MAX, f64::min);
    if lowest == f64::MAX {
        return html! { p { "No samples." } };
    }
    let told = |span: &Span<'_>| {
        let values = Stage::ALL.into_iter().filter_map(|stage| Some((stage, of_stage(span, stage)?)));
        let rows = values.map(|(stage, value)| format!("\n{} {}", stage.name(), micros(value)));
        format!("{}{}", clock(span.from as u64), rows.collect::<String>())
    };
    let plot = Plot {
        title: "p99 of each stage over time",
        size: WIDE,
        x: time(spans),
        y: Scale::log(lowest, values().fold(1.0, f64::max), micros),
        columns: spans.iter().map(|span| (span.from, span.to, told(span))).collect(),
        lines,
    };
    html! {
        (legend(sampled(spans)))
        .wide { (plot.draw()) }
    }
}

/// The stages that have samples anywhere.
fn sampled<'a>(spans: &'a [Span<'a>]) -> impl Iterator<Item = Stage> + 'a {
    spans.iter().flat_map(|span| span.seconds).flat_map(|second| second.stages.keys().copied())
}

/// A chart of one figure.
fn single(
    title: &str,
    spans: &[Span<'_>],
    of: impl Fn(&Span<'_>) -> Option<f64>,
    show: impl Fn(f64) -> String,
) -> Markup {
    let values: Vec<_> = spans.iter().filter_map(|span| Some((span, of(span)?))).collect();
    // What is counted has no halves, so neither have the ticks.
    let highest = values.iter().map(|(_, value)| *value).fold(4.0, f64::max);
    let points = values.iter().map(|(span, value)| (span.middle(), *value)).collect();
    let told = |(span, value): &(&Span<'_>, f64)| {
        (span.from, span.to, format!("{}\n{}", clock(span.from as u64), show(*value)))
    };
    let plot = Plot {
        title,
        size: SMALL,
        x: time(spans),
        y: Scale::linear(highest, 4, &show),
        lines: vec![Line { class: "single".to_owned(), points, dots: Vec::new(), is_earlier: false }],
        columns: values.iter().map(told).collect(),
    };
    html! {
        figure {
            figcaption { (title) }
            (plot.draw())
        }
    }
}

fn time(spans: &[Span<'_>]) -> Scale {
    Scale::seconds(spans.last().map_or(1.0, |span| span.to), |at| clock(at as u64))
}
