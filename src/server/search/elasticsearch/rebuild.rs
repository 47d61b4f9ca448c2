//! The index of a distributed deployment, built anew beside the one in use.
//!
//! Three aliases say which is which: `<alias>` is the one in use, `<alias>-next` the one that is being built,
//! `<alias>-former` the one that was in use before. They change hands in one request, which Elasticsearch carries out
//! whole or not at all.

mod size;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use elasticsearch::Elasticsearch;
use elasticsearch::http::Method;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::bulk::{Bulk, Written};
use super::document::Document;
use super::{AS_SENT, schema};
use crate::message::{ChannelId, Kind, Message, Millis, Seq};
use crate::server::search::SearchError;
use crate::server::search::rebuild::{Comparison, Filled, Indexes, Mending, Rebuild, Walk};

use crate::server::store::{Cursor, Page, Part, Scan, Scanned, Store, StoreError};
use size::BulkSize;

/// Parts that the store is walked through in: so many can be filled side by side, and so even is the progress.
const PARTS: usize = 64;
/// Channels asked for at once.
const CHANNELS: usize = 64;
/// Entries read of a channel at once.
const PAGE: usize = 500;
/// Reads under way together, in each walk.
const READS: usize = 4;
/// How often, and after what time, entries that seem to be missing are looked for again.
const LATE_TRIES: u32 = 10;
const LATE_PAUSE: Duration = Duration::from_secs(1);
/// Clocks of gateways may be apart: entries so much older than a moment may have been sent after it.
const SKEW_MS: i64 = 60_000;

/// Rebuilds the index behind an alias from the store.
pub struct ElasticsearchRebuild {
    pub(super) client: Elasticsearch,
    pub(super) alias: String,
    store: Arc<dyn Store>,
    scan: Arc<dyn Scan>,
    size: Mutex<BulkSize>,
}

impl ElasticsearchRebuild {
    pub fn new(client: Elasticsearch, alias: String, store: Arc<dyn Store>, scan: Arc<dyn Scan>) -> Self {
        Self { client, alias, store, scan, size: Mutex::new(BulkSize::new()) }
    }

    fn next(&self) -> String {
        next(&self.alias)
    }

    fn former(&self) -> String {
        former(&self.alias)
    }

    /// The one index behind an alias.
    async fn behind(&self, alias: &str) -> Result<Option<String>, SearchError> {
        let found = schema::get(&self.client, &format!("/_alias/{alias}")).await.map_err(unavailable)?;
        let mut names: Vec<String> =
            found.iter().filter_map(Value::as_object).flat_map(|indexes| indexes.keys().cloned()).collect();
        match names.len() {
            0 | 1 => Ok(names.pop()),
            _ => Err(SearchError::Invalid(format!(
                "there are several indexes behind the alias {alias} ({}): leave it one",
                names.join(", ")
            ))),
        }
    }

    async fn live(&self) -> Result<String, SearchError> {
        let missing = || SearchError::Invalid(format!("there is no alias {}: run `aula migrate`", self.alias));
        self.behind(&self.alias).await?.ok_or_else(missing)
    }

    async fn being_built(&self) -> Result<String, SearchError> {
        self.behind(&self.next()).await?.ok_or_else(|| SearchError::Invalid("no index is being built".into()))
    }

    pub(super) async fn call(&self, method: Method, path: &str, body: Value) -> Result<Value, SearchError> {
        let body = (!body.is_null()).then(|| body.to_string());
        let response = schema::send(&self.client, method, path, body).await.map_err(unavailable)?;
        if !response.status_code().is_success() {
            let why = super::client::refusal(response).await;
            return Err(SearchError::Unavailable(format!("{path} was refused: {why}")));
        }
        response.json().await.map_err(|error| SearchError::Unavailable(super::client::failure(&error)))
    }

    /// A name that no index of this alias ever had here.
    async fn new_name(&self) -> Result<String, SearchError> {
        let found = schema::get(&self.client, &format!("/{}-0*", self.alias)).await.map_err(unavailable)?;
        let number = |name: &String| name.rsplit('-').next().and_then(|number| number.parse::<u64>().ok());
        let names = found.iter().filter_map(Value::as_object).flat_map(|indexes| indexes.keys());
        let newest = names.filter_map(number).max().unwrap_or(0);
        Ok(format!("{}-{:06}", self.alias, newest + 1))
    }

    async fn parts(&self) -> Result<Vec<Walk>, SearchError> {
        let parts = self.scan.parts(PARTS).await.map_err(not_read)?;
        Ok(parts.into_iter().map(|part| Walk::Channels { part, after: None, seq: 0 }).collect())
    }

