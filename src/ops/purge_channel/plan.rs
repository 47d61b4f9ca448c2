//! What would go.

use std::fmt::Write as _;

use serde::Serialize;

use crate::message::{ChannelId, ChannelKind, Millis, Seq};
use crate::ops::output::printable;
use crate::server::purge::{PurgeError, Purger};
use crate::server::queue::IndexRange;
use crate::server::store::{ChannelState, Extent, Page};

#[derive(Debug, Serialize)]
pub struct Plan {
    channel: ChannelId,
    kind: ChannelKind,
    name: Option<String>,
    members: usize,
    /// Messages above this…
    pub after: Seq,
    /// … up to this would go.
    pub through: Seq,
    pub messages: u64,
    /// When the first and the last of them were sent.
    first_at: Option<Millis>,
    last_at: Option<Millis>,
    /// Messages that would stay.
    left: u64,
    indexed: u64,
    dead_letters: u64,
    /// Sends that were set aside and had been accepted by then.
    #[serde(skip)]
    pub letters_until: Millis,
}

impl Plan {
    /// Errors: the store, the index or the queue can't be read.
    pub async fn make(
        purger: &Purger,
        channel: ChannelId,
        state: &ChannelState,
        before_seq: Option<Seq>,
        before: Option<Millis>,
    ) -> Result<Self, PurgeError> {
        let Extent { purged_seq: after, last_seq } = purger.extent(channel).await?;
        let through = match (before_seq, before) {
            (Some(seq), _) => seq - 1,
            (None, Some(moment)) => purger.last_before(channel, moment).await?,
            (None, None) => last_seq,
        };
        let through = through.min(last_seq).max(after);
        let at = async |seq: Seq| -> Result<Option<Millis>, PurgeError> {
            let found = purger.store.messages(channel, Page::After(seq - 1), 1).await?;
            Ok(found.first().map(|entry| entry.at))
        };
        let (mut first_at, mut last_at, mut indexed) = (None, None, 0);
        if through > after {
            (first_at, last_at) = (at(after + 1).await?, at(through).await?);
            indexed = purger.index.count(IndexRange { channel, first: after + 1, last: through }).await?;
        }
        let letters_until = match (before, last_at) {
            (Some(moment), _) => moment,
            (None, Some(last_at)) if through < last_seq => last_at,
            (None, None) if before_seq.is_some() => Millis(i64::MIN),
            (None, _) => Millis::now(),
        };
        Ok(Self {
            channel,
            kind: state.kind,
            name: state.name.clone(),
            members: state.members.len(),
            after,
            through,
            messages: through - after,
            first_at,
            last_at,
            left: last_seq - through,
            indexed,
            dead_letters: purger.count_letters(channel, letters_until).await?,
            letters_until,
        })
    }

    pub fn messages_in_words(&self) -> String {
        match self.messages {
            1 => "1 message".into(),
            messages => format!("{messages} messages"),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let kind = match self.kind {
            ChannelKind::Direct => "direct",
            ChannelKind::Group => "group",
        };
        let name = self.name.as_deref().map(|name| format!(", \"{}\"", printable(name))).unwrap_or_default();
        let mut text = format!("channel       {} ({kind}{name}, {} members)\n", self.channel, self.members);
        // Writing to a String can't fail.
        let _ = match (self.messages, self.first_at, self.last_at) {
            (0, ..) => writeln!(text, "messages      none"),
            (messages, Some(first), Some(last)) => writeln!(
                text,
                "messages      {messages}: seq {} to {}, sent {first} to {last}",
                self.after + 1,
                self.through
            ),
            (messages, ..) => writeln!(text, "messages      {messages}: seq {} to {}", self.after + 1, self.through),
        };
        let _ = writeln!(text, "in the index  {}", self.indexed);
        let _ = writeln!(text, "dead letters  {}", self.dead_letters);
        let _ = write!(text, "left          {} messages; the channel and its members stay", self.left);
        text
    }
}
