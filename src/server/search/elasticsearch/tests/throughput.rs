//! How fast `index` writes, beside a loop that does nothing but send bulks of the same documents:
//! `cargo test --release --lib -- --ignored --nocapture indexing_beside_a_bare_loop`.

use std::time::Instant;

use elasticsearch::BulkParts;
use serde_json::Value;

use super::*;

const DOCUMENTS: u64 = 60_000;
const ROUNDS: usize = 3;
/// Documents in a bulk of the bare loop.
const BARE: usize = 1000;

/// Texts of about 80 bytes, as a person writes.
fn texts(ada: &Ada) -> Vec<Message> {
    let words = ["soup", "at", "noon", "the", "kettle", "Zürich", "is", "later", "than", "bread", "42", "tomorrow"];
    let body = |seq: u64| {
        let word = |n: u64| words[(seq.wrapping_mul(n * 2 + 7) >> 3) as usize % words.len()];
        (0..13).map(word).collect::<Vec<_>>().join(" ") + &format!(" w{seq}")
    };
    (2..DOCUMENTS + 2).map(|seq| ada.text(seq, &body(seq))).collect()
}

async fn bare(ada: &Ada, messages: &[Message]) -> f64 {
    let bulks: Vec<String> = messages
        .chunks(BARE)
        .map(|chunk| {
            let documents = chunk.iter().map(|message| Document::new(message, AS_SENT).unwrap());
            documents.map(|document| String::from_utf8(document.lines.to_vec()).unwrap()).collect()
        })
        .collect();
    let began = Instant::now();
    for bulk in bulks {
        let sent = ada.test.client.bulk(BulkParts::Index(&ada.test.alias)).body(vec![bulk]).send().await.unwrap();
        assert_eq!(sent.json::<Value>().await.unwrap()["errors"], false);
    }
    messages.len() as f64 / began.elapsed().as_secs_f64()
}

async fn through_index(ada: &Ada, messages: &[Message]) -> f64 {
    let began = Instant::now();
    // As the worker does: a page, then the next.
    for page in messages.chunks(ada.index.page()) {
        ada.index.index(page.to_vec()).await.unwrap();
    }
    messages.len() as f64 / began.elapsed().as_secs_f64()
}

#[tokio::test]
#[ignore = "a measurement of about a minute"]
#[allow(clippy::print_stdout, reason = "the figures are its result")]
async fn indexing_beside_a_bare_loop() {
    let mut ratios = Vec::new();
    for round in 0..=ROUNDS {
        let (one, other) = (Ada::new().await, Ada::new().await);
        let (bare, ours) = (bare(&one, &texts(&one)).await, through_index(&other, &texts(&other)).await);
        println!("bare {bare:.0}/s, index() {ours:.0}/s, ratio {:.2}", ours / bare);
        // The first round warms the server.
        if round > 0 {
            ratios.push(ours / bare);
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
}
