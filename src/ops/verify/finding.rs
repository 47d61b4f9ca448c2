//! What can be wrong with a channel, and what brings it right.

use serde::Serialize;

use crate::message::{ChannelId, Role, Seq, Username};
use crate::server::store::Member;
use crate::server::store::audit::Mend;

/// Something that one place says and another does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub channel: Option<ChannelId>,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// Entries from `first` to `last` are not there.
    Hole { first: Seq, last: Seq },
    /// There are entries above the head, the next of them at `next`.
    HeadBehind { head: Seq, next: Seq },
    /// By the log the user is a member; by the channel's members not, or since another seq, or in another role.
    Member {
        user: Username,
        joined_seq: Seq,
        #[serde(skip)]
        member: Member,
        found: Option<Stay>,
    },
    /// By the channel's members the user is one; by the log not.
    NoMember { user: Username, joined_seq: Seq },
    /// A member's watermarks are above the head, or below what the log says.
    Watermarks {
        user: Username,
        delivered: Seq,
        read: Seq,
        #[serde(skip)]
        member: Member,
    },
    /// What is said to be delivered to all and read by all is not the least of the members' watermarks.
    ByAll { delivered: Seq, read: Seq, least_delivered: Seq, least_read: Seq },
    /// The user is a member, and the channel is not in the user's list, or since another seq.
    NotListed { user: Username, joined_seq: Seq },
    /// The channel is in the user's list, and the user is no member.
    Listed { user: Username },
    /// The entry is not in the search index.
    NotIndexed { seq: Seq, id: uuid::Uuid },
    /// The search index has something that is no entry of the log.
    StrayInIndex { document: String, seq: Option<Seq> },
}

/// How somebody is a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stay {
    pub joined_seq: Seq,
    pub role: Role,
}

impl What {
    /// As in the report's counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Hole { .. } => "hole",
            Self::HeadBehind { .. } => "head_behind",
            Self::Member { .. } => "member",
            Self::NoMember { .. } => "no_member",
            Self::Watermarks { .. } => "watermarks",
            Self::ByAll { .. } => "by_all",
            Self::NotListed { .. } => "not_listed",
            Self::Listed { .. } => "listed",
            Self::NotIndexed { .. } => "not_indexed",
            Self::StrayInIndex { .. } => "stray_in_index",
        }
    }

    /// Whether it is about the same thing, though its numbers may have moved on since.
    pub fn is_same(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    fn key(&self) -> (&'static str, Option<&Username>, Seq) {
        let (user, seq) = match self {
            Self::Hole { first, .. } => (None, *first),
            Self::HeadBehind { head, .. } => (None, *head),
            Self::Member { user, joined_seq, .. }
            | Self::NoMember { user, joined_seq }
            | Self::NotListed { user, joined_seq } => (Some(user), *joined_seq),
            Self::Watermarks { user, .. } | Self::Listed { user } => (Some(user), 0),
            Self::ByAll { .. } | Self::StrayInIndex { .. } => (None, 0),
            Self::NotIndexed { seq, .. } => (None, *seq),
        };
        (self.kind(), user, seq)
    }

    /// What mends the tables, as of a head. Nothing does where entries are gone; the index is mended otherwise.
    pub fn mends(&self, as_of: Seq) -> Vec<Mend> {
        match self.clone() {
            Self::Hole { .. } | Self::NotIndexed { .. } | Self::StrayInIndex { .. } => Vec::new(),
            Self::HeadBehind { .. } => vec![Mend::Head],
            Self::Member { user, member, .. } | Self::Watermarks { user, member, .. } => {
                vec![Mend::Member { user, member, as_of }]
            }
            Self::NoMember { user, joined_seq } => {
                vec![Mend::NoMember { user: user.clone(), joined_seq, as_of }, Mend::Unlist { user, as_of }]
            }
            Self::ByAll { least_delivered, least_read, .. } => {
                vec![Mend::ByAll { delivered: least_delivered, read: least_read }]
            }
            Self::NotListed { user, joined_seq } => vec![Mend::List { user, joined_seq, as_of }],
            Self::Listed { user } => vec![Mend::Unlist { user, as_of }],
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        match self {
            Self::Hole { first, last } if first == last => format!("entry {first} is missing from the log"),
            Self::Hole { first, last } => format!("entries {first} to {last} are missing from the log"),
            Self::HeadBehind { head, next } => format!("the head is {head}, and there is an entry {next}"),
            Self::Member { user, joined_seq, member, found: None } => {
                format!("{user} is a member since {joined_seq} ({}), and not among the members", role(member.role))
            }
            Self::Member { user, joined_seq, member, found: Some(found) } => format!(
                "{user} is {} since {joined_seq}, and {} since {} among the members",
                role(member.role),
                role(found.role),
                found.joined_seq
            ),
            Self::NoMember { user, joined_seq } => {
                format!("{user} is among the members since {joined_seq}, and none by the log")
            }
            Self::Watermarks { user, delivered, read, member } => format!(
                "{user}'s watermarks are delivered {delivered}, read {read}, and can only be {}, {}",
                member.delivered, member.read
            ),
            Self::ByAll { delivered, read, least_delivered, least_read } => format!(
                "delivered to all {delivered}, read by all {read}; the members have {least_delivered}, {least_read}"
            ),
            Self::NotListed { user, joined_seq } => {
                format!("{user} is a member since {joined_seq}, and it is not in {user}'s list of channels")
            }
            Self::Listed { user } => format!("it is in {user}'s list of channels, and {user} is no member"),
            Self::NotIndexed { seq, id } => format!("entry {seq} (message {id}) is not in the search index"),
            Self::StrayInIndex { document, seq: Some(seq) } => {
                format!("the search index has {document} as entry {seq}, which it is not")
            }
            Self::StrayInIndex { document, seq: None } => {
                format!("the search index has {document}, which is no message")
            }
        }
    }

    /// Why it can't be mended here, and what can be done.
    pub fn why_not(&self) -> &'static str {
        match self {
            Self::Hole { .. } => "messages are never made up: only a backup has them",
            Self::StrayInIndex { .. } => "`aula reindex` builds an index without it",
            Self::NotIndexed { .. } => "it can't be indexed: `aula reindex` says why",
            Self::Watermarks { .. } | Self::ByAll { .. } => {
                "a value with a higher timestamp is there: it is right again when the log has come so far"
            }
            _ => "it is as before: something written with a higher timestamp hides it, or entries are missing",
        }
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Owner => "an owner",
        Role::Member => "a member",
    }
}
