//! What a page of history costs in channels of 10,000 messages and of ten, a hundred and a thousand times as many: the
//! cost must not grow with the channel.
//!
//! `scripts/bench history` runs it. Each size has a data directory of its own, filled through the store, and a server of
//! its own on it. They are asked in turns, so that a machine whose speed drifts slows all of them; the ratios are
//! medians of the rounds' ratios to the smallest channel. Afterwards pages are read once more, and channels of up to
//! 100,000 messages to their end, and the oracle judges them: a broken promise ends the run with an error.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its results and fails by panicking"
)]

mod channel;
mod figures;
#[path = "../load/mod.rs"]
#[allow(dead_code, reason = "nothing is sent here")]
mod load;
mod site;

use clap::Parser;

use figures::Figures;
use load::proof::Judged;
use site::{Filled, Place, Site};

const SMALLEST: u64 = 10_000;
/// Many and short: what else the machine does is then spread over all sizes.
const ROUNDS: usize = 60;

#[derive(Parser)]
#[command(about = "Measures pages of history in channels of different lengths")]
struct Args {
    /// The longest channel, in messages; 10000000 takes some ten minutes and 5 GB below TMPDIR
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100_000..=100_000_000))]
    largest: u64,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// As `cargo bench` calls it
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let sizes = std::iter::successors(Some(SMALLEST), |size| Some(size * 10)).take_while(|size| *size <= args.largest);
    let filled: Vec<Filled> = sizes.map(Filled::make).collect();
    let mut sites: Vec<Site> = filled.into_iter().map(Site::open).collect();
    let mut figures: Vec<Figures> = sites.iter().map(|site| Figures::of(site.size)).collect();
    // The first one warms up.
    for round in 0..=ROUNDS {
        for (site, figures) in sites.iter_mut().zip(&mut figures) {
            for place in Place::BOTH {
                let sample = site.measure(place);
                if round > 0 {
                    figures.add(place, sample);
                }
            }
        }
    }
    for site in &mut sites {
        if let Some(Judged { sends, deliveries }) = site.judge() {
            eprintln!("{} messages: {sends} stored and {deliveries} shown in pages, judged by the oracle", site.size);
        }
    }
    if args.json {
        println!("{}", figures::json(&figures));
    } else {
        println!("{}", figures::table(&figures));
    }
}
