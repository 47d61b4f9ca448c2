use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::load::median;
use crate::site::{Place, Sample};

/// A channel's samples, one a round.
pub struct Figures {
    size: u64,
    last: Vec<Sample>,
    middle: Vec<Sample>,
}

impl Figures {
    pub const fn of(size: u64) -> Self {
        Self { size, last: Vec::new(), middle: Vec::new() }
    }

    pub fn add(&mut self, place: Place, sample: Sample) {
        match place {
            Place::Last => self.last.push(sample),
            Place::Middle => self.middle.push(sample),
        }
    }

    fn at(&self, place: Place) -> &[Sample] {
        match place {
            Place::Last => &self.last,
            Place::Middle => &self.middle,
        }
    }

    fn median(&self, place: Place, pick: Pick) -> f64 {
        median(self.at(place).iter().map(pick).collect())
    }

    /// The two of a round were taken close together.
    fn ratio(&self, smallest: &Self, place: Place, pick: Pick) -> f64 {
        let rounds = self.at(place).iter().zip(smallest.at(place));
        median(rounds.map(|(own, smallest)| pick(own) / pick(smallest)).collect())
    }
}

type Pick = fn(&Sample) -> f64;

/// What is told of a page, with its name.
const COLUMNS: [(&str, Pick); 4] = [
    ("server_cpu_us", |sample| sample.server_cpu),
    ("p50_us", |sample| sample.p50),
    ("p99_us", |sample| sample.p99),
    ("store_cpu_us", |sample| sample.store_cpu),
];

pub fn table(all: &[Figures]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let titles = ["server CPU, µs a request", "p50, µs", "p99, µs", "store alone, CPU µs"];
    table.set_header(["page", "messages"].into_iter().chain(titles));
    for place in Place::BOTH {
        for figures in all {
            let cells = COLUMNS.iter().map(|(_, pick)| {
                let (median, ratio) = (figures.median(place, *pick), figures.ratio(&all[0], place, *pick));
                Cell::new(format!("{median:.0} ({ratio:.2}×)")).set_alignment(CellAlignment::Right)
            });
            let size = Cell::new(figures.size).set_alignment(CellAlignment::Right);
            table.add_row([Cell::new(place.name()), size].into_iter().chain(cells));
        }
    }
    table
}

pub fn json(all: &[Figures]) -> Value {
    let rows = all.iter().flat_map(|figures| {
        Place::BOTH.map(|place| {
            let mut row = json!({"page": place.name(), "messages": figures.size});
            for (name, pick) in COLUMNS {
                let rounded = |number: f64| (number * 1000.0).round() / 1000.0;
                row[name] = rounded(figures.median(place, pick)).into();
                row[format!("{name}_ratio")] = rounded(figures.ratio(&all[0], place, pick)).into();
            }
            row
        })
    });
    Value::Array(rows.collect())
}
