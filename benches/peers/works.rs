//! What is measured.

mod delivery;
mod durable;
mod idle;
mod scaling;
mod storm;

use clap::ValueEnum;

use crate::durable::load::proof::Judged;
use crate::figures::{Figures, Row};
use crate::peer::Peer;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Work {
    Idle,
    Fanout,
    Rooms,
    Storm,
    Scaling,
    Durable,
}

impl Work {
    pub const ALL: [Self; 6] = [Self::Idle, Self::Fanout, Self::Rooms, Self::Storm, Self::Scaling, Self::Durable];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Fanout => "fanout",
            Self::Rooms => "rooms",
            Self::Storm => "storm",
            Self::Scaling => "scaling",
            Self::Durable => "durable",
        }
    }

    pub fn run(self, servers: &[Peer], rounds: u32, figures: &mut Figures) {
        match self {
            Self::Idle => idle::run(servers, figures),
            Self::Fanout => delivery::fanout(servers, rounds, figures),
            Self::Rooms => delivery::rooms(servers, rounds, figures),
            Self::Storm => storm::run(servers, rounds, figures),
            Self::Scaling => scaling::run(servers, rounds, figures),
            Self::Durable => durable::run(servers, figures),
        }
    }
}

fn row(key: &str, label: &str, decimals: usize) -> Row {
    Row { key: key.to_owned(), label: label.to_owned(), decimals, is_ratio: false }
}

/// What the oracle has judged of aula.
fn note_judged(figures: &mut Figures, key: &str, label: &str, Judged { sends, deliveries }: Judged) {
    let row = row(&format!("{key}_judged"), &format!("{label}: judged by the oracle, sends / deliveries"), 0);
    figures.note(&row, Peer::Aula, &[sends as f64, deliveries as f64]);
}

/// A row whose figures are compared with the bare server's.
fn ratio(key: &str, label: &str, decimals: usize) -> Row {
    Row { is_ratio: true, ..row(key, label, decimals) }
}