    /// Reads on in a part: its next entries, and where to go on.
    async fn read_on(&self, walk: Walk) -> Result<(Vec<Message>, Option<Walk>), SearchError> {
        let Walk::Channels { part, after, seq } = walk else {
            return Err(SearchError::Invalid("this walk is one of another deployment".into()));
        };
        let channels = self.scan.channels(part, after, CHANNELS).await.map_err(not_read)?;
        let is_end = channels.len() < CHANNELS;
        // Only the first was begun with.
        let begun = std::iter::once(seq).chain(std::iter::repeat(0));
        let reads = channels.into_iter().zip(begun).map(|(channel, seq)| self.page(channel, seq));
        let mut reads = stream::iter(reads).buffered(READS);
        let (mut messages, mut after) = (Vec::new(), after);
        while let Some((channel, page)) = reads.try_next().await? {
            let last = page.last().map_or(0, |last| last.seq);
            let is_whole = page.len() < PAGE;
            messages.extend(page);
            if !is_whole {
                return Ok((messages, Some(Walk::Channels { part, after, seq: last })));
            }
            after = Some(channel.cursor);
            if messages.len() >= PAGE {
                return Ok((messages, Some(Walk::Channels { part, after, seq: 0 })));
            }
        }
        Ok((messages, (!is_end).then_some(Walk::Channels { part, after, seq: 0 })))
    }

    async fn page(&self, channel: Scanned, after: Seq) -> Result<(Scanned, Vec<Message>), SearchError> {
        let page = self.store.messages(channel.channel, Page::After(after), PAGE).await.map_err(not_read)?;
        Ok((channel, page))
    }

    async fn step(&self, walk: Walk, alias: &str, since: Option<Millis>) -> Result<Filled, SearchError> {
        let (messages, rest) = self.read_on(walk).await?;
        let since = since.map_or(i64::MIN, |since| since.0.saturating_sub(SKEW_MS));
        let wanted = messages.iter().filter(|message| message.kind == Kind::Text && message.at.0 >= since);
        let mut documents: Vec<Document> =
            wanted.map(|message| Document::new(message, AS_SENT)).collect::<Result<_, _>>()?;
        let entries = documents.len() as u64;
        let mut rejected = Vec::new();
        let bulk = Bulk { client: &self.client, alias };
        while !documents.is_empty() {
            let size = self.size.lock().get().min(documents.len());
            let rest = documents.split_off(size);
            let began = Instant::now();
            let Written { rejected: found, was_refused } = bulk.write(documents).await?;
            self.size.lock().learn(size, began.elapsed(), was_refused);
            rejected.extend(found);
            documents = rest;
        }
        Ok(Filled { rest, entries: entries - rejected.len() as u64, rejected })
    }

    /// Entries from all over the store.
    async fn sample(&self, wanted: usize) -> Result<Vec<Message>, SearchError> {
        let parts = self.scan.parts(wanted.max(1)).await.map_err(not_read)?;
        let samples = parts.into_iter().map(|part| self.sample_of(part));
        let mut found: Vec<Vec<Message>> = stream::iter(samples).buffered(READS).try_collect().await?;
        // Few channels have many entries each: more of one then.
        let each = (wanted / found.iter().filter(|part| !part.is_empty()).count().max(1)).max(1);
        found.iter_mut().for_each(|part| part.truncate(each));
        Ok(found.into_iter().flatten().collect())
    }

    async fn sample_of(&self, part: Part) -> Result<Vec<Message>, SearchError> {
        let Some(channel) = self.scan.channels(part, None::<Cursor>, 1).await.map_err(not_read)?.pop() else {
            return Ok(Vec::new());
        };
        // Where in its log, the channel's own id says: not always at the beginning.
        let middle = channel.channel.0.as_u128() as u64 % channel.last_seq.max(1);
        let page = self.store.messages(channel.channel, Page::After(middle), PAGE).await.map_err(not_read)?;
        Ok(page.into_iter().filter(|message| message.kind == Kind::Text).collect())
    }

    /// Whether each is in the index that is being built, as it would be put there.
    async fn differences(&self, messages: &[Message]) -> Result<Vec<(ChannelId, Seq)>, SearchError> {
        let mut different = Vec::new();
        for messages in messages.chunks(100) {
            let ids: Vec<String> = messages.iter().map(|message| message.id.to_string()).collect();
            let found = self.call(Method::Post, &format!("/{}/_mget", self.next()), json!({"ids": ids})).await?;
            for (message, found) in messages.iter().zip(found["docs"].as_array().into_iter().flatten()) {
                if found["_source"] != Document::source(message) {
                    different.push((message.channel, message.seq));
                }
            }
        }
        Ok(different)
    }

    /// When an index was made.
    async fn made(&self, index: &str) -> Result<Option<Millis>, SearchError> {
        let details = self.call(Method::Get, &format!("/{index}/_settings"), Value::Null).await?;
        let made = details[index]["settings"]["index"]["creation_date"].as_str();
        Ok(made.and_then(|made| made.parse().ok()).map(Millis))
    }

    async fn count(&self, alias: &str) -> Result<u64, SearchError> {
        self.call(Method::Post, &format!("/{alias}/_refresh"), Value::Null).await?;
        let counted = self.call(Method::Get, &format!("/{alias}/_count"), Value::Null).await?;
        Ok(counted["count"].as_u64().unwrap_or_default())
    }
}

