//! The nouns of the system: channels, users, messages, and the numbers that order them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Position of an entry in its channel's log: 1, 2, 3, … without a hole. 0 means "before the first".
pub type Seq = u64;

/// Direct channels are named by their pair, so that asking twice can't make two (RFC 9562 §5.5).
const DIRECT_NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_54f0_8c1e_5b0a_9a6e_2d7b_61c4_03e7);

/// A channel's identity, and the partition key of everything that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChannelId(pub Uuid);

impl ChannelId {
    /// A new group's id (version 7: ids made later sort later).
    pub fn new_group() -> Self {
        Self(Uuid::now_v7())
    }

    /// The one direct channel of two users, whoever asks first.
    pub fn direct(a: &Username, b: &Username) -> Self {
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        Self(Uuid::new_v5(&DIRECT_NAMESPACE, format!("{first}\n{second}").as_bytes()))
    }

    /// The shard in `0..shards` that owns this channel. Stable across versions and processes: tasks that wait
    /// on disk were routed by it.
    pub fn shard(self, shards: u16) -> u16 {
        let bits = self.0.as_u128();
        let folded = (bits as u64) ^ ((bits >> 64) as u64);
        // Fibonacci hashing: version 7 ids differ mostly in low bits, the multiplication spreads them upwards.
        let spread = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        (spread % u64::from(shards.max(1))) as u16
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A user's name: 1 to 32 of `a-z 0-9 _ . -`, beginning with a letter or a digit. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Username(Arc<str>);

/// Why a text is not a [`Username`].
#[derive(Debug, Clone, thiserror::Error)]
#[error("a username is 1 to 32 of a-z, 0-9, '_', '.' and '-', and begins with a letter or a digit")]
pub struct InvalidUsername;

impl Username {
    /// Checks `name` without changing it; upper case is refused rather than folded, so one user has one spelling.
    pub fn new(name: &str) -> Result<Self, InvalidUsername> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
        let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if starts_well && name.len() <= 32 && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidUsername)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Username {
    type Error = InvalidUsername;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name)
    }
}

impl From<Username> for String {
    fn from(name: Username) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Username {
    type Err = InvalidUsername;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

/// A moment, in Unix milliseconds; RFC 3339 with three decimals in human-readable encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// When a UUID was made, by its own timestamp (RFC 9562 §5.7): versions other than 7 have none.
    pub fn of_uuid(id: Uuid) -> Option<Self> {
        (id.get_version_num() == 7).then(|| Self((id.as_u128() >> 80) as i64))
    }

    /// Now, by the wall clock. Shown to people, and compared with the ages of client_ids, with room for clocks that
    /// differ: no order depends on it.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_millisecond())
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            // Outside the years -9999..9999: no text can say it, the number does.
            Err(_) => self.0.fmt(f),
        }
    }
}

impl Serialize for Millis {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            jiff::Timestamp::deserialize(deserializer).map(|at| Self(at.as_millisecond()))
        } else {
            i64::deserialize(deserializer).map(Self)
        }
    }
}

/// What an entry of a channel's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Text,
    Media,
    /// A change of the channel itself (created, members added or removed); its body is a [`Change`] as JSON.
    System,
}

/// Two people, or a named group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    Direct,
    Group,
}

/// What a member may do: an owner also removes members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Owner,
    Member,
}

/// One entry of a channel's log.
///
/// `id`, `at` and everything but `seq` are fixed when the send is accepted, so that an owner that does the work
/// again after a crash makes the very same entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub channel: ChannelId,
    pub seq: Seq,
    pub id: Uuid,
    pub sender: Username,
    pub client_id: Uuid,
    pub kind: Kind,
    pub body: String,
    pub at: Millis,
}

/// The body of a [`Kind::System`] entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Created { members: Vec<Username> },
    Added { members: Vec<Username> },
    Removed { members: Vec<Username> },
}

impl Change {
    /// The entry's body. Usernames and enum names only, so encoding can't fail.
    pub fn to_body(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub fn of(message: &Message) -> Option<Self> {
        if message.kind != Kind::System {
            return None;
        }
        serde_json::from_str(&message.body).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_channel_does_not_depend_on_who_asks() {
        let (ada, bob) = (Username::new("ada").unwrap(), Username::new("bob").unwrap());
        assert_eq!(ChannelId::direct(&ada, &bob), ChannelId::direct(&bob, &ada));
        assert_ne!(ChannelId::direct(&ada, &bob), ChannelId::direct(&ada, &ada));
    }

    #[test]
    fn the_shard_of_a_channel_never_changes() {
        let fixed = ChannelId(Uuid::from_u128(0x0191_b2c3_d4e5_7f00_8000_0000_0000_0001));
        assert_eq!([1, 2, 3, 4, 16].map(|n| fixed.shard(n)), SHARDS_OF_FIXED);
    }
    const SHARDS_OF_FIXED: [u16; 5] = [0, 1, 1, 3, 11];

    #[test]
    fn shards_are_even_for_ids_made_in_a_row() {
        let mut counts = [0u32; 8];
        for n in 0..8_000u128 {
            counts[usize::from(ChannelId(Uuid::from_u128((0x0191_b2c3_d4e5_7000_8000 << 48) + n)).shard(8))] += 1;
        }
        assert!(counts.iter().all(|c| (700..1300).contains(c)), "{counts:?}");
    }

    #[test]
    fn usernames_are_checked() {
        for good in ["a", "ada.l-1_x", "0x", &"a".repeat(32)] {
            assert!(Username::new(good).is_ok(), "{good}");
        }
        for bad in ["", "Ada", "-a", "a b", "é", "a/b", &"a".repeat(33)] {
            assert!(Username::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_written_with_three_decimals() {
        assert_eq!(serde_json::to_string(&Millis(1_795_377_600_120)).unwrap(), "\"2026-11-22T20:00:00.120Z\"");
        let back: Millis = serde_json::from_str("\"2026-11-22T20:00:00.120Z\"").unwrap();
        assert_eq!(back, Millis(1_795_377_600_120));
    }
}
