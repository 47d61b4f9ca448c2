//! Reading a channel: its head and its members are one partition, and one query.

use std::collections::BTreeMap;

use scylla::value::CqlTimestamp;
use uuid::Uuid;

use super::heads::Head;
use super::rows::{channel_kind, role, seq, seq_or_zero, username};
use super::{Inner, StoreError};
use crate::message::{ChannelId, ChannelKind, Millis, Role, Seq, Username};
use crate::server::store::{ChannelState, Member};

/// Readings of a channel that changes while its pages are read, before that is an error.
pub(super) const READINGS: usize = 8;

/// A row of `users_by_channel`. Of the channel, in every row: kind, name, last_seq, last_at, delivered_by_all,
/// read_by_all, purged_seq; before them what is the member's: username, joined_seq, role, delivered_seq, read_seq.
pub(super) type PartitionRow = (
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<CqlTimestamp>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

/// What is stored of a channel. Without a head it is not there yet.
pub(super) struct Picture {
    pub(super) kind: ChannelKind,
    pub(super) name: Option<String>,
    pub(super) head: Option<Head>,
    pub(super) purged_seq: Seq,
    pub(super) members: BTreeMap<Username, Member>,
}

impl Picture {
    pub(super) fn state(self) -> ChannelState {
        let head = self.head.unwrap_or(Head::NONE);
        ChannelState {
            kind: self.kind,
            name: self.name,
            last_seq: head.last_seq,
            members: self.members,
            delivered_by_all: head.delivered_by_all,
            read_by_all: head.read_by_all,
        }
    }
}

impl Head {
    /// Of a channel without an entry.
    pub(super) const NONE: Self = Self { last_seq: 0, last_at: Millis(i64::MIN), delivered_by_all: 0, read_by_all: 0 };
}

impl Inner {
    /// All of a channel at one moment.
    pub(super) async fn picture(&self, id: ChannelId) -> Result<Option<Picture>, StoreError> {
        for _ in 0..READINGS {
            let rows: Vec<PartitionRow> = self.rows(&self.statements.partition, (id.0,)).await?;
            // Each page is of one moment, and has the head of that moment. Members change with the head alone.
            if rows.first().map(|row| row.7) == rows.last().map(|row| row.7) {
                return picture(&rows);
            }
        }
        Err(changes_too_fast())
    }

    pub(super) async fn read_head(&self, id: ChannelId) -> Result<Option<Head>, StoreError> {
        type HeadRow = (Uuid, Option<i64>, Option<CqlTimestamp>, Option<i64>, Option<i64>);
        let rows: Vec<HeadRow> = self.rows(&self.statements.head, (id.0,)).await?;
        let Some(&(_, last_seq, last_at, delivered, read)) = rows.first() else { return Ok(None) };
        head(last_seq, last_at, delivered, read)
    }

    /// The user's membership, and the channel's head at the same moment.
    pub(super) async fn member(
        &self,
        id: ChannelId,
        user: &Username,
    ) -> Result<Option<(ChannelKind, Seq, Member)>, StoreError> {
        type MemberRow = (i64, Option<String>, Option<i64>, Option<i64>, Option<String>, Option<i64>);
        let rows: Vec<MemberRow> = self.rows(&self.statements.member, (id.0, user.as_str())).await?;
        // The latest stay comes first.
        for (joined_seq, stored_role, delivered, read, kind, last_seq) in rows {
            if let (Some(stored_role), Some(kind), Some(last_seq)) = (stored_role, kind, last_seq) {
                let member = member(joined_seq, &stored_role, delivered, read)?;
                return Ok(Some((channel_kind(&kind)?, seq(last_seq)?, member)));
            }
        }
        Ok(None)
    }

    pub(super) async fn role(&self, id: ChannelId, user: &Username) -> Result<Option<(ChannelKind, Role)>, StoreError> {
        let member = self.member(id, user).await?;
        Ok(member.map(|(kind, _, member)| (kind, member.role)))
    }
}

pub(super) fn changes_too_fast() -> StoreError {
    StoreError::Unavailable("the channel changes faster than it can be read".into())
}

pub(super) fn picture(rows: &[PartitionRow]) -> Result<Option<Picture>, StoreError> {
    let Some((_, _, _, _, _, Some(kind), name, last_seq, last_at, delivered, read, purged)) = rows.first() else {
        return Ok(None);
    };
    let mut members = BTreeMap::new();
    for row in rows {
        // A row without a role is no membership, and of several the latest counts, which comes first.
        if let (Some(user), Some(joined_seq), Some(role), delivered, read, ..) = row {
            let user = username(user)?;
            if let std::collections::btree_map::Entry::Vacant(place) = members.entry(user) {
                place.insert(member(*joined_seq, role, *delivered, *read)?);
            }
        }
    }
    let head = head(*last_seq, *last_at, *delivered, *read)?;
    let purged_seq = seq_or_zero(*purged)?;
    Ok(Some(Picture { kind: channel_kind(kind)?, name: name.clone(), head, purged_seq, members }))
}

fn head(
    last_seq: Option<i64>,
    last_at: Option<CqlTimestamp>,
    delivered: Option<i64>,
    read: Option<i64>,
) -> Result<Option<Head>, StoreError> {
    let Some(last_seq) = last_seq else { return Ok(None) };
    Ok(Some(Head {
        last_seq: seq(last_seq)?,
        last_at: Millis(last_at.map_or(i64::MIN, |at| at.0)),
        delivered_by_all: seq_or_zero(delivered)?,
        read_by_all: seq_or_zero(read)?,
    }))
}

fn member(joined_seq: i64, stored_role: &str, delivered: Option<i64>, read: Option<i64>) -> Result<Member, StoreError> {
    Ok(Member {
        role: role(stored_role)?,
        joined_seq: seq(joined_seq)?,
        delivered: seq_or_zero(delivered)?,
        read: seq_or_zero(read)?,
    })
}