#[async_trait]
impl Rebuild for ElasticsearchRebuild {
    async fn indexes(&self) -> Result<Indexes, SearchError> {
        let (next, former) = (self.behind(&self.next()).await?, self.behind(&self.former()).await?);
        Ok(Indexes { live: self.live().await?, next, former })
    }

    async fn begin(&self) -> Result<Vec<Walk>, SearchError> {
        self.live().await?;
        if self.behind(&self.next()).await?.is_none() {
            let name = self.new_name().await?;
            // Nobody searches it yet: no copies, and nothing made findable until the end.
            let settings = json!({"index": {"refresh_interval": "-1", "auto_expand_replicas": "false", "number_of_replicas": "0"}});
            let aliases = json!({ self.next(): {"is_write_index": true} });
            self.call(Method::Put, &format!("/{name}"), json!({"settings": settings, "aliases": aliases})).await?;
        }
        self.parts().await
    }

    async fn walks(&self) -> Result<Vec<Walk>, SearchError> {
        self.parts().await
    }

    async fn fill(&self, walk: Walk) -> Result<Filled, SearchError> {
        self.step(walk, &self.next(), None).await
    }

    async fn mend(&self, walk: Walk, since: Option<Millis>) -> Result<Filled, SearchError> {
        self.step(walk, &self.alias, since).await
    }

    async fn compare(&self, expected: u64, sample: usize) -> Result<Comparison, SearchError> {
        let made = self.made(&self.being_built().await?).await?;
        // What came later may be on its way there still.
        let mut sample = self.sample(sample).await?;
        sample.retain(|message| made.is_none_or(|made| message.at <= made));
        let (sampled, mut tries) = (sample.len() as u64, 0);
        let different = loop {
            let different = self.differences(&sample).await?;
            // By the clock of a gateway that is slow.
            if different.is_empty() || tries >= LATE_TRIES {
                break different;
            }
            tries += 1;
            tokio::time::sleep(LATE_PAUSE).await;
            sample.retain(|message| different.contains(&(message.channel, message.seq)));
        };
        Ok(Comparison { expected, found: self.count(&self.next()).await?, sampled, different })
    }

    async fn swap(&self) -> Result<(), SearchError> {
        let (live, new) = (self.live().await?, self.being_built().await?);
        // As the template says for an index in use.
        let settings = &schema::settings(&self.alias)["index"];
        let kept = json!({"index": {
            "refresh_interval": settings["refresh_interval"], "auto_expand_replicas": settings["auto_expand_replicas"],
        }});
        self.call(Method::Put, &format!("/{new}/_settings"), kept).await?;
        self.call(Method::Post, &format!("/{new}/_refresh"), Value::Null).await?;
        let mut actions = vec![
            json!({"remove": {"index": live, "alias": self.alias}}),
            json!({"remove": {"index": new, "alias": self.next()}}),
            json!({"add": {"index": new, "alias": self.alias, "is_write_index": true}}),
            json!({"add": {"index": live, "alias": self.former()}}),
        ];
        if let Some(former) = self.behind(&self.former()).await? {
            actions.push(json!({"remove_index": {"index": former}}));
        }
        self.call(Method::Post, "/_aliases", json!({"actions": actions})).await.map(drop)
    }

    async fn roll_back(&self) -> Result<Mending, SearchError> {
        let live = self.live().await?;
        let missing = || SearchError::Invalid("there is no former index".into());
        let former = self.behind(&self.former()).await?.ok_or_else(missing)?;
        // The former one had all that was indexed until then, and more.
        let since = self.made(&live).await?;
        let actions = json!([
            {"remove": {"index": live, "alias": self.alias}},
            {"remove": {"index": former, "alias": self.former()}},
            {"add": {"index": former, "alias": self.alias, "is_write_index": true}},
            {"add": {"index": live, "alias": self.former()}},
        ]);
        self.call(Method::Post, "/_aliases", json!({ "actions": actions })).await?;
        Ok(Mending { walks: self.parts().await?, since })
    }

    async fn abandon(&self) -> Result<(), SearchError> {
        match self.behind(&self.next()).await? {
            Some(index) => self.call(Method::Delete, &format!("/{index}"), Value::Null).await.map(drop),
            None => Ok(()),
        }
    }

    async fn drop_former(&self) -> Result<(), SearchError> {
        match self.behind(&self.former()).await? {
            Some(index) => self.call(Method::Delete, &format!("/{index}"), Value::Null).await.map(drop),
            None => Ok(()),
        }
    }
}

/// The alias of the index that was in use before.
pub(super) fn former(alias: &str) -> String {
    format!("{alias}-former")
}

/// The alias of an index that is being built.
pub(super) fn next(alias: &str) -> String {
    format!("{alias}-next")
}

fn unavailable(error: schema::SchemaError) -> SearchError {
    SearchError::Unavailable(error.to_string())
}

fn not_read(error: StoreError) -> SearchError {
    SearchError::Unavailable(error.to_string())
}
