//! A dead letter as it is shown. What people wrote is left out unless it is asked for.

use serde::Serialize;
use serde_json::{Value, json};

use crate::message::{ChannelId, Millis, Username};
use crate::ops::output::printable;
use crate::ops::terminal::age;
use crate::server::queue::{DeadLetter, Task};

/// Of a payload that is no task, at most this many bytes are shown.
const SHOWN_BYTES: usize = 1024;

#[derive(Debug, Serialize)]
pub struct View {
    pub id: String,
    pub queue: &'static str,
    pub shard: u16,
    /// `send`, `create`, `change`, `receipts`, `index`, `search`, or `unreadable`.
    pub kind: &'static str,
    pub channel: Option<ChannelId>,
    pub sender: Option<Username>,
    pub reason: String,
    pub attempts: u32,
    pub enqueued_at: Option<Millis>,
    pub first_failed_at: Option<Millis>,
    pub last_failed_at: Option<Millis>,
    /// Of the payload.
    pub bytes: usize,
    /// Its fields, without what people wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Value>,
}

/// How much of a task is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    Line,
    Fields,
    Bodies,
}

impl View {
    pub fn of(letter: &DeadLetter, detail: Detail) -> Self {
        let task = Task::decode(&letter.payload);
        let (kind, channel, sender) = match &task {
            Ok(Task::Send(task)) => ("send", Some(task.channel), Some(task.sender.clone())),
            Ok(Task::Create(task)) => ("create", Some(task.channel), task.members.first().cloned()),
            Ok(Task::Change(task)) => ("change", Some(task.channel), Some(task.by.clone())),
            Ok(Task::Receipts(task)) => ("receipts", Some(task.channel), None),
            Ok(Task::Index(task)) => ("index", task.ranges.first().map(|range| range.channel), None),
            Ok(Task::Search(task)) => ("search", None, Some(task.searcher.clone())),
            Err(_) => ("unreadable", None, None),
        };
        let fields = match (detail, &task) {
            (Detail::Line, _) => None,
            (_, Ok(task)) => Some(fields(task, detail == Detail::Bodies)),
            (Detail::Fields, Err(error)) => Some(json!({"unreadable": error.to_string()})),
            (Detail::Bodies, Err(error)) => {
                let shown = &letter.payload[..letter.payload.len().min(SHOWN_BYTES)];
                let hexadecimal: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
                Some(json!({"unreadable": error.to_string(), "payload": hexadecimal}))
            }
        };
        Self {
            id: letter.id.clone(),
            queue: letter.lane.family.as_str(),
            shard: letter.lane.shard,
            kind,
            channel,
            sender,
            reason: letter.reason.clone(),
            attempts: letter.deaths,
            enqueued_at: letter.enqueued_at,
            first_failed_at: letter.first_died_at,
            last_failed_at: letter.died_at,
            bytes: letter.payload.len(),
            task: fields,
        }
    }

    pub const HEADER: [&str; 8] = ["ID", "LANE", "KIND", "SENDER", "TRIES", "DIED", "CHANNEL", "REASON"];
    /// What a narrow terminal goes without, the first of these first.
    pub const DISPENSABLE: [&str; 5] = ["CHANNEL", "SENDER", "KIND", "TRIES", "DIED"];
    /// So many characters of a reason say more than another column.
    pub const SHORT_REASON: usize = 24;

    pub fn cells(&self) -> Vec<String> {
        let text = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let mut reason = self.reason.clone();
        if let Some(task) = &self.task {
            reason = format!("{reason}; {task}");
        }
        let cells = [
            self.id.clone(),
            format!("{}.{}", self.queue, self.shard),
            self.kind.to_owned(),
            text(self.sender.as_ref().map(Username::to_string)),
            self.attempts.to_string(),
            text(self.last_failed_at.map(ago)),
            text(self.channel.map(|channel| channel.to_string())),
            reason,
        ];
        cells.iter().map(|cell| printable(cell)).collect()
    }

