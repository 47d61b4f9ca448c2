//! Frames as a client meets them, decoded just so far as the oracle needs, and borrowing from the bytes: a client has
//! no other decoder of them, and one that runs for each delivery of a load test has to be cheap.

mod decode;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use uuid::Uuid;

use crate::message::{ChannelId, Kind, Millis, Seq};
use crate::wire::ErrorCode;

/// What a server sent.
#[derive(Debug, Clone)]
pub enum Received<'a> {
    Message(Message<'a>),
    /// The reply to a send.
    Accepted {
        reference: u64,
    },
    /// The reply to `history`.
    Page {
        reference: u64,
        channel: Option<ChannelId>,
        messages: Vec<Message<'a>>,
        more: bool,
    },
    /// The reply to `resume`.
    Resumed {
        reference: u64,
        channels: BTreeMap<ChannelId, Resumed>,
    },
    Error(Error<'a>),
    Status(Status),
    Welcome(Welcome<'a>),
    Gap(Gap),
    Purged(Purged),
    SearchResults(SearchResults<'a>),
    /// A well-formed frame that the oracle doesn't judge.
    Other,
}

/// What a client sent.
#[derive(Debug, Clone)]
pub enum Sent<'a> {
    Send(Send<'a>),
    Resume {
        reference: u64,
        channels: BTreeMap<ChannelId, Seq>,
    },
    /// `history` without a bound.
    Newest {
        reference: u64,
        channel: ChannelId,
    },
    Other,
}

/// One entry of a channel's log, in a frame of its own, a page, a welcome or among hits.
#[derive(Debug, Clone, Deserialize)]
pub struct Message<'a> {
    /// Where it is missing, the frame around it says it.
    pub channel: Option<ChannelId>,
    pub seq: Seq,
    pub id: Uuid,
    #[serde(borrow)]
    pub sender: Cow<'a, str>,
    /// Hits have none.
    pub client_id: Option<Uuid>,
    #[serde(default = "text")]
    pub kind: Kind,
    #[serde(borrow, default)]
    pub body: Cow<'a, str>,
    pub at: Millis,
}

fn text() -> Kind {
    Kind::Text
}

#[derive(Debug, Clone, Deserialize)]
pub struct Error<'a> {
    /// None: it answers no request.
    #[serde(rename = "ref")]
    pub reference: Option<u64>,
    pub code: ErrorCode,
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
    pub retry: bool,
    pub retry_after_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    Persisted { channel: ChannelId, client_id: Uuid, seq: Seq },
    Rejected { channel: ChannelId, client_id: Uuid },
    Delivered { channel: ChannelId, seq: Seq },
    Read { channel: ChannelId, seq: Seq },
}

#[derive(Debug, Clone, Deserialize)]
pub struct Welcome<'a> {
    #[serde(borrow)]
    pub channels: Vec<Head<'a>>,
}

/// A channel in a welcome.
#[derive(Debug, Clone, Deserialize)]
pub struct Head<'a> {
    pub id: ChannelId,
    pub last_seq: Seq,
    pub delivered_seq: Seq,
    pub read_seq: Seq,
    pub unread: u64,
    pub delivered_by_all: Option<Seq>,
    pub read_by_all: Option<Seq>,
    #[serde(borrow, default)]
    pub messages: Vec<Message<'a>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Gap {
    pub channel: ChannelId,
    pub last_seq: Seq,
}

/// Everything up to `seq` is gone.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Purged {
    pub channel: ChannelId,
    pub seq: Seq,
}

/// How one channel's resume ended.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Resumed {
    pub complete: bool,
    #[serde(default)]
    pub last_seq: Seq,
}

#[derive(Debug, Clone, Deserialize)]
pub struct SearchResults<'a> {
    #[serde(rename = "ref")]
    pub reference: Option<u64>,
    #[serde(borrow)]
    pub hits: Vec<Message<'a>>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Send<'a> {
    #[serde(rename = "ref")]
    pub reference: u64,
    pub channel: ChannelId,
    pub client_id: Uuid,
    #[serde(borrow, default)]
    pub body: Cow<'a, str>,
}
