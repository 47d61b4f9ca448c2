//! The values of columns, both ways.

use rusqlite::Row;

use crate::message::{ChannelKind, Kind, Role, Seq, Username};

fn unreadable(column: usize, what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what.into())
}

pub(crate) fn username(row: &Row<'_>, column: usize) -> rusqlite::Result<Username> {
    let name: String = row.get(column)?;
    Username::new(&name).map_err(|error| unreadable(column, error.to_string()))
}

pub(crate) fn seq(row: &Row<'_>, column: usize) -> rusqlite::Result<Seq> {
    let stored: i64 = row.get(column)?;
    Seq::try_from(stored).map_err(|error| unreadable(column, error.to_string()))
}

pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Media => "media",
        Kind::System => "system",
    }
}

pub(crate) fn kind(row: &Row<'_>, column: usize) -> rusqlite::Result<Kind> {
    match row.get_ref(column)?.as_str()? {
        "text" => Ok(Kind::Text),
        "media" => Ok(Kind::Media),
        "system" => Ok(Kind::System),
        other => Err(unreadable(column, format!("unknown kind {other}"))),
    }
}

pub(crate) fn channel_kind_name(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::Direct => "direct",
        ChannelKind::Group => "group",
    }
}

pub(crate) fn kind_of_channel(row: &Row<'_>, column: usize) -> rusqlite::Result<ChannelKind> {
    match row.get_ref(column)?.as_str()? {
        "direct" => Ok(ChannelKind::Direct),
        "group" => Ok(ChannelKind::Group),
        other => Err(unreadable(column, format!("unknown kind of channel {other}"))),
    }
}

pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Member => "member",
    }
}

pub(crate) fn role(row: &Row<'_>, column: usize) -> rusqlite::Result<Role> {
    match row.get_ref(column)?.as_str()? {
        "owner" => Ok(Role::Owner),
        "member" => Ok(Role::Member),
        other => Err(unreadable(column, format!("unknown role {other}"))),
    }
}
