//! What the oracle judges: everything each client saw, in the order it saw it, and the channels' final histories.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::client::Frame;

/// A whole run. Times are `clock::now()` of the one test process.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Each user's connections in the order they were opened.
    pub connections: Vec<Connection>,
    /// Each channel's history read to its end by each member after everything settled.
    pub histories: Vec<History>,
    pub hits: Vec<Hit>,
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub user: String,
    pub opened_at: u64,
    pub closed_at: u64,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug)]
pub struct History {
    pub reader: String,
    pub channel: String,
    /// The first seq this reader may see: 1, unless it joined later.
    pub from: u64,
    pub entries: Vec<Entry>,
}

/// A search result; it has no `client_id`.
#[derive(Clone, Debug)]
pub struct Hit {
    pub reader: String,
    pub entry: Entry,
}

#[derive(Clone, Debug)]
pub struct Event {
    /// For what was sent: before its first byte; for what was received: after its last.
    pub at: u64,
    pub seen: Seen,
}

#[derive(Clone, Debug)]
pub enum Seen {
    Send {
        reference: u64,
        channel: String,
        client_id: String,
        body: String,
    },
    /// The reply to a send.
    Accepted {
        reference: u64,
    },
    /// An `error` reply to anything; without `retry` it is final.
    Refused {
        reference: u64,
        code: String,
        retry: bool,
    },
    Persisted {
        channel: String,
        client_id: String,
        seq: u64,
    },
    Rejected {
        channel: String,
        client_id: String,
    },
    Watermark {
        mark: Mark,
        channel: String,
        seq: u64,
    },
    Message(Entry),
    /// A request for the newest page of `history`.
    NewestAsked {
        reference: u64,
        channel: String,
    },
    /// A reply to `history`.
    Page {
        reference: u64,
        entries: Vec<Entry>,
    },
    Welcome(Vec<Head>),
    /// Entries up to `last_seq`, if it is said, were left out.
    Gap {
        channel: String,
        last_seq: Option<u64>,
    },
    ResumeAsked {
        reference: u64,
        channels: BTreeMap<String, u64>,
    },
    ResumeReply {
        reference: u64,
        channels: BTreeMap<String, Resumed>,
    },
    /// A frame without the fields that its op promises.
    Malformed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Delivered,
    Read,
}

#[derive(Clone, Copy, Debug)]
pub struct Resumed {
    pub complete: bool,
    pub last_seq: u64,
}

/// A channel in a `welcome`.
#[derive(Clone, Debug)]
pub struct Head {
    pub channel: String,
    pub last_seq: u64,
    pub delivered_seq: u64,
    pub read_seq: u64,
    pub unread: u64,
    /// What `status` frames report, where the welcome has it: delivered and read by all.
    pub by_all: Option<(u64, u64)>,
    pub messages: Vec<Entry>,
}

/// One entry of a channel's log as somebody saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub channel: String,
    pub seq: u64,
    pub id: String,
    pub sender: String,
    pub client_id: Option<String>,
    pub kind: String,
    pub body: String,
    pub at: String,
}

impl Entry {
    /// Reads a `message`; `channel` stands in where the surrounding frame names it.
    pub fn from_value(value: &Value, channel: Option<&str>) -> Result<Self, String> {
        Ok(Self {
            channel: match channel {
                Some(channel) if value.get("channel").is_none() => channel.to_owned(),
                _ => text(value, "channel")?,
            },
            seq: number(value, "seq")?,
            id: text(value, "id")?,
            sender: plain(&value["sender"]),
            client_id: value["client_id"].as_str().map(str::to_owned),
            kind: value["kind"].as_str().unwrap_or("text").to_owned(),
            body: plain(&value["body"]),
            at: text(value, "at")?,
        })
    }

    /// A page of entries, as in `history`'s reply and `welcome`.
    pub fn list(value: &Value, channel: Option<&str>) -> Result<Vec<Self>, String> {
        let entries = value.as_array().ok_or("no array of messages")?;
        entries.iter().map(|entry| Self::from_value(entry, channel)).collect()
    }

    pub fn is_system(&self) -> bool {
        self.kind == "system"
    }
}

impl Event {
    /// What a frame means to the oracle; none for what it doesn't judge.
    pub fn from_frame(frame: &Frame) -> Option<Self> {
        let seen = if frame.sent { from_sent(&frame.value) } else { from_received(&frame.value) };
        let seen = match seen {
            Ok(seen) => seen?,
            Err(problem) => Seen::Malformed(format!("{problem}: {}", frame.value)),
        };
        Some(Self { at: frame.at, seen })
    }
}

