//! `docs/protocol.md` is true: its examples are played back, and its lists are those of the code.

pub mod blocks;
mod player;
pub mod shape;

use std::collections::BTreeSet;

use aula::wire::{ErrorCode, OPS_FROM_CLIENTS, OPS_FROM_SERVER};
use serde_json::Value;

use crate::client::Encoding;
use crate::http::Http;
use crate::server::Server;
use blocks::{Block, What};

pub const PAGE: &str = include_str!("../../docs/protocol.md");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_what_happens_in_json() {
    player::play(Encoding::Json).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_what_happens_in_msgpack() {
    player::play(Encoding::Msgpack).await;
}

#[test]
fn shows_each_op_and_no_other() {
    let blocks = blocks::of(PAGE);
    let of_clients = ops(&blocks, |what| matches!(what, What::Client(_)));
    // `dance` is there to be refused.
    let known: BTreeSet<&str> = OPS_FROM_CLIENTS.iter().copied().chain(["dance"]).collect();
    assert_eq!(of_clients, known);
    let of_server = ops(&blocks, |what| matches!(what, What::Server(_) | What::Shape(_)));
    assert_eq!(of_server, OPS_FROM_SERVER.iter().copied().collect());
}

fn ops<'a>(blocks: &'a [Block<'_>], wanted: impl Fn(&What<'_>) -> bool) -> BTreeSet<&'a str> {
    let frames = blocks.iter().filter(|block| wanted(&block.what));
    frames.map(|block| block.json["op"].as_str().unwrap_or_else(|| panic!("line {}: no op", block.line))).collect()
}

#[test]
fn lists_the_error_codes_with_their_statuses() {
    let listed: Vec<(&str, u16)> =
        rows(PAGE, "## Error codes").iter().map(|row| (code_of(row[0]), row[1].parse().unwrap())).collect();
    let known: Vec<(&str, u16)> = ErrorCode::ALL.iter().map(|code| (code.as_str(), code.http_status())).collect();
    assert_eq!(listed, known);
}

#[test]
fn lists_limits_as_they_are_by_default() {
    let config = include_str!("../../config/aula.yaml");
    let limits = rows(PAGE, "## Limits");
    assert!(limits.len() > 10);
    for row in limits {
        let (section, key) = code_of(row[1]).split_once('.').unwrap();
        let (_, rest) = config.split_once(&format!("\n{section}:\n")).unwrap_or_else(|| panic!("no {section}"));
        let line = rest.lines().find_map(|line| line.strip_prefix(&format!("  {key}: ")));
        assert_eq!(line, Some(row[2]), "{section}.{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shows_each_http_endpoint_of_the_openapi_document() {
    let server = Server::start();
    let (_, document) = Http::new(server.addr()).get("/api/v1/openapi.json", None).await;
    let mut missing = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            missing.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    assert!(missing.len() > 5, "{document}");
    for block in blocks::of(PAGE) {
        let What::Request { method, path } = block.what else { continue };
        let path = path.split('?').next().unwrap();
        let matches = |known: &String| {
            let (known_method, known_path) = known.split_once(' ').unwrap();
            let (pieces, known_pieces) = (path.split('/'), known_path.split('/'));
            known_method == method
                && pieces.clone().count() == known_pieces.clone().count()
                && pieces.zip(known_pieces).all(|(piece, known)| piece == known || known.starts_with('{'))
        };
        missing.retain(|known| !matches(known));
    }
    assert!(missing.is_empty(), "the page shows no {missing:?}");
}

/// The cells of the table under a heading.
pub fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let lines = rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    lines.skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

fn code_of(cell: &str) -> &str {
    cell.trim_matches('`')
}

/// A frame that the page shows without playing it.
pub fn shape_of(name: &str) -> Value {
    let mut shapes = blocks::of(PAGE).into_iter().filter(|block| block.what == What::Shape(name));
    shapes.next().unwrap_or_else(|| panic!("the page has no shape {name}")).json
}

crate::on_servers![is_what_happens_in_json, is_what_happens_in_msgpack];
