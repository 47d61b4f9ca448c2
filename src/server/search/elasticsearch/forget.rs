//! Documents of entries that were purged.

use elasticsearch::indices::IndicesRefreshParts;
use elasticsearch::params::Conflicts;
use elasticsearch::{DeleteByQueryParts, Elasticsearch};
use serde::Deserialize;
use serde_json::json;

use super::client;
use crate::server::queue::IndexRange;
use crate::server::search::SearchError;

#[derive(Deserialize)]
struct Answer {
    deleted: u64,
    version_conflicts: u64,
    failures: Vec<serde::de::IgnoredAny>,
}

/// Deletes the documents of these entries behind an alias; how many there were.
///
/// They are searched for, so what was written lately is made visible to searches first:
/// <https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-delete-by-query>
pub(super) async fn remove(es: &Elasticsearch, alias: &str, entries: IndexRange) -> Result<u64, SearchError> {
    let unavailable = |error: elasticsearch::Error| SearchError::Unavailable(client::failure(&error));
    let refreshed = es.indices().refresh(IndicesRefreshParts::Index(&[alias])).send().await.map_err(unavailable)?;
    if !refreshed.status_code().is_success() {
        return Err(SearchError::Unavailable(client::refusal(refreshed).await));
    }
    let IndexRange { channel, first, last } = entries;
    let of_channel = json!({"term": {"channel": channel}});
    let between = json!({"range": {"seq": {"gte": first, "lte": last}}});
    let response = es
        .delete_by_query(DeleteByQueryParts::Index(&[alias]))
        .conflicts(Conflicts::Proceed)
        .refresh(true)
        .body(json!({"query": {"bool": {"filter": [of_channel, between]}}}))
        .send()
        .await
        .map_err(unavailable)?;
    if !response.status_code().is_success() {
        return Err(SearchError::Unavailable(client::refusal(response).await));
    }
    let answer: Answer = response.json().await.map_err(unavailable)?;
    if answer.version_conflicts > 0 || !answer.failures.is_empty() {
        let Answer { version_conflicts, failures, .. } = answer;
        return Err(SearchError::Unavailable(format!(
            "of the purged documents, {version_conflicts} changed meanwhile and {} can't be deleted",
            failures.len()
        )));
    }
    Ok(answer.deleted)
}
