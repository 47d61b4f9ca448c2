use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::message::{ChannelId, Millis, Seq};
use crate::server::search::SearchError;

/// The first byte of a cursor of this make.
const MAKE: u8 = 1;
const LENGTH: usize = 1 + 8 + 16 + 8;

/// The place of a hit in the order of all: the next page begins behind it. It says nothing about who may see what:
/// whoever hands it in is searched for anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub at: Millis,
    pub channel: ChannelId,
    /// At most `i64::MAX`, as in the index.
    pub seq: Seq,
}

impl Cursor {
    pub fn encode(self) -> String {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(MAKE);
        bytes.extend(self.at.0.to_be_bytes());
        bytes.extend(self.channel.0.as_bytes());
        bytes.extend(self.seq.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub fn decode(text: &str) -> Result<Self, SearchError> {
        Self::parse(text).ok_or_else(|| SearchError::Invalid("this cursor is none of ours".into()))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; LENGTH] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (make, rest) = bytes.split_first()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (channel, rest) = rest.split_first_chunk()?;
        let seq = Seq::from_be_bytes(rest.try_into().ok()?);
        if *make != MAKE || i64::try_from(seq).is_err() {
            return None;
        }
        Some(Self { at: Millis(i64::from_be_bytes(*at)), channel: ChannelId(Uuid::from_bytes(*channel)), seq })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_nothing_else_does() {
        for (at, seq) in [(0, 1), (i64::MIN, 0), (i64::MAX, i64::MAX as u64)] {
            let cursor = Cursor { at: Millis(at), channel: ChannelId::new_group(), seq };
            let text = cursor.encode();
            assert_eq!(Cursor::decode(&text).unwrap(), cursor);
            assert!(Cursor::decode(&text[1..]).is_err());
            assert!(Cursor::decode(&format!("{text}A")).is_err());
            assert!(Cursor::decode(&format!("AA{}", &text[2..])).is_err(), "of another make");
        }
        let too_high = Cursor { at: Millis(0), channel: ChannelId::new_group(), seq: u64::MAX };
        assert!(Cursor::decode(&too_high.encode()).is_err());
    }
}
