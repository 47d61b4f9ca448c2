use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use crate::machine;
use crate::peer::Peer;

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Of the whole table; rows are printed in the order in which they were first noted.
    pub key: String,
    /// With its unit, for people.
    pub label: String,
    pub decimals: usize,
    /// Less is better, and the bare server does the least that can be done: its figure is the measure of the others.
    pub is_ratio: bool,
}

/// What was measured.
#[derive(Default)]
pub struct Figures {
    rows: Vec<Row>,
    /// By row and server: a sample for each round; a sample is one number, or several that belong together.
    samples: Vec<BTreeMap<Peer, Vec<Vec<f64>>>>,
}

impl Figures {
    pub fn note(&mut self, row: &Row, peer: Peer, sample: &[f64]) {
        let index = self.rows.iter().position(|known| known.key == row.key).unwrap_or_else(|| {
            self.rows.push(row.clone());
            self.samples.push(BTreeMap::new());
            self.rows.len() - 1
        });
        self.samples[index].entry(peer).or_default().push(sample.to_vec());
    }

    fn peers(&self) -> Vec<Peer> {
        let mut peers: Vec<Peer> = self.samples.iter().flat_map(|row| row.keys().copied()).collect();
        peers.sort();
        peers.dedup();
        peers
    }

    pub fn table(&self) -> Table {
        let mut table = Table::new();
        let peers = self.peers();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header([""].into_iter().chain(peers.iter().map(|peer| peer.name())));
        for (row, samples) in self.rows.iter().zip(&self.samples) {
            let cells = peers.iter().map(|peer| {
                let text = samples.get(peer).map_or_else(|| "–".to_owned(), |of| row.text(of, samples));
                Cell::new(text).set_alignment(CellAlignment::Right)
            });
            table.add_row([Cell::new(&row.label)].into_iter().chain(cells));
        }
        table
    }

    pub fn json(&self) -> Value {
        let rows = self.rows.iter().zip(&self.samples).map(|(row, samples)| {
            let by_peer = |figure: &dyn Fn(&Vec<Vec<f64>>) -> Option<Value>| {
                let figures = samples.iter().filter_map(|(peer, of)| Some((peer.name().to_owned(), figure(of)?)));
                Value::Object(figures.collect::<Map<_, _>>())
            };
            json!({
                "figure": row.key,
                "label": row.label,
                "median": by_peer(&|of| Some(plain(&median(of)))),
                "ratio_to_bare": by_peer(&|of| row.ratio(of, samples).map(Value::from)),
                "rounds": by_peer(&|of| Some(of.iter().map(|sample| plain(sample)).collect())),
            })
        });
        json!({"machine": machine::json(), "figures": rows.collect::<Vec<_>>()})
    }
}

impl Row {
    fn text(&self, of: &[Vec<f64>], all: &BTreeMap<Peer, Vec<Vec<f64>>>) -> String {
        let decimals = self.decimals;
        let numbers: Vec<String> = median(of).iter().map(|number| format!("{number:.decimals$}")).collect();
        let numbers = numbers.join(" / ");
        match self.ratio(of, all) {
            Some(ratio) => format!("{numbers} ({ratio:.2}×)"),
            None => numbers,
        }
    }

    /// The median of the rounds' ratios: the two of a round were taken close together.
    fn ratio(&self, of: &[Vec<f64>], all: &BTreeMap<Peer, Vec<Vec<f64>>>) -> Option<f64> {
        let bare = all.get(&Peer::Bare).filter(|_| self.is_ratio)?;
        let ratios: Vec<_> = of.iter().zip(bare).map(|(own, bare)| vec![own[0] / bare[0]]).collect();
        median(&ratios).first().copied().map(|ratio| (ratio * 1000.0).round() / 1000.0)
    }
}

fn plain(sample: &[f64]) -> Value {
    match sample {
        [one] => json!(one),
        several => json!(several),
    }
}

/// Of each number of the samples.
fn median(samples: &[Vec<f64>]) -> Vec<f64> {
    let width = samples.iter().map(Vec::len).min().unwrap_or(0);
    let middle = |index: usize| {
        let mut numbers: Vec<f64> = samples.iter().map(|sample| sample[index]).collect();
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 2]
    };
    (0..width).map(middle).collect()
}
