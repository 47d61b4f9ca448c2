//! What a client may ask for. Unknown fields are ignored, so that an older server understands a newer client.

use std::collections::HashMap;

use serde::Deserialize;
use uuid::Uuid;

use crate::message::{ChannelId, ChannelKind, Kind, Millis, Seq, Username};

/// A decoded request; the variants are the ops.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Auth(Auth),
    Send(Send),
    History(History),
    Resume(Resume),
    CreateChannel(CreateChannel),
    AddMembers(ChangeMembers),
    RemoveMember(ChangeMembers),
    Leave(InChannel),
    Search(Search),
    Delivered(Mark),
    Read(Mark),
    Typing(InChannel),
    Ping,
}

#[derive(Clone, PartialEq, Deserialize)]
pub struct Auth {
    /// An access token (a JWT).
    pub token: String,
    /// The same as a [`Resume`] right after the welcome, without another round trip.
    #[serde(default)]
    pub resume: HashMap<ChannelId, Seq>,
}

impl std::fmt::Debug for Auth {
    // By hand: a token must never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("resume", &self.resume).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Send {
    pub channel: ChannelId,
    /// Chosen by the client, the same for every attempt of one message; version 7 is best.
    pub client_id: Uuid,
    #[serde(default = "text")]
    pub kind: Kind,
    pub body: String,
    /// Not the first attempt: the server looks whether it has this `client_id` already.
    #[serde(default)]
    pub retry: bool,
}

fn text() -> Kind {
    Kind::Text
}

/// Entries before or after a position; without either, the newest.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct History {
    pub channel: ChannelId,
    pub before: Option<Seq>,
    pub after: Option<Seq>,
    pub limit: Option<u32>,
}

/// For each channel, the last seq that the client has without a hole before it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Resume {
    pub channels: HashMap<ChannelId, Seq>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CreateChannel {
    pub kind: ChannelKind,
    pub name: Option<String>,
    pub members: Vec<Username>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ChangeMembers {
    pub channel: ChannelId,
    pub members: Vec<Username>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct InChannel {
    pub channel: ChannelId,
}

/// Times are RFC 3339; `before` and `after` exclude the moment itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Search {
    pub query: String,
    pub channel: Option<ChannelId>,
    pub from: Option<Username>,
    pub before: Option<Millis>,
    pub after: Option<Millis>,
    pub limit: Option<u32>,
    pub cursor: Option<String>,
    /// Also count the matches by channel and by sender.
    #[serde(default)]
    pub facets: bool,
}

/// A watermark: everything up to `seq`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Mark {
    pub channel: ChannelId,
    pub seq: Seq,
}
