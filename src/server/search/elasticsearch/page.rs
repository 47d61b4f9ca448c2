//! The answer to a search.

use serde::Deserialize;
use uuid::Uuid;

use super::cursor::Cursor;
use super::document::Found;
use super::request;
use crate::message::{ChannelId, Username};
use crate::server::search::query::Term;
use crate::server::search::{Query, SearchError, html};
use crate::wire::frame::{ChannelCount, Facets, Hit, SearchPage, SenderCount};

#[derive(Deserialize)]
pub(super) struct Answer {
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Shards,
    hits: Hits,
    aggregations: Option<Aggregations>,
}

#[derive(Deserialize)]
struct Shards {
    failed: u32,
}

#[derive(Deserialize)]
struct Hits {
    total: Total,
    hits: Vec<Document>,
}

#[derive(Deserialize)]
struct Total {
    value: u64,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "_id")]
    id: Uuid,
    #[serde(rename = "_source")]
    source: Found,
}

#[derive(Deserialize)]
struct Aggregations {
    channels: Counts<ChannelId>,
    senders: Counts<Username>,
}

#[derive(Deserialize)]
struct Counts<K> {
    buckets: Vec<Count<K>>,
}

#[derive(Deserialize)]
struct Count<K> {
    key: K,
    doc_count: u64,
}

/// What somebody without channels finds.
pub(super) fn empty(query: &Query) -> SearchPage {
    SearchPage { facets: query.facets.then(Facets::default), ..SearchPage::default() }
}

pub(super) fn of(answer: Answer, query: &Query, terms: &[Term], total_cap: u64) -> Result<SearchPage, SearchError> {
    // Part of an answer is none: hits would be missing unsaid.
    if answer.timed_out {
        return Err(SearchError::TooSlow);
    }
    if answer.shards.failed > 0 {
        return Err(SearchError::Unavailable(format!("{} shards failed", answer.shards.failed)));
    }
    let limit = request::limit(query);
    let more = answer.hits.hits.len() > limit;
    let hits: Vec<Hit> = answer.hits.hits.into_iter().take(limit).map(|document| hit(document, terms)).collect();
    let cursor = hits.last().filter(|_| more).map(|last| {
        let Hit { at, channel, seq, .. } = *last;
        Cursor { at, channel, seq }.encode()
    });
    let facets = answer.aggregations.map(|counted| Facets {
        channels: counted
            .channels
            .buckets
            .into_iter()
            .map(|Count { key: channel, doc_count: count }| ChannelCount { channel, count })
            .collect(),
        senders: counted
            .senders
            .buckets
            .into_iter()
            .map(|Count { key: username, doc_count: count }| SenderCount { username, count })
            .collect(),
    });
    Ok(SearchPage { hits, total: answer.hits.total.value.min(total_cap), cursor, facets })
}

fn hit(Document { id, source }: Document, terms: &[Term]) -> Hit {
    let at = source.at();
    let Found { channel, seq, sender, body, .. } = source;
    Hit { channel, seq, id, sender, at, highlight: html::highlight(&body, terms), body }
}
