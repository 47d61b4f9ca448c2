//! Writing: bulks, judged entry by entry.

use std::future::ready;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use elasticsearch::{BulkParts, Elasticsearch};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use tokio::time::Instant;

use super::client;
use super::document::Document;
use crate::server::search::SearchError;
use crate::server::search::rebuild::Rejected;
use crate::server::worker::Backoff;

/// A bulk has at most so many documents, and begins none beyond so many bytes: the server holds all of it in memory.
const MAX_DOCUMENTS: usize = 1000;
const MAX_BYTES: usize = 4 << 20;
/// Bulks of one call under way together: one is sent and read while the server works on the other.
const IN_FLIGHT: usize = 2;
/// How long the server may wait for a shard that is not there, and we for the server: it answers first.
const SHARD_TIMEOUT: &str = "10s";
const TIMEOUT: Duration = Duration::from_secs(30);
/// Entries that the server has no room for are sent again for so long, then the caller hears of it.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Bulk<'a> {
    pub client: &'a Elasticsearch,
    pub alias: &'a str,
}

/// What became of all of them.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub rejected: Vec<Rejected>,
    /// The server had no room for some of them at first.
    pub was_refused: bool,
}

impl Written {
    fn and(mut self, other: Self) -> Self {
        self.rejected.extend(other.rejected);
        Self { rejected: self.rejected, was_refused: self.was_refused || other.was_refused }
    }
}

/// What became of one entry.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is there, in this version or a newer one.
    Done,
    /// The server has no room for it now.
    Refused,
    /// It is against the mapping, and will be tomorrow: its type of error.
    Poison(String),
    Failed(String),
}

/// What became of a whole request.
enum Outcome {
    Judged(Vec<Verdict>),
    /// The server has no room for any of it now.
    Refused,
    /// More than the server takes in one request.
    TooLarge,
}

impl Bulk<'_> {
    /// Nothing that is rejected is told of unless everything else is written.
    pub async fn write(&self, documents: Vec<Document>) -> Result<Written, SearchError> {
        let bulks = stream::iter(cut(documents).into_iter().map(|bulk| self.write_bulk(bulk)));
        bulks.buffer_unordered(IN_FLIGHT).try_fold(Written::default(), |all, one| ready(Ok(all.and(one)))).await
    }

    /// Sends it until no entry is refused any more.
    async fn write_bulk(&self, documents: Vec<Document>) -> Result<Written, SearchError> {
        let mut written = Written::default();
        let give_up = Instant::now() + PATIENCE;
        let mut backoff = Backoff::new();
        // Pieces still to be sent; more than one only after the server found one too large.
        let mut pieces = vec![documents];
        while let Some(mut piece) = pieces.pop() {
            match self.send(&piece).await? {
                Outcome::Judged(verdicts) => {
                    piece = refused(piece, verdicts, &mut written.rejected)?;
                    if piece.is_empty() {
                        continue;
                    }
                }
                Outcome::Refused => {}
                Outcome::TooLarge => {
                    let half = piece.split_off(piece.len() / 2);
                    if piece.is_empty() {
                        written.rejected.extend(half.into_iter().map(|document| document.rejected("too large")));
                    } else {
                        pieces.extend([half, piece]);
                    }
                    continue;
                }
            }
            written.was_refused = true;
            metrics::counter!("aula_index_refused_total").increment(piece.len() as u64);
            if Instant::now() >= give_up {
                return Err(SearchError::Unavailable(format!("the index has no room for {} entries", piece.len())));
            }
            pieces.push(piece);
            backoff.pause().await;
        }
        Ok(written)
    }

    async fn send(&self, documents: &[Document]) -> Result<Outcome, SearchError> {
        let unavailable = |error| SearchError::Unavailable(client::failure(&error));
        let response = self
            .client
            .bulk(BulkParts::Index(self.alias))
            // Without the alias the server would make an index of this name, and guess a mapping.
            .require_alias(true)
            .timeout(SHARD_TIMEOUT)
            // Only what is judged: a reply of full entries is as long as the request.
            .filter_path(&["errors", "items.*.status", "items.*.error.type"])
            .request_timeout(TIMEOUT)
            .body(vec![body(documents)])
            .send()
            .await
            .map_err(unavailable)?;
        match response.status_code().as_u16() {
            200..300 => {}
            413 => return Ok(Outcome::TooLarge),
            429 => return Ok(Outcome::Refused),
            _ => return Err(SearchError::Unavailable(client::refusal(response).await)),
        }
        let reply: Reply = response.json().await.map_err(unavailable)?;
        if reply.items.len() != documents.len() {
            let (sent, judged) = (documents.len(), reply.items.len());
            return Err(SearchError::Unavailable(format!("{judged} entries of {sent} were answered")));
        }
        Ok(Outcome::Judged(reply.items.into_iter().map(|item| item.index.verdict()).collect()))
    }
}

/// In bulks within the bounds, in order.
fn cut(documents: Vec<Document>) -> Vec<Vec<Document>> {
    let mut bulks: Vec<Vec<Document>> = Vec::new();
    let mut bytes = 0;
    for document in documents {
        bytes += document.lines.len();
        match bulks.last_mut() {
            Some(bulk) if bulk.len() < MAX_DOCUMENTS && bytes <= MAX_BYTES => bulk.push(document),
            _ => {
                bytes = document.lines.len();
                bulks.push(vec![document]);
            }
        }
    }
    bulks
}

fn body(documents: &[Document]) -> Bytes {
    let mut body = BytesMut::with_capacity(documents.iter().map(|document| document.lines.len()).sum());
    documents.iter().for_each(|document| body.extend_from_slice(&document.lines));
    body.freeze()
}

/// Those that have to be sent again. `Err` if the whole call has.
fn refused(
    documents: Vec<Document>,
    verdicts: Vec<Verdict>,
    rejected: &mut Vec<Rejected>,
) -> Result<Vec<Document>, SearchError> {
    if let Some(Verdict::Failed(why)) = verdicts.iter().find(|verdict| matches!(verdict, Verdict::Failed(_))) {
        return Err(SearchError::Unavailable(format!("an entry is not indexed: {why}")));
    }
    let mut again = Vec::new();
    for (document, verdict) in documents.into_iter().zip(verdicts) {
        match verdict {
            Verdict::Refused => again.push(document),
            Verdict::Poison(why) => rejected.push(document.rejected(&why)),
            Verdict::Done | Verdict::Failed(_) => {}
        }
    }
    Ok(again)
}

#[derive(Deserialize)]
struct Reply {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(alias = "delete")]
    index: Judged,
}

#[derive(Deserialize)]
struct Judged {
    status: u16,
    error: Option<ItemError>,
}

#[derive(Deserialize)]
struct ItemError {
    #[serde(rename = "type")]
    kind: String,
}

impl Judged {
    fn verdict(self) -> Verdict {
        let kind = self.error.map(|error| error.kind).unwrap_or_default();
        match self.status {
            // 409: a document of this version or a higher one is there.
            200..300 | 409 => Verdict::Done,
            // Deleted already.
            404 if kind.is_empty() => Verdict::Done,
            429 => Verdict::Refused,
            // The index is of another version than this binary: a matter of migrating, not of this document.
            400 if kind == "strict_dynamic_mapping_exception" => Verdict::Failed(kind),
            400 => Verdict::Poison(kind),
            status => Verdict::Failed(format!("status {status}, {kind}")),
        }
    }
}
