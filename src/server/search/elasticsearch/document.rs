use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::message::{ChannelId, Message, Millis, Seq, Username};
use crate::server::search::rebuild::Rejected;
use crate::server::search::{SearchError, words};

/// A message as `schema/elasticsearch/0001_messages.json` maps it.
#[derive(Serialize)]
struct Source<'a> {
    channel: ChannelId,
    seq: Seq,
    sender: &'a Username,
    at: i64,
    body: &'a str,
    words: String,
}

impl<'a> Source<'a> {
    fn of(message: &'a Message) -> Self {
        let words: Vec<String> = words::split(&message.body).into_iter().map(|word| word.folded).collect();
        Self {
            channel: message.channel,
            seq: message.seq,
            sender: &message.sender,
            at: message.at.0,
            body: &message.body,
            words: words.join(" "),
        }
    }
}

/// What a search asks back of it.
#[derive(Deserialize)]
pub(super) struct Found {
    pub channel: ChannelId,
    pub seq: Seq,
    pub sender: Username,
    at: i64,
    pub body: String,
}

impl Found {
    pub const FIELDS: [&str; 5] = ["channel", "seq", "sender", "at", "body"];

    pub fn at(&self) -> Millis {
        Millis(self.at)
    }
}

/// Above all versions of a document.
const PURGED: u64 = 1 << 62;

/// One entry of a bulk, ready to be sent as often as it takes.
#[derive(Clone)]
pub(super) struct Document {
    pub id: Uuid,
    pub channel: ChannelId,
    pub seq: Seq,
    /// The action and, of a deletion none, the source.
    pub lines: Bytes,
}

impl Document {
    /// The version is external: the index takes a document only over an older one, so that neither a redelivery nor a
    /// late older version undoes what came after it. What is removed becomes a version without words, not a deletion:
    /// the server forgets the version of a deleted document after a minute (`index.gc_deletes`).
    pub fn new(message: &Message, version: u64) -> Result<Self, SearchError> {
        let source = Source::of(message);
        let action = json!({"index": {"_id": message.id, "version": version, "version_type": "external"}});
        let lines = serde_json::to_string(&source)
            .map(|source| format!("{action}\n{source}\n"))
            .map_err(|error| SearchError::Unavailable(format!("a document can't be written: {error}")))?;
        Ok(Self { id: message.id, channel: message.channel, seq: message.seq, lines: lines.into() })
    }

    /// Takes a message out for good. The server forgets the version after a minute: whoever might write the document later
    /// than that must be prevented from it otherwise.
    pub fn deletion(id: Uuid, channel: ChannelId, seq: Seq) -> Self {
        let action = json!({"delete": {"_id": id, "version": PURGED, "version_type": "external"}});
        Self { id, channel, seq, lines: format!("{action}\n").into() }
    }

    /// What the index has of a message.
    pub fn source(message: &Message) -> serde_json::Value {
        json!(Source::of(message))
    }

    pub fn rejected(&self, why: &str) -> Rejected {
        Rejected { channel: self.channel, seq: self.seq, id: self.id, why: why.to_owned() }
    }
}
