//! What the index in use has, compared with the store.

use std::collections::HashSet;

use async_trait::async_trait;
use elasticsearch::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ElasticsearchRebuild, schema};
use crate::message::{ChannelId, Seq};
use crate::server::search::SearchError;
use crate::server::search::audit::{Differences, Entry, IndexAudit, IndexStep, Slice, Stray};

/// `index.max_result_window`: what one search returns, at most.
const WINDOW: usize = 10_000;
/// Entries that are asked for in one search, so that strays have room beside them.
const ENTRIES: usize = 4_000;
/// Clauses of one search; the server takes 1,024 by default.
const SLICES: usize = 200;
/// Channels named by one step through the index.
const CHANNELS: usize = 1_000;
/// Documents in one request that names them.
const NAMED: usize = 1_000;

#[async_trait]
impl IndexAudit for ElasticsearchRebuild {
    async fn compare(&self, slices: Vec<Slice>) -> Result<Differences, SearchError> {
        let mut differences = Differences::default();
        let mut waiting = batches(slices);
        while let Some(batch) = waiting.pop() {
            let hits = self.found(&batch).await?;
            if hits.len() >= WINDOW {
                // More than was stored: in smaller pieces, down to what is seen of a single one.
                if let Some((one, other)) = halves(batch.clone()) {
                    waiting.extend([one, other]);
                    continue;
                }
            }
            judge(&batch, hits, &mut differences);
        }
        Ok(differences)
    }

    async fn walk(&self, after: Option<String>) -> Result<IndexStep, SearchError> {
        let mut composite = json!({"size": CHANNELS, "sources": [{"channel": {"terms": {"field": "channel"}}}]});
        if let Some(after) = after {
            composite["after"] = json!({ "channel": after });
        }
        let body = json!({"size": 0, "track_total_hits": false, "aggs": {"channels": {"composite": composite}}});
        let found = self.call(Method::Post, &format!("/{}/_search", self.alias), body).await?;
        let channels = &found["aggregations"]["channels"];
        let named = channels["buckets"].as_array().into_iter().flatten();
        let named: Vec<&str> = named.filter_map(|bucket| bucket["key"]["channel"].as_str()).collect();
        let rest = named.last().filter(|_| named.len() == CHANNELS).map(|last| (*last).to_owned());
        let ids = named.iter().filter_map(|name| name.parse().ok()).map(ChannelId);
        Ok(IndexStep { channels: ids.collect(), strays: Vec::new(), rest })
    }

    async fn missing(&self, entries: Vec<Entry>) -> Result<Vec<Entry>, SearchError> {
        let mut missing = Vec::new();
        for entries in entries.chunks(NAMED) {
            let found = self.get(entries.iter().map(|entry| entry.id.to_string())).await?;
            let is_there = |(entry, found): &(&Entry, Option<Source>)| {
                found.as_ref().is_some_and(|found| *found == (Some(entry.channel), Some(entry.seq)))
            };
            let absent = entries.iter().zip(found).filter(|pair| !is_there(pair));
            missing.extend(absent.map(|(entry, _)| *entry));
        }
        Ok(missing)
    }

    async fn present(&self, strays: Vec<Stray>) -> Result<Vec<Stray>, SearchError> {
        let mut present = Vec::new();
        for strays in strays.chunks(NAMED) {
            let found = self.get(strays.iter().map(|stray| stray.document.clone())).await?;
            let same = |stray: &Stray, found: &Source| *found == (stray.channel, stray.seq);
            let there =
                strays.iter().zip(found).filter(|(stray, found)| found.as_ref().is_some_and(|f| same(stray, f)));
            present.extend(there.map(|(stray, _)| stray.clone()));
        }
        Ok(present)
    }

    async fn locate(&self, id: Uuid) -> Result<Option<(ChannelId, Seq)>, SearchError> {
        let found = self.get(std::iter::once(id.to_string())).await?.pop().flatten();
        Ok(found.and_then(|(channel, seq)| channel.zip(seq)))
    }

    async fn remove(&self, strays: Vec<Stray>) -> Result<(), SearchError> {
        for strays in strays.chunks(NAMED) {
            let lines: String =
                strays.iter().map(|stray| format!("{}\n", json!({"delete": {"_id": stray.document}}))).collect();
            let path = format!("/{}/_bulk?require_alias=true&refresh=true&filter_path=errors", self.alias);
            let response = schema::send(&self.client, Method::Post, &path, Some(lines)).await;
            let response = response.map_err(|error| SearchError::Unavailable(error.to_string()))?;
            if !response.status_code().is_success() {
                let why = super::client::refusal(response).await;
                return Err(SearchError::Unavailable(format!("what is stray can't be removed: {why}")));
            }
        }
        Ok(())
    }
}

/// What a document says it is.
type Source = (Option<ChannelId>, Option<Seq>);