    /// A line for each field.
    pub fn text(&self) -> String {
        let time = |at: Option<Millis>| at.map_or_else(|| "-".to_owned(), |at| format!("{at} ({} ago)", ago(at)));
        let lines = [
            ("id", self.id.clone()),
            ("lane", format!("{}.{}", self.queue, self.shard)),
            ("kind", self.kind.to_owned()),
            ("channel", self.channel.map_or_else(|| "-".to_owned(), |channel| channel.to_string())),
            ("sender", self.sender.as_ref().map_or_else(|| "-".to_owned(), Username::to_string)),
            ("reason", self.reason.clone()),
            ("attempts", self.attempts.to_string()),
            ("enqueued", time(self.enqueued_at)),
            ("first failed", time(self.first_failed_at)),
            ("last failed", time(self.last_failed_at)),
            ("bytes", self.bytes.to_string()),
            ("task", self.task.as_ref().map(Value::to_string).unwrap_or_default()),
        ];
        let lines = lines.iter().map(|(name, value)| format!("{name:<12}  {}", printable(value)));
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn ago(at: Millis) -> String {
    age(Millis::now().0.saturating_sub(at.0).max(0) as u64)
}

/// The fields of a task; of what people wrote its length alone, unless it is asked for.
fn fields(task: &Task, bodies: bool) -> Value {
    let written = serde_json::to_value(task).unwrap_or(Value::Null);
    // By its kind; that is told already.
    let mut fields = match written {
        Value::Object(by_kind) => by_kind.into_iter().next().map_or(Value::Null, |(_, fields)| fields),
        other => other,
    };
    if bodies {
        return fields;
    }
    if let Some(fields) = fields.as_object_mut() {
        for secret in ["body", "query"] {
            if let Some(hidden) = fields.remove(secret) {
                let length = hidden.as_str().map_or_else(|| hidden.to_string().len(), str::len);
                fields.insert(format!("{secret}_bytes"), length.into());
            }
        }
    }
    fields
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::message::Kind;
    use crate::server::queue::{Family, Lane, SendTask};

    fn letter(payload: Bytes) -> DeadLetter {
        DeadLetter {
            id: "7".into(),
            lane: Lane { family: Family::DbTasks, shard: 1 },
            payload,
            reason: "bad\x1b[2J".into(),
            deaths: 2,
            enqueued_at: Some(Millis(1)),
            first_died_at: None,
            died_at: Some(Millis(1_795_377_600_120)),
        }
    }

    #[test]
    fn what_people_wrote_is_shown_to_those_who_ask_for_it() {
        let send = SendTask {
            channel: ChannelId(Uuid::nil()),
            id: Uuid::nil(),
            sender: Username::new("ada").unwrap(),
            client_id: Uuid::nil(),
            kind: Kind::Text,
            body: "a secret".into(),
            at: Millis(0),
            retry: false,
        };
        let letter = letter(Task::Send(send).encode().unwrap());
        let shown = |detail| serde_json::to_string(&View::of(&letter, detail)).unwrap();
        assert!(!shown(Detail::Line).contains("secret") && !shown(Detail::Fields).contains("secret"));
        assert!(shown(Detail::Fields).contains("\"body_bytes\":8"), "{}", shown(Detail::Fields));
        assert!(shown(Detail::Bodies).contains("a secret"));
    }

    #[test]
    fn what_is_no_task_is_shown_as_bytes_and_steers_no_terminal() {
        let letter = letter(Bytes::from_static(b"\x09garbage"));
        let shown = View::of(&letter, Detail::Fields);
        assert_eq!((shown.kind, shown.channel), ("unreadable", None));
        assert!(!serde_json::to_string(&shown).unwrap().contains("09676172"));
        let all = View::of(&letter, Detail::Bodies);
        assert!(all.text().contains("0967617262616765"), "{}", all.text());
        assert!(!all.text().contains('\x1b') && !all.cells().concat().contains('\x1b'));
    }
}
