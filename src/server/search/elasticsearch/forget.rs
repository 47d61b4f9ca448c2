//! Documents of entries that were purged.

use elasticsearch::indices::IndicesRefreshParts;
use elasticsearch::{CountParts, Elasticsearch, SearchParts};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::bulk::Bulk;
use super::client;
use super::document::Document;
use crate::message::Seq;
use crate::server::queue::IndexRange;
use crate::server::search::SearchError;

/// Documents looked for at once.
const PAGE: usize = 2_000;

#[derive(Deserialize)]
struct Answer {
    hits: Hits,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_id")]
    id: Uuid,
    sort: (Seq,),
}

/// Deletes the documents of these entries behind an alias, each with a version above all others, so that a write that is
/// on its way comes too late; how many there were. They are searched for, so what was written lately is made visible to
/// searches first.
pub(super) async fn remove(es: &Elasticsearch, alias: &str, entries: IndexRange) -> Result<u64, SearchError> {
    refresh(es, alias).await?;
    let (mut removed, mut after) = (0, entries.first.saturating_sub(1));
    loop {
        let found = find(es, alias, IndexRange { first: after + 1, ..entries }).await?;
        let Some(last) = found.last() else { break };
        after = last.sort.0;
        removed += found.len() as u64;
        let deletions = found.iter().map(|hit| Document::deletion(hit.id, entries.channel, hit.sort.0)).collect();
        Bulk { client: es, alias }.write(deletions).await?;
        if after >= entries.last {
            break;
        }
    }
    if removed > 0 {
        refresh(es, alias).await?;
    }
    Ok(removed)
}

async fn refresh(es: &Elasticsearch, alias: &str) -> Result<(), SearchError> {
    let response = es.indices().refresh(IndicesRefreshParts::Index(&[alias])).send().await.map_err(unavailable)?;
    if response.status_code().is_success() {
        return Ok(());
    }
    Err(SearchError::Unavailable(client::refusal(response).await))
}

/// The first of them, in the order of their seqs, which name each document: a page ends between two.
async fn find(es: &Elasticsearch, alias: &str, entries: IndexRange) -> Result<Vec<Hit>, SearchError> {
    let mut body = of(entries);
    body["size"] = json!(PAGE);
    body["_source"] = json!(false);
    body["sort"] = json!(["seq"]);
    let response = es.search(SearchParts::Index(&[alias])).body(body).send().await.map_err(unavailable)?;
    if !response.status_code().is_success() {
        return Err(SearchError::Unavailable(client::refusal(response).await));
    }
    let answer: Answer = response.json().await.map_err(unavailable)?;
    Ok(answer.hits.hits)
}

fn unavailable(error: elasticsearch::Error) -> SearchError {
    SearchError::Unavailable(client::failure(&error))
}

/// How many documents of these entries can be found behind an alias.
pub(super) async fn count(es: &Elasticsearch, alias: &str, entries: IndexRange) -> Result<u64, SearchError> {
    #[derive(Deserialize)]
    struct Counted {
        count: u64,
    }
    let response = es.count(CountParts::Index(&[alias])).body(of(entries)).send().await.map_err(unavailable)?;
    if !response.status_code().is_success() {
        return Err(SearchError::Unavailable(client::refusal(response).await));
    }
    let Counted { count } = response.json().await.map_err(unavailable)?;
    Ok(count)
}

fn of(IndexRange { channel, first, last }: IndexRange) -> Value {
    let of_channel = json!({"term": {"channel": channel}});
    let between = json!({"range": {"seq": {"gte": first, "lte": last}}});
    json!({"query": {"bool": {"filter": [of_channel, between]}}})
}
