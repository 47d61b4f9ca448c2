//! What became of a message.

use serde::Serialize;
use uuid::Uuid;

use crate::message::{ChannelId, Kind, Millis, Seq, Username};
use crate::ops::output::printable;
use crate::ops::terminal;

/// Members named for people, at most; the JSON has all.
const NAMED: usize = 50;

#[derive(Debug, Serialize)]
pub struct Life {
    pub id: Uuid,
    pub channel: ChannelId,
    pub channel_name: Option<String>,
    pub seq: Seq,
    pub kind: Kind,
    pub sender: Username,
    pub client_id: Uuid,
    pub accepted_at: Millis,
    pub bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The file or the keyspace, and where in it.
    pub stored: String,
    /// The channel's head: the entries behind this one.
    pub last_seq: Seq,
    pub index: Indexed,
    pub delivered_to_all: bool,
    pub read_by_all: bool,
    pub members: Vec<Reached>,
    /// Of those there are, those that it died in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dead_letters: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Indexed {
    /// Only texts are.
    NotMeantToBe,
    #[serde(rename = "indexed")]
    Present {
        index: String,
    },
    Missing {
        index: String,
        /// Index tasks that wait; `None` if that can't be told.
        waiting: Option<u64>,
    },
    Unknown {
        why: String,
    },
}

/// How it is with one member.
#[derive(Debug, Serialize)]
pub struct Reached {
    pub user: Username,
    pub joined_seq: Seq,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    NotDelivered,
    Delivered,
    Read,
    /// It was in the log when they came.
    JoinedLater,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotDelivered => "not delivered yet",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::JoinedLater => "joined later",
        }
    }
}

impl Life {
    /// For people: in the order in which it happens to a message.
    pub fn text(&self) -> String {
        let Self { channel, seq, sender, members, .. } = self;
        let name = self.channel_name.as_ref().map_or(String::new(), |name| format!(" \"{name}\""));
        let kind = match self.kind {
            Kind::Text => "text",
            Kind::Media => "media",
            Kind::System => "a change of the channel",
        };
        let count = |state: State| members.iter().filter(|member| member.state == state).count();
        let (read, later) = (count(State::Read), count(State::JoinedLater));
        let reached = read + count(State::Delivered);
        let those = members.len() - later;
        let all = |is_so: bool| if is_so { ", and all have been told so" } else { "" };
        let mut lines = vec![
            ("message", format!("{}, {kind}, {} bytes, client_id {}", self.id, self.bytes, self.client_id)),
            ("accepted", format!("{} from {sender}", self.accepted_at)),
            ("entry", format!("{seq} of channel {channel}{name}, whose last is {}", self.last_seq)),
            ("stored", self.stored.clone()),
            ("indexed", self.index.text()),
            ("delivered", format!("to {reached} of {those} members{}", all(self.delivered_to_all))),
            ("read", format!("by {read} of {those} members{}", all(self.read_by_all))),
        ];
        lines.extend(self.dead_letters.iter().map(|letter| ("dead letter", letter.clone())));
        if let Some(body) = &self.body {
            lines.push(("body", body.clone()));
        }
        let lines = lines.iter().map(|(name, value)| format!("{name:<11}  {}", printable(value)));
        let mut lines: Vec<String> = lines.collect();
        let rows: Vec<Vec<String>> = members
            .iter()
            .take(NAMED)
            .map(|one| vec![one.user.to_string(), one.state.as_str().to_owned(), one.joined_seq.to_string()])
            .collect();
        lines.push(String::new());
        lines.extend(terminal::columns(&["MEMBER", "STATE", "SINCE"], &rows));
        if members.len() > NAMED {
            lines.push(format!("… and {} more (--output json names all)", members.len() - NAMED));
        }
        lines.join("\n")
    }
}

impl Indexed {
    fn text(&self) -> String {
        match self {
            Self::NotMeantToBe => "no, only texts are".to_owned(),
            Self::Present { index } => format!("yes, in {index}"),
            Self::Missing { index, waiting: Some(0) } => {
                format!("no, not in {index}, and nothing waits to be: `aula verify --repair` puts it there")
            }
            Self::Missing { index, waiting: Some(tasks) } => {
                format!("not in {index} yet: {tasks} index tasks wait, its own may be among them")
            }
            Self::Missing { index, waiting: None } => format!("not in {index}"),
            Self::Unknown { why } => format!("can't be told: {why}"),
        }
    }
}