fn from_sent(frame: &Value) -> Result<Option<Seen>, String> {
    Ok(match frame["op"].as_str() {
        Some("send") => Some(Seen::Send {
            reference: number(frame, "ref")?,
            channel: text(frame, "channel")?,
            client_id: text(frame, "client_id")?,
            body: plain(&frame["body"]),
        }),
        Some("resume") => {
            let asked = frame["channels"].as_object().into_iter().flatten();
            let channels = asked.filter_map(|(id, seq)| Some((id.clone(), seq.as_u64()?))).collect();
            Some(Seen::ResumeAsked { reference: number(frame, "ref")?, channels })
        }
        Some("history") if frame["before"].is_null() && frame["after"].is_null() => {
            Some(Seen::NewestAsked { reference: number(frame, "ref")?, channel: text(frame, "channel")? })
        }
        _ => None,
    })
}

fn from_received(frame: &Value) -> Result<Option<Seen>, String> {
    Ok(Some(match frame["op"].as_str() {
        Some("ok") => return from_ok(frame),
        Some("error") => Seen::Refused {
            // Errors outside a request (a broken frame) have no ref; no request has this one.
            reference: frame["ref"].as_u64().unwrap_or(u64::MAX),
            code: text(frame, "code")?,
            retry: frame["retry"].as_bool().ok_or("an error without retry")?,
        },
        Some("status") => from_status(frame)?,
        Some("message") => Seen::Message(Entry::from_value(frame, None)?),
        Some("welcome") => {
            let channels = frame["channels"].as_array().ok_or("a welcome without channels")?;
            Seen::Welcome(channels.iter().map(head).collect::<Result<_, _>>()?)
        }
        Some("gap") => Seen::Gap { channel: text(frame, "channel")?, last_seq: frame["last_seq"].as_u64() },
        // Who joins and leaves is told by the log's own entries; these only have to be well-formed.
        Some("channel_created") => return text(&frame["channel"], "id").map(|_| None),
        Some("members_changed") => return text(frame, "channel").map(|_| None),
        Some("search_results" | "typing" | "presence" | "reconnect" | "pong") => return Ok(None),
        _ => return Err("an op that isn't the protocol's".to_owned()),
    }))
}

fn from_ok(frame: &Value) -> Result<Option<Seen>, String> {
    if frame["status"] == "accepted" {
        return Ok(Some(Seen::Accepted { reference: number(frame, "ref")? }));
    }
    if !frame["messages"].is_null() {
        let entries = Entry::list(&frame["messages"], frame["channel"].as_str())?;
        return Ok(Some(Seen::Page { reference: number(frame, "ref")?, entries }));
    }
    let Some(channels) = frame["channels"].as_object() else { return Ok(None) };
    let mut resumed = BTreeMap::new();
    for (id, reply) in channels {
        // A channel may be answered with an error of its own: it is then not resumed.
        if let Some(complete) = reply["complete"].as_bool() {
            resumed.insert(id.clone(), Resumed { complete, last_seq: reply["last_seq"].as_u64().unwrap_or(0) });
        }
    }
    Ok(Some(Seen::ResumeReply { reference: number(frame, "ref")?, channels: resumed }))
}

fn from_status(frame: &Value) -> Result<Seen, String> {
    let channel = text(frame, "channel")?;
    Ok(match frame["status"].as_str() {
        Some("persisted") => {
            Seen::Persisted { channel, client_id: text(frame, "client_id")?, seq: number(frame, "seq")? }
        }
        Some("rejected") => Seen::Rejected { channel, client_id: text(frame, "client_id")? },
        Some("delivered") => Seen::Watermark { mark: Mark::Delivered, channel, seq: number(frame, "seq")? },
        Some("read") => Seen::Watermark { mark: Mark::Read, channel, seq: number(frame, "seq")? },
        _ => return Err("a status that isn't the protocol's".to_owned()),
    })
}

fn head(value: &Value) -> Result<Head, String> {
    let channel = text(value, "id")?;
    let messages = match &value["messages"] {
        Value::Null => Vec::new(),
        messages => Entry::list(messages, Some(&channel))?,
    };
    Ok(Head {
        last_seq: number(value, "last_seq")?,
        delivered_seq: number(value, "delivered_seq")?,
        read_seq: number(value, "read_seq")?,
        unread: number(value, "unread")?,
        by_all: value["delivered_by_all"].as_u64().zip(value["read_by_all"].as_u64()),
        messages,
        channel,
    })
}

fn text(value: &Value, field: &str) -> Result<String, String> {
    value[field].as_str().map(str::to_owned).ok_or_else(|| format!("no text in {field}"))
}

fn number(value: &Value, field: &str) -> Result<u64, String> {
    value[field].as_u64().ok_or_else(|| format!("no whole number in {field}"))
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
