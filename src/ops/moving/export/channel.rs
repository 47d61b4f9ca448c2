//! One channel, as it was at one moment.

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::super::record::{Header, Record};
use super::output::OutputFile;
use crate::message::{ChannelId, Message, Seq};
use crate::ops::patience::patiently;
use crate::server::backends::Stored;
use crate::server::store::{Page, StoreError};

/// Entries read at once.
const PAGE: usize = 500;
/// How often a channel is begun anew whose beginning is purged while it is read.
const ATTEMPTS: u32 = 20;

/// A channel, about to be written.
pub struct Opened {
    header: Header,
    /// Its first entries, none above the header's head.
    first: Vec<Message>,
}

/// How writing a channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Whole,
    /// By a wish to stop: nothing of it is in the file.
    Interrupted,
}

/// `None` if there is no such channel (any more).
///
/// The members and watermarks are of one moment, and so is the head, which bounds the entries: what comes later is not
/// the export's business.
pub async fn open(stored: &Stored, id: ChannelId) -> Result<Option<Opened>, StoreError> {
    // Before the rest: what is purged meanwhile is seen by its absence.
    let extent = patiently(async || stored.purge.extent(id).await).await?;
    let state = patiently(async || stored.store.channel(id).await).await?;
    let (Some(extent), Some(state)) = (extent, state) else { return Ok(None) };
    let header = Header::of(id, state, extent.purged_seq);
    let first = page(stored, &header, header.purged_seq).await?;
    Ok(Some(Opened { header, first }))
}

async fn page(stored: &Stored, header: &Header, after: Seq) -> Result<Vec<Message>, StoreError> {
    let left = usize::try_from(header.last_seq.saturating_sub(after)).unwrap_or(usize::MAX);
    if left == 0 {
        return Ok(Vec::new());
    }
    patiently(async || stored.store.messages(header.id, Page::After(after), left.min(PAGE)).await).await
}

/// Writes the header and the entries; `look` is told how many entries each page had.
pub async fn write(
    stored: &Stored,
    mut opened: Opened,
    file: &mut OutputFile,
    stop: &CancellationToken,
    mut look: impl FnMut(u64),
) -> anyhow::Result<Written> {
    let (id, start) = (opened.header.id, file.start());
    for _ in 0..ATTEMPTS {
        if let Some(written) = try_write(stored, opened, file, stop, &mut look).await? {
            if written == Written::Interrupted {
                file.go_back(&start)?;
            }
            return Ok(written);
        }
        file.go_back(&start)?;
        // It never goes away altogether.
        opened = open(stored, id).await?.with_context(|| format!("the channel {id} is gone"))?;
    }
    anyhow::bail!("the log of the channel {id} has a hole, or is purged all the while")
}

/// `None`: the log doesn't follow from what is in the file.
async fn try_write(
    stored: &Stored,
    opened: Opened,
    file: &mut OutputFile,
    stop: &CancellationToken,
    look: &mut impl FnMut(u64),
) -> anyhow::Result<Option<Written>> {
    let Opened { header, first } = opened;
    file.write(&Record::Channel(header.clone()))?;
    let (mut at, mut entries) = (header.purged_seq, first);
    loop {
        look(entries.len() as u64);
        for entry in entries {
            if entry.seq != at + 1 {
                return Ok(None);
            }
            at = entry.seq;
            file.write(&Record::Entry(entry.into()))?;
        }
        crate::crash_point!("export_page");
        if at >= header.last_seq {
            return Ok(Some(Written::Whole));
        }
        if stop.is_cancelled() {
            return Ok(Some(Written::Interrupted));
        }
        entries = page(stored, &header, at).await?;
        if entries.is_empty() {
            return Ok(None);
        }
    }
}
