//! A query in the terms of Elasticsearch's query DSL. What a person typed is a value in it, never a part of its
//! language: there is no `query_string`.

use std::time::Duration;

use serde_json::{Value, json};

use super::cursor::Cursor;
use super::document::Found;
use crate::message::ChannelId;
use crate::server::search::query::Term;
use crate::server::search::{FACET_SIZE, Query};

/// `index.max_result_window`: a page is no longer, with one more to see whether it is the last.
const MAX_WINDOW: usize = 10_000;
/// Endings that are looked at of a phrase whose last word may go on. A single word has no such bound.
const MAX_EXPANSIONS: usize = 1000;
/// The server sets it to this where it is more.
const MAX_TOTAL: u64 = i32::MAX as u64;
/// Candidates that a shard names for each count: with several shards the largest ten of all are among them.
const FACET_CANDIDATES: usize = 200;

pub(super) struct Request<'a> {
    /// The searcher's own, or some of them. Always a part of the query.
    pub channels: &'a [ChannelId],
    pub terms: &'a [Term],
    pub query: &'a Query,
    pub after: Option<Cursor>,
}

/// Hits on a page.
pub(super) fn limit(query: &Query) -> usize {
    query.limit.min(MAX_WINDOW - 1)
}

impl Request<'_> {
    pub fn body(&self, timeout: Duration, total_cap: u64) -> Value {
        let size = match limit(self.query) {
            0 => 0,
            limit => limit + 1,
        };
        let mut body = json!({
            // Filters alone: nothing is ranked, and what they match can be cached.
            "query": {"bool": {"filter": self.filters()}},
            "sort": [{"at": "desc"}, {"channel": "desc"}, {"seq": "desc"}],
            "size": size,
            "track_total_hits": total_cap.min(MAX_TOTAL),
            "timeout": format!("{}ms", timeout.as_millis().max(1)),
            "_source": Found::FIELDS,
        });
        if let Some(Cursor { at, channel, seq }) = self.after {
            body["search_after"] = json!([at.0, channel, seq]);
        }
        if self.query.facets {
            let largest = |field: &str| {
                let order = json!([{"_count": "desc"}, {"_key": "asc"}]);
                json!({"terms": {"field": field, "size": FACET_SIZE, "shard_size": FACET_CANDIDATES, "order": order}})
            };
            body["aggs"] = json!({"channels": largest("channel"), "senders": largest("sender")});
        }
        body
    }

    fn filters(&self) -> Vec<Value> {
        let mut filters = vec![json!({"terms": {"channel": self.channels}})];
        let Query { from, before, after, .. } = self.query;
        if let Some(from) = from {
            filters.push(json!({"term": {"sender": from}}));
        }
        // The lowest number of all is no date to the server.
        if let Some(before) = before {
            filters.push(json!({"range": {"at": {"lt": before.0.max(-i64::MAX)}}}));
        }
        if let Some(after) = after {
            filters.push(json!({"range": {"at": {"gt": after.0.max(-i64::MAX)}}}));
        }
        filters.extend(self.terms.iter().map(matching));
        filters
    }
}

fn matching(term: &Term) -> Value {
    let words = term.words();
    let text = words.join(" ");
    match (words.len(), term.any_ending) {
        (1, false) => json!({"term": {"words": {"value": text}}}),
        (1, true) => json!({"prefix": {"words": {"value": text}}}),
        (_, false) => json!({"match_phrase": {"words": {"query": text}}}),
        (_, true) => json!({"match_phrase_prefix": {"words": {"query": text, "max_expansions": MAX_EXPANSIONS}}}),
    }
}
