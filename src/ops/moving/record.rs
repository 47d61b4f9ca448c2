//! The lines of an export: one JSON object each.
//!
//! A line `{"channel": …}` is followed by that channel's entries, one line `{"entry": …}` each, in the order of their seqs
//! and without a hole. A line `{"account": …}` stands for itself. Times are Unix milliseconds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::message::{ChannelId, ChannelKind, Kind, Message, Millis, Role, Seq, Username};
use crate::server::store::{ChannelState, Member};

/// Longer lines are none of ours: a channel's with 200,000 members has fewer bytes.
pub const MAX_LINE: u64 = 64 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    Channel(Header),
    Entry(Entry),
    Account(Account),
}

/// A channel without its entries, which follow: those above `purged_seq`, up to `last_seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub id: ChannelId,
    pub kind: ChannelKind,
    pub name: Option<String>,
    pub last_seq: Seq,
    /// What came up to here was removed for good.
    pub purged_seq: Seq,
    pub delivered_by_all: Seq,
    pub read_by_all: Seq,
    /// In the order of their names.
    pub members: Vec<ListedMember>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedMember {
    pub username: Username,
    pub role: Role,
    pub joined_seq: Seq,
    pub delivered: Seq,
    pub read: Seq,
}

/// An entry of the channel whose header came last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub seq: Seq,
    pub id: Uuid,
    pub sender: Username,
    pub client_id: Uuid,
    pub kind: Kind,
    pub body: String,
    pub at: i64,
}

/// A user; log-in sessions are not exported.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub username: Username,
    /// PHC string, argon2id.
    pub password_hash: String,
    pub created_at: i64,
    pub disabled_at: Option<i64>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Record {
    /// With its line end. Errors: none that these types can have.
    pub fn to_line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Errors: it is another version's, or none at all.
    pub fn of_line(line: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(line)
    }
}

impl Header {
    pub fn of(id: ChannelId, state: ChannelState, purged_seq: Seq) -> Self {
        let ChannelState { kind, name, last_seq, members, delivered_by_all, read_by_all } = state;
        let members = members.into_iter().map(|(username, member)| {
            let Member { role, joined_seq, delivered, read } = member;
            ListedMember { username, role, joined_seq, delivered, read }
        });
        Self { id, kind, name, last_seq, purged_seq, delivered_by_all, read_by_all, members: members.collect() }
    }
}

impl ListedMember {
    pub fn member(&self) -> Member {
        let Self { role, joined_seq, delivered, read, .. } = *self;
        Member { role, joined_seq, delivered, read }
    }
}

impl From<Message> for Entry {
    fn from(message: Message) -> Self {
        let Message { channel: _, seq, id, sender, client_id, kind, body, at } = message;
        Self { seq, id, sender, client_id, kind, body, at: at.0 }
    }
}

impl Entry {
    pub fn message(self, channel: ChannelId) -> Arc<Message> {
        let Self { seq, id, sender, client_id, kind, body, at } = self;
        Arc::new(Message { channel, seq, id, sender, client_id, kind, body, at: Millis(at) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Username> {
        "[a-z0-9][a-z0-9_.-]{0,31}".prop_map(|name| Username::new(&name).unwrap())
    }

    fn uuid() -> impl Strategy<Value = Uuid> {
        any::<u128>().prop_map(Uuid::from_u128)
    }

    fn member() -> impl Strategy<Value = ListedMember> {
        let role = prop_oneof![Just(Role::Owner), Just(Role::Member)];
        (name(), role, any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
            |(username, role, joined_seq, delivered, read)| ListedMember {
                username,
                role,
                joined_seq,
                delivered,
                read,
            },
        )
    }

    fn header() -> impl Strategy<Value = Header> {
        let kind = prop_oneof![Just(ChannelKind::Direct), Just(ChannelKind::Group)];
        let seqs = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
        (uuid(), kind, option::of(any::<String>()), seqs, prop::collection::vec(member(), 0..5)).prop_map(
            |(id, kind, name, (last_seq, purged_seq, delivered_by_all, read_by_all), members)| Header {
                id: ChannelId(id),
                kind,
                name,
                last_seq,
                purged_seq,
                delivered_by_all,
                read_by_all,
                members,
            },
        )
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let kind = prop_oneof![Just(Kind::Text), Just(Kind::Media), Just(Kind::System)];
        (any::<u64>(), uuid(), name(), uuid(), kind, any::<String>(), any::<i64>()).prop_map(
            |(seq, id, sender, client_id, kind, body, at)| Entry { seq, id, sender, client_id, kind, body, at },
        )
    }

    fn account() -> impl Strategy<Value = Account> {
        (name(), any::<String>(), any::<i64>(), option::of(any::<i64>())).prop_map(
            |(username, password_hash, created_at, disabled_at)| Account {
                username,
                password_hash,
                created_at,
                disabled_at,
            },
        )
    }

    fn record() -> impl Strategy<Value = Record> {
        prop_oneof![
            header().prop_map(Record::Channel),
            entry().prop_map(Record::Entry),
            account().prop_map(Record::Account)
        ]
    }

    proptest! {
        #[test]
        fn a_record_is_one_line_and_comes_back_as_it_was(record in record()) {
            let line = record.to_line().unwrap();
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(line.last(), Some(&b'\n'));
            prop_assert_eq!(Record::of_line(&line).unwrap(), record);
        }

        #[test]
        fn a_line_that_was_cut_is_refused(record in record(), share in 0.0..1.0) {
            let line = record.to_line().unwrap();
            let cut = ((line.len() - 1) as f64 * share) as usize;
            prop_assert!(Record::of_line(&line[..cut]).is_err());
        }

        #[test]
        fn an_entry_is_the_message_that_it_was_made_of(entry in entry(), channel in uuid()) {
            let message = entry.clone().message(ChannelId(channel));
            prop_assert_eq!(Entry::from(message.as_ref().clone()), entry);
        }
    }

    #[test]
    fn the_format_is_what_it_was() {
        let line = br#"{"entry":{"seq":2,"id":"00000000-0000-0000-0000-000000000001","sender":"ada","client_id":"00000000-0000-0000-0000-000000000002","kind":"text","body":"a\nb","at":1795377600120}}"#;
        let record = Record::of_line(line).unwrap();
        assert_eq!(record.to_line().unwrap().trim_ascii_end(), line);
        let line = br#"{"channel":{"id":"00000000-0000-0000-0000-000000000001","kind":"group","name":null,"last_seq":3,"purged_seq":1,"delivered_by_all":2,"read_by_all":1,"members":[{"username":"ada","role":"owner","joined_seq":1,"delivered":3,"read":2}]}}"#;
        let record = Record::of_line(line).unwrap();
        assert_eq!(record.to_line().unwrap().trim_ascii_end(), line);
        for bad in [&b""[..], b"{}", b"[]", br#"{"other":{}}"#, br#"{"account":{"username":"Ada"}}"#] {
            assert!(Record::of_line(bad).is_err());
        }
    }
}
