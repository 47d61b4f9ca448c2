//! Where a message is, by its id: no table leads from an id to its entry.

use uuid::Uuid;

use crate::message::{ChannelId, Message, Millis, Seq};
use crate::ops::progress::Progress;
use crate::server::backends::Stored;
use crate::server::store::Page;

/// Entries read at once.
const PAGE: usize = 500;
/// Channels asked for at once.
const CHANNELS: usize = 500;
/// Parts that the store is walked through in.
const PARTS: usize = 16;
/// Entries of a log are in about the order of their times: clocks of gateways are less apart than this.
const SKEW_MS: i64 = 120_000;

/// By the search index where that knows, which is quick; else by a search through the logs, of `only` if that is known.
pub async fn find(
    stored: &Stored,
    id: Uuid,
    only: Option<ChannelId>,
    progress: &mut Progress,
) -> anyhow::Result<Option<(ChannelId, Seq)>> {
    match stored.index_audit.locate(id).await {
        Ok(Some(found)) => return Ok(Some(found)),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "the search index can't be asked where it is: the logs are searched"),
    }
    if let Some(channel) = only {
        let Some(extent) = stored.audit.extent(channel).await? else { return Ok(None) };
        let seq = find_in(stored, channel, (extent.purged_seq, extent.last_seq), id).await?;
        return Ok(seq.map(|seq| (channel, seq)));
    }
    let parts = stored.scan.parts(PARTS).await?;
    let (count, mut looked) = (parts.len().max(1) as f64, 0);
    for (number, part) in parts.into_iter().enumerate() {
        let mut after = None;
        loop {
            let channels = stored.scan.channels(part, after, CHANNELS).await?;
            for scanned in &channels {
                if let Some(seq) = find_in(stored, scanned.channel, (0, scanned.last_seq), id).await? {
                    return Ok(Some((scanned.channel, seq)));
                }
                looked += 1;
                progress.show(number as f64 / count, looked, "channels");
            }
            match channels.last() {
                Some(last) if channels.len() == CHANNELS => after = Some(last.cursor),
                _ => break,
            }
        }
    }
    Ok(None)
}

/// Its id says when it was made, as a rule: only the entries of about then are read.
async fn find_in(
    stored: &Stored,
    channel: ChannelId,
    (purged, last): (Seq, Seq),
    id: Uuid,
) -> anyhow::Result<Option<Seq>> {
    let made = Millis::of_uuid(id);
    let mut after = match made {
        Some(made) => begin(stored, channel, (purged, last), made.0 - SKEW_MS).await?,
        None => purged,
    };
    loop {
        let page = stored.store.messages(channel, Page::After(after), PAGE).await?;
        if let Some(found) = page.iter().find(|message| message.id == id) {
            return Ok(Some(found.seq));
        }
        let is_beyond = |message: &Message| made.is_some_and(|made| message.at.0 > made.0 + SKEW_MS);
        match page.last() {
            Some(end) if page.len() == PAGE && !is_beyond(end) => after = end.seq,
            _ => return Ok(None),
        }
    }
}

/// The seq before the first entry that was sent at `from` or later.
async fn begin(stored: &Stored, channel: ChannelId, (purged, last): (Seq, Seq), from: i64) -> anyhow::Result<Seq> {
    let (mut low, mut high) = (purged, last);
    while low < high {
        let middle = low + (high - low) / 2;
        let next = stored.store.messages(channel, Page::After(middle), 1).await?;
        match next.first() {
            Some(entry) if entry.at.0 < from => low = entry.seq.max(middle + 1),
            _ => high = middle,
        }
    }
    Ok(low)
}
