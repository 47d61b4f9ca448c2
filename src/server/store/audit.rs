//! What `aula verify` asks of a store beyond what a server needs, and how it mends it.

use async_trait::async_trait;

use super::{ChannelState, Member, Purge, StoreError};
use crate::message::{ChannelId, Seq, Username};

/// Looks at the tables as they are, nothing completed or corrected on the way, and mends what can be told from others.
#[async_trait]
pub trait Audit: Purge {
    /// The channel, its members and their watermarks as they were at one moment; `None` if it has no head.
    ///
    /// Errors, here and below: [`StoreError::Unavailable`], also for a value that can't be read.
    async fn picture(&self, id: ChannelId) -> Result<Option<ChannelState>, StoreError>;

    /// The first entry above `after` and up to `through`, also behind a hole.
    async fn next_seq(&self, id: ChannelId, after: Seq, through: Seq) -> Result<Option<Seq>, StoreError>;

    /// Since which seq the channel is in each of these users' own lists, in the order asked; `None` if it isn't there.
    async fn listed(&self, id: ChannelId, users: Vec<Username>) -> Result<Vec<Option<Seq>>, StoreError>;

    /// One step through the lists of all users: those of its rows that no membership of the channel stands behind. How
    /// far the step came goes into the next one; `None` at the end.
    async fn strays_in_lists(&self, after: Option<ListCursor>) -> Result<ListStep, StoreError>;

    /// Where the entries of about this seq are, for people: the table, and the part of it.
    fn whereabouts(&self, seq: Seq) -> String;

    /// Writes what is to be there. Beside running owners nothing newer is undone, and what was removed since does not
    /// come back. Whether it took must be looked at: something written with a higher timestamp hides it.
    async fn mend(&self, id: ChannelId, mend: Mend) -> Result<(), StoreError>;
}

/// How far the lists were read. Opaque, and of this process alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListCursor(pub(super) Vec<u8>);

/// What a step brought.
#[derive(Debug)]
pub struct ListStep {
    /// Rows that were looked at.
    pub rows: u64,
    /// How much of all is done, 0 to 1, as far as that can be told.
    pub fraction: f64,
    pub strays: Vec<Listed>,
    pub rest: Option<ListCursor>,
}

/// A row of a user's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub user: Username,
    /// `None`: the row names a local key that no channel has (embedded).
    pub channel: Option<ChannelId>,
}

/// What is to be there, as of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// The entries behind the head are taken in: the head, and what they did to members.
    Head,
    /// The channel is in the user's list.
    List {
        user: Username,
        joined_seq: Seq,
        as_of: Seq,
    },
    Unlist {
        user: Username,
        as_of: Seq,
    },
    /// The user is a member, with this role and these watermarks.
    Member {
        user: Username,
        member: Member,
        as_of: Seq,
    },
    /// No stay that began up to `joined_seq` goes on.
    NoMember {
        user: Username,
        joined_seq: Seq,
        as_of: Seq,
    },
    /// How far all members have it.
    ByAll {
        delivered: Seq,
        read: Seq,
    },
}