impl ElasticsearchRebuild {
    /// What a search finds in these pieces.
    async fn found(&self, slices: &[Slice]) -> Result<Vec<Stray>, SearchError> {
        let clause = |slice: &Slice| {
            let range = json!({"gt": slice.after, "lte": slice.through.min(i64::MAX as Seq)});
            json!({"bool": {"filter": [{"term": {"channel": slice.channel}}, {"range": {"seq": range}}]}})
        };
        let clauses: Vec<Value> = slices.iter().map(clause).collect();
        let body = json!({
            "query": {"bool": {"filter": [{"bool": {"should": clauses, "minimum_should_match": 1}}]}},
            "size": WINDOW, "track_total_hits": false, "sort": ["_doc"],
            "_source": false, "docvalue_fields": ["channel", "seq"],
        });
        let found = self.call(Method::Post, &format!("/{}/_search", self.alias), body).await?;
        let hits = found["hits"]["hits"].as_array().into_iter().flatten();
        Ok(hits.map(|hit| of_hit(hit, &hit["fields"])).collect())
    }

    /// What the documents with these ids say they are, in order; as of now, findable or not.
    async fn get(&self, ids: impl Iterator<Item = String>) -> Result<Vec<Option<Source>>, SearchError> {
        let docs: Vec<Value> = ids.map(|id| json!({"_id": id, "_source": ["channel", "seq"]})).collect();
        let found = self.call(Method::Post, &format!("/{}/_mget", self.alias), json!({ "docs": docs })).await?;
        let found = found["docs"].as_array().into_iter().flatten();
        Ok(found.map(|doc| (doc["found"] == true).then(|| source(&doc["_source"]))).collect())
    }
}

fn of_hit(hit: &Value, fields: &Value) -> Stray {
    let channel = fields["channel"][0].as_str().and_then(|id| id.parse().ok()).map(ChannelId);
    Stray { document: hit["_id"].as_str().unwrap_or_default().to_owned(), channel, seq: fields["seq"][0].as_u64() }
}

fn source(source: &Value) -> Source {
    let channel = source["channel"].as_str().and_then(|id| id.parse().ok()).map(ChannelId);
    (channel, source["seq"].as_u64())
}

fn batches(slices: Vec<Slice>) -> Vec<Vec<Slice>> {
    let mut batches: Vec<Vec<Slice>> = Vec::new();
    let mut entries = 0;
    for slice in slices {
        entries += slice.entries.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < SLICES && entries <= ENTRIES => batch.push(slice),
            _ => {
                entries = slice.entries.len();
                batches.push(vec![slice]);
            }
        }
    }
    batches
}

/// `None` if it is a single seq.
fn halves(mut batch: Vec<Slice>) -> Option<(Vec<Slice>, Vec<Slice>)> {
    if batch.len() > 1 {
        let other = batch.split_off(batch.len() / 2);
        return Some((batch, other));
    }
    let mut one = batch.pop()?;
    let through = one.through.min(i64::MAX as Seq);
    let middle = one.after + (through.checked_sub(one.after)? / 2);
    if middle <= one.after {
        return None;
    }
    let later = one.entries.split_off(one.entries.partition_point(|(seq, _)| *seq <= middle));
    let other = Slice { channel: one.channel, after: middle, through: one.through, entries: later };
    one.through = middle;
    Some((vec![one], vec![other]))
}

fn judge(batch: &[Slice], hits: Vec<Stray>, differences: &mut Differences) {
    let mut wanted: HashSet<(ChannelId, Seq, String)> = batch
        .iter()
        .flat_map(|slice| slice.entries.iter().map(|(seq, id)| (slice.channel, *seq, id.to_string())))
        .collect();
    for hit in hits {
        let is_wanted = match (hit.channel, hit.seq) {
            (Some(channel), Some(seq)) => wanted.remove(&(channel, seq, hit.document.clone())),
            _ => false,
        };
        if !is_wanted {
            differences.strays.push(hit);
        }
    }
    for slice in batch {
        for (seq, id) in &slice.entries {
            if wanted.contains(&(slice.channel, *seq, id.to_string())) {
                differences.missing.push(Entry { channel: slice.channel, seq: *seq, id: *id });
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn slice(after: Seq, through: Seq, seqs: &[Seq]) -> Slice {
        let entries = seqs.iter().map(|seq| (*seq, Uuid::from_u128(u128::from(*seq)))).collect();
        Slice { channel: ChannelId(Uuid::nil()), after, through, entries }
    }

    #[test]
    fn a_piece_is_halved_down_to_a_single_seq() {
        let mut waiting = vec![vec![slice(0, Seq::MAX, &[1, 5, 9])]];
        let mut seen = Vec::new();
        for _ in 0..200 {
            let Some(piece) = waiting.pop() else { break };
            match halves(piece.clone()) {
                // Only where there are entries is it worth going on.
                Some((one, other)) => {
                    waiting.extend([one, other].into_iter().filter(|piece| !piece[0].entries.is_empty()));
                }
                None => seen.extend(piece[0].entries.iter().map(|(seq, _)| *seq)),
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [1, 5, 9]);
    }

    #[test]
    fn what_is_not_the_same_document_at_the_same_seq_is_stray() {
        let hit = |seq: Seq, id: u128| Stray {
            document: Uuid::from_u128(id).to_string(),
            channel: Some(ChannelId(Uuid::nil())),
            seq: Some(seq),
        };
        let mut differences = Differences::default();
        judge(&[slice(0, 10, &[1, 2, 3])], vec![hit(1, 1), hit(2, 7), hit(4, 4)], &mut differences);
        assert_eq!(differences.missing.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(differences.strays, [hit(2, 7), hit(4, 4)]);
    }
}
