//! A record as a file: lines of JSON, written and read one at a time.
//!
//! Each line is an object with one key, which says what the line is, and its values as an array. Numbers that are
//! places count from 0: the first `user` line is user 0. Whatever is named by its place comes before it is used.
//!
//! | line | values |
//! |---|---|
//! | `format` | `"aula history"`, the version of this format: 2. The first line |
//! | `user` | its name |
//! | `channel` | its id |
//! | `send` | channel, sender, client_id, hash of the body (null: nobody was seen to send it) |
//! | `entry` | channel, sender, seq, id, client_id or null, `"text"`, `"media"` or `"system"`, hash of the body, Unix milliseconds |
//! | `added`, `removed` | of a system entry: entry, \[users\] |
//! | `connection` | user, opened at, closed at. What follows, up to the next one, happened on it |
//! | `m` | at, entry: a `message` was received |
//! | `sent` | at, ref, send: an attempt at a send |
//! | `accepted` | at, ref |
//! | `refused` | at, ref (2⁶⁴−1: none), error code, whether it may be tried again |
//! | `persisted` | at, send, seq |
//! | `rejected` | at, send |
//! | `delivered`, `read` | at, channel, seq |
//! | `newest` | at, ref, channel: the newest page of `history` was asked for |
//! | `page` | at, ref, \[entries\] |
//! | `welcome` | at, \[\[channel, last_seq, delivered_seq, read_seq, unread, \[delivered by all, read by all\] or null, \[entries\]\]\] |
//! | `gap` | at, channel, last_seq |
//! | `purged` | at, channel, seq. Not in versions 1 and 2 |
//! | `resume` | at, ref, \[\[channel, seq\]\] |
//! | `resumed` | at, ref, \[\[channel, complete, last_seq\]\] |
//! | `malformed` | at, what is wrong |
//! | `history` | reader, channel, first seq that it may see; then its `entries` |
//! | `entries` | \[entries\]: more of the history above |
//! | `hit` | reader, channel, sender, seq, id, hash of the body, Unix milliseconds |
//! | `search` | reader, send, nanoseconds that it was looked for, whether it was found. Not in version 1 |
//! | `end` | how many lines came before. The last line: a file without it was cut off |
//!
//! Times (`at`, opened, closed) are nanoseconds of CLOCK_MONOTONIC; an open connection is closed at 2⁶⁴−1. Hashes are
//! XXH3 of the UTF-8 bytes, 64 bits, seed 0.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use read::ReadError;

use super::record::{Body, ChannelNo, EntryNo, SendNo, UserNo};
use crate::message::{ChannelId, Kind, Millis, Seq};
use crate::wire::ErrorCode;

const NAME: &str = "aula history";
const VERSION: u32 = 3;
/// The oldest version that is read.
const OLDEST: u32 = 1;
/// Entries in one line of a history.
const ENTRIES_A_LINE: usize = 1000;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Format(Cow<'a, str>, u32),
    User(Cow<'a, str>),
    Channel(ChannelId),
    Send(ChannelNo, UserNo, Uuid, Option<Body>),
    Entry(ChannelNo, UserNo, Seq, Uuid, Option<Uuid>, Kind, Body, UnixMillis),
    Added(EntryNo, Cow<'a, [UserNo]>),
    Removed(EntryNo, Cow<'a, [UserNo]>),
    Connection(UserNo, u64, u64),
    #[serde(rename = "m")]
    Message(u64, EntryNo),
    Sent(u64, u64, SendNo),
    Accepted(u64, u64),
    Refused(u64, u64, ErrorCode, bool),
    Persisted(u64, SendNo, Seq),
    Rejected(u64, SendNo),
    Delivered(u64, ChannelNo, Seq),
    Read(u64, ChannelNo, Seq),
    Newest(u64, u64, ChannelNo),
    Page(u64, u64, Cow<'a, [EntryNo]>),
    Welcome(u64, Vec<Head<'a>>),
    Gap(u64, ChannelNo, Seq),
    Purged(u64, ChannelNo, Seq),
    Resume(u64, u64, Cow<'a, [(ChannelNo, Seq)]>),
    Resumed(u64, u64, Vec<(ChannelNo, bool, Seq)>),
    Malformed(u64, Cow<'a, str>),
    History(UserNo, ChannelNo, Seq),
    Entries(Cow<'a, [EntryNo]>),
    Hit(UserNo, ChannelNo, UserNo, Seq, Uuid, Body, UnixMillis),
    Search(UserNo, SendNo, u64, bool),
    End(u64),
}

/// A channel in a welcome; the fifth is unread.
#[derive(Debug, Serialize, Deserialize)]
struct Head<'a>(ChannelNo, Seq, Seq, Seq, u64, Option<(Seq, Seq)>, Cow<'a, [EntryNo]>);

/// A moment as a number: a text for people would be four times as long.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct UnixMillis(i64);

impl From<Millis> for UnixMillis {
    fn from(Millis(at): Millis) -> Self {
        Self(at)
    }
}

impl From<UnixMillis> for Millis {
    fn from(UnixMillis(at): UnixMillis) -> Self {
        Self(at)
    }
}
