//! From the bytes of both encodings, and from JSON values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Message, Received, Resumed, Sent};
use crate::message::{ChannelId, Seq};

#[derive(Deserialize)]
struct Op<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(rename = "ref")]
    reference: Option<u64>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    channel: Option<ChannelId>,
    messages: Option<Vec<Message<'a>>>,
    #[serde(default)]
    more: bool,
    channels: Option<BTreeMap<ChannelId, Resumed>>,
}

#[derive(Deserialize)]
struct History {
    #[serde(rename = "ref")]
    reference: u64,
    channel: ChannelId,
    before: Option<Seq>,
    after: Option<Seq>,
}

#[derive(Deserialize)]
struct Resume {
    #[serde(rename = "ref")]
    reference: Option<u64>,
    /// Of an `auth`.
    resume: Option<BTreeMap<ChannelId, Seq>>,
    channels: Option<BTreeMap<ChannelId, Seq>>,
}

#[derive(Deserialize)]
struct Created {
    #[expect(dead_code, reason = "it has to be there, and is judged by nobody")]
    channel: CreatedChannel,
}

#[derive(Deserialize)]
struct CreatedChannel {
    #[expect(dead_code, reason = "as above")]
    id: ChannelId,
}

#[derive(Deserialize)]
struct OfChannel {
    #[expect(dead_code, reason = "as above")]
    channel: ChannelId,
}

/// A frame that can be read several times: first its op, then as what the op says.
trait Source<'a>: Copy {
    fn read<T: Deserialize<'a>>(self) -> Result<T, String>;
}

#[derive(Clone, Copy)]
struct Json<'a>(&'a [u8]);

#[derive(Clone, Copy)]
struct Msgpack<'a>(&'a [u8]);

#[derive(Clone, Copy)]
struct Parsed<'a>(&'a Value);

impl<'a> Source<'a> for Json<'a> {
    fn read<T: Deserialize<'a>>(self) -> Result<T, String> {
        serde_json::from_slice(self.0).map_err(|error| error.to_string())
    }
}

impl<'a> Source<'a> for Msgpack<'a> {
    fn read<T: Deserialize<'a>>(self) -> Result<T, String> {
        let mut reader = rmp_serde::Deserializer::from_read_ref(self.0).with_human_readable();
        T::deserialize(&mut reader).map_err(|error| error.to_string())
    }
}

impl<'a> Source<'a> for Parsed<'a> {
    fn read<T: Deserialize<'a>>(self) -> Result<T, String> {
        T::deserialize(self.0).map_err(|error| error.to_string())
    }
}

impl<'a> Message<'a> {
    /// Errors: what is wrong with it, for people.
    pub fn from_value(message: &'a Value) -> Result<Self, String> {
        Parsed(message).read()
    }
}

/// How our server begins a `message`: nearly all frames are one, and the look for the op can be spared.
pub(super) const JSON_MESSAGE: &[u8] = b"{\"op\":\"message\",";
pub(super) const MSGPACK_MESSAGE: &[u8] = b"\xa2op\xa7message";

impl<'a> Received<'a> {
    /// A text frame. Errors: what is wrong with it, for people.
    pub fn from_json(bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.starts_with(JSON_MESSAGE) {
            return Json(bytes).read().map(Self::Message);
        }
        Self::from_source(Json(bytes))
    }

    /// A binary frame.
    pub fn from_msgpack(bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.get(1..).is_some_and(|entries| entries.starts_with(MSGPACK_MESSAGE)) {
            return Msgpack(bytes).read().map(Self::Message);
        }
        Self::from_source(Msgpack(bytes))
    }

    pub fn from_value(frame: &'a Value) -> Result<Self, String> {
        Self::from_source(Parsed(frame))
    }

    fn from_source(source: impl Source<'a>) -> Result<Self, String> {
        let Op { op } = source.read()?;
        Ok(match op.as_ref() {
            "message" => Self::Message(source.read()?),
            "status" => Self::Status(source.read()?),
            "ok" => Self::from_reply(source.read()?)?,
            "error" => Self::Error(source.read()?),
            "welcome" => Self::Welcome(source.read()?),
            "gap" => Self::Gap(source.read()?),
            "purged" => Self::Purged(source.read()?),
            "search_results" => Self::SearchResults(source.read()?),
            // Who joins and leaves is told by the log's own entries; these only have to be well-formed.
            "channel_created" => source.read::<Created>().map(|_| Self::Other)?,
            "members_changed" => source.read::<OfChannel>().map(|_| Self::Other)?,
            "typing" | "presence" | "reconnect" | "pong" => Self::Other,
            other => return Err(format!("{other:?} is no op of the protocol")),
        })
    }

    fn from_reply(reply: Reply<'a>) -> Result<Self, String> {
        let Reply { reference, status, channel, messages, more, channels } = reply;
        let reference = || reference.ok_or_else(|| "an answer without ref".to_owned());
        Ok(if status.as_deref() == Some("accepted") {
            Self::Accepted { reference: reference()? }
        } else if let Some(messages) = messages {
            Self::Page { reference: reference()?, channel, messages, more }
        } else if let Some(channels) = channels {
            Self::Resumed { reference: reference()?, channels }
        } else {
            Self::Other
        })
    }
}

impl<'a> Sent<'a> {
    pub fn from_json(bytes: &'a [u8]) -> Result<Self, String> {
        Self::from_source(Json(bytes))
    }

    pub fn from_msgpack(bytes: &'a [u8]) -> Result<Self, String> {
        Self::from_source(Msgpack(bytes))
    }

    pub fn from_value(frame: &'a Value) -> Result<Self, String> {
        Self::from_source(Parsed(frame))
    }

    fn from_source(source: impl Source<'a>) -> Result<Self, String> {
        let Op { op } = source.read()?;
        Ok(match op.as_ref() {
            "send" => Self::Send(source.read()?),
            "history" => match source.read()? {
                History { reference, channel, before: None, after: None } => Self::Newest { reference, channel },
                History { .. } => Self::Other,
            },
            "resume" | "auth" => match source.read()? {
                Resume { reference: Some(reference), resume: Some(channels), .. }
                | Resume { reference: Some(reference), channels: Some(channels), .. } => {
                    Self::Resume { reference, channels }
                }
                Resume { .. } => Self::Other,
            },
            _ => Self::Other,
        })
    }
}
