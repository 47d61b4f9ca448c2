//! What the server sends.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ErrorCode;
use crate::message::{ChannelId, ChannelKind, Message, Millis, Seq, Username};

/// One frame; the variants are the ops. `ref` is that of the request it answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Frame {
    Welcome(Box<Welcome>),
    Message(Arc<Message>),
    Status(Status),
    ChannelCreated {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<u64>,
        channel: ChannelInfo,
    },
    MembersChanged(MembersChanged),
    SearchResults(SearchResults),
    Typing {
        channel: ChannelId,
        username: Username,
    },
    /// Entries of the channel up to `last_seq` were left out on this connection: read them with `history`.
    Gap {
        channel: ChannelId,
        after: Seq,
        last_seq: Seq,
    },
    /// Everything of the channel up to `seq` was removed for good: forget it. What follows begins behind it.
    Purged {
        channel: ChannelId,
        seq: Seq,
    },
    /// The server is going away: connect again after this many milliseconds.
    Reconnect {
        after_ms: u64,
    },
    Error(Error),
    Ok(Reply),
    Pong {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<u64>,
    },
}

/// The ops of [`Frame`]s.
pub const OPS: &[&str] = &[
    "welcome",
    "message",
    "status",
    "channel_created",
    "members_changed",
    "search_results",
    "typing",
    "gap",
    "purged",
    "reconnect",
    "error",
    "ok",
    "pong",
];

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Welcome {
    pub session: Uuid,
    pub username: Username,
    pub server: String,
    pub features: BTreeMap<&'static str, bool>,
    /// Most recently active first, at most 200; the rest by `GET /api/v1/channels`.
    pub channels: Vec<ChannelSummary>,
}

/// A channel as one of its members sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChannelSummary {
    #[serde(flatten)]
    pub channel: ChannelInfo,
    /// The user's own watermarks, and `unread = last_seq - max(read_seq, purged_seq)`.
    pub delivered_seq: Seq,
    pub read_seq: Seq,
    pub unread: u64,
    /// The watermarks of all members together: what `status` frames report.
    pub delivered_by_all: Seq,
    pub read_by_all: Seq,
    /// The newest entries, ascending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Arc<Message>>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelInfo {
    pub id: ChannelId,
    pub kind: ChannelKind,
    pub name: Option<String>,
    /// At most the first 100, by name; `member_count` says how many there are.
    pub members: Vec<Username>,
    pub member_count: usize,
    pub last_seq: Seq,
    /// The log begins behind this: what came before was purged. Left out where nothing was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub purged_seq: Seq,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(seq: &Seq) -> bool {
    *seq == 0
}

/// How far a message has come.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// Stored: history holds it. To the sender's sockets.
    Persisted { channel: ChannelId, seq: Seq, client_id: Uuid },
    /// Accepted, but not in the log: the sender was no longer a member when its turn came.
    Rejected { channel: ChannelId, client_id: Uuid, code: ErrorCode },
    /// Every member has everything up to `seq`.
    Delivered { channel: ChannelId, seq: Seq },
    /// Every member has read everything up to `seq`.
    Read { channel: ChannelId, seq: Seq },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MembersChanged {
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<u64>,
    pub channel: ChannelId,
    /// The log entry of the change; the head of the log if nothing had to change.
    pub seq: Seq,
    pub added: Vec<Username>,
    pub removed: Vec<Username>,
    pub by: Username,
    pub member_count: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SearchResults {
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<u64>,
    #[serde(flatten)]
    pub page: SearchPage,
}

/// Newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchPage {
    pub hits: Vec<Hit>,
    /// Hits in all, counted up to the configured cap.
    pub total: u64,
    /// Hand it in to get the next page; absent on the last one.
    pub cursor: Option<String>,
    /// Only if they were asked for. The last field: one that is left out moves no other in a compact encoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facets: Option<Facets>,
}

/// How the matches spread: the ten channels and the ten senders with the most, largest first. Where there are more
/// matches than are counted, it may be of a part of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facets {
    pub channels: Vec<ChannelCount>,
    pub senders: Vec<SenderCount>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelCount {
    pub channel: ChannelId,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SenderCount {
    pub username: Username,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    pub channel: ChannelId,
    pub seq: Seq,
    pub id: Uuid,
    pub sender: Username,
    pub at: Millis,
    pub body: String,
    /// The body with `<mark>…</mark>` around what matched, everything else escaped as HTML text.
    pub highlight: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Error {
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<u64>,
    pub code: ErrorCode,
    /// For people; says what to do.
    pub message: String,
    /// Whether the very same request may succeed later (a send: with `retry: true`).
    pub retry: bool,
    pub retry_after_ms: Option<u64>,
}

/// The reply to a request that was taken; which fields are there depends on the op.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Reply {
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Arc<Message>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<BTreeMap<ChannelId, Resumed>>,
}

/// How a channel's resume ended: everything up to `last_seq` was sent, or a `gap` was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resumed {
    pub complete: bool,
    pub last_seq: Seq,
    /// Set when nothing could be resumed, with `complete: false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
}

#[cfg(test)]
mod tests {
    use super::OPS;

    #[test]
    fn each_variant_is_listed() {
        let source = include_str!("frame.rs");
        let (_, rest) = source.split_once("pub enum Frame {\n").unwrap();
        let (variants, _) = rest.split_once("\n}").unwrap();
        let names = variants.lines().filter_map(|line| line.strip_prefix("    ")?.split(['(', ' ', ',']).next());
        let names = names.filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()));
        let ops: Vec<String> = names.map(snake_case).collect();
        assert_eq!(ops, OPS);
    }

    fn snake_case(name: &str) -> String {
        let mut text = String::new();
        for c in name.chars() {
            if c.is_ascii_uppercase() && !text.is_empty() {
                text.push('_');
            }
            text.push(c.to_ascii_lowercase());
        }
        text
    }
}
