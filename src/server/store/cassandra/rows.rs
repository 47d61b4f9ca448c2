//! The values of columns, both ways.

use scylla::value::CqlTimestamp;
use uuid::Uuid;

use super::StoreError;
use super::errors::unreadable;
use crate::message::{ChannelId, ChannelKind, Kind, Message, Millis, Role, Seq, Username};

/// Entries in a partition of the log.
pub(super) const BUCKET: Seq = 10_000;

pub(super) fn bucket(seq: Seq) -> Seq {
    seq / BUCKET
}

/// Seqs beyond i64 don't occur; as bounds they mean "no bound".
pub(super) fn bigint(seq: Seq) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

pub(super) fn seq(stored: i64) -> Result<Seq, StoreError> {
    Seq::try_from(stored).map_err(unreadable)
}

/// Of a column that nothing was written to yet.
pub(super) fn seq_or_zero(stored: Option<i64>) -> Result<Seq, StoreError> {
    seq(stored.unwrap_or(0))
}

pub(super) fn username(stored: &str) -> Result<Username, StoreError> {
    Username::new(stored).map_err(unreadable)
}

pub(super) fn moment(at: Millis) -> CqlTimestamp {
    CqlTimestamp(at.0)
}

pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Media => "media",
        Kind::System => "system",
    }
}

fn kind(stored: &str) -> Result<Kind, StoreError> {
    match stored {
        "text" => Ok(Kind::Text),
        "media" => Ok(Kind::Media),
        "system" => Ok(Kind::System),
        other => Err(unreadable(format_args!("unknown kind {other}"))),
    }
}

pub(super) fn channel_kind_name(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::Direct => "direct",
        ChannelKind::Group => "group",
    }
}

pub(super) fn channel_kind(stored: &str) -> Result<ChannelKind, StoreError> {
    match stored {
        "direct" => Ok(ChannelKind::Direct),
        "group" => Ok(ChannelKind::Group),
        other => Err(unreadable(format_args!("unknown kind of channel {other}"))),
    }
}

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Member => "member",
    }
}

pub(super) fn role(stored: &str) -> Result<Role, StoreError> {
    match stored {
        "owner" => Ok(Role::Owner),
        "member" => Ok(Role::Member),
        other => Err(unreadable(format_args!("unknown role {other}"))),
    }
}

/// A row of `messages_by_channel`: seq, id, sender, client_id, kind, body, at.
pub(super) type MessageRow = (i64, Uuid, String, Uuid, String, String, CqlTimestamp);

pub(super) fn message(channel: ChannelId, row: MessageRow) -> Result<Message, StoreError> {
    let (stored_seq, id, sender, client_id, stored_kind, body, at) = row;
    Ok(Message {
        channel,
        seq: seq(stored_seq)?,
        id,
        sender: username(&sender)?,
        client_id,
        kind: kind(&stored_kind)?,
        body,
        at: Millis(at.0),
    })
}
