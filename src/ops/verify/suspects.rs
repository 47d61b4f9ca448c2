//! What seems to be missing from the index, or too much in it. It may be on its way: it is looked at again before it is
//! accused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::finding::{Finding, What};
use super::report::Report;
use crate::message::{ChannelId, Kind, Message, Seq};
use crate::ops::patience::patiently;
use crate::server::backends::{Look, Stored};
use crate::server::queue::Family;
use crate::server::search::audit::{Differences, Entry, Slice, Stray};
use crate::server::store::Page;

/// So many are kept, then they are judged.
const KEPT: usize = 100_000;
/// Between two looks, at most.
const PAUSE: Duration = Duration::from_secs(3);
/// Entries read of a channel at once.
const PAGE: usize = 500;
/// How long an index may take to take an entry again that was removed from it: it remembers removals for a minute.
const AGAIN: Duration = Duration::from_secs(75);

/// Compares with the index.
pub struct IndexLook {
    pub stored: Arc<Stored>,
    /// The queues, if they can be read: whether there is something on its way.
    pub queues: Option<Look>,
    /// How long what may be on its way is waited for.
    pub patience: Duration,
    pub repair: bool,
    pub report: Arc<Mutex<Report>>,
    pub stop: CancellationToken,
    pub suspects: tokio::sync::Mutex<Suspects>,
}

#[derive(Default)]
pub struct Suspects {
    missing: Vec<Entry>,
    strays: Vec<Stray>,
}

impl Suspects {
    fn len(&self) -> usize {
        self.missing.len() + self.strays.len()
    }
}

impl IndexLook {
    pub async fn compare(&self, slices: Vec<Slice>) -> anyhow::Result<()> {
        if slices.is_empty() {
            return Ok(());
        }
        let differences = patiently(async || self.stored.index_audit.compare(slices.clone()).await).await?;
        self.suspect(differences).await
    }

    pub async fn suspect(&self, found: Differences) -> anyhow::Result<()> {
        let mut suspects = self.suspects.lock().await;
        suspects.missing.extend(found.missing);
        suspects.strays.extend(found.strays);
        if suspects.len() >= KEPT {
            self.judge(&mut suspects).await?;
        }
        Ok(())
    }

    /// Judges all there are.
    pub async fn end(&self) -> anyhow::Result<()> {
        let mut suspects = self.suspects.lock().await;
        self.judge(&mut suspects).await
    }

    async fn judge(&self, suspects: &mut Suspects) -> anyhow::Result<()> {
        let mut suspects = std::mem::take(suspects);
        // A look that failed half-way was begun anew.
        suspects.missing.sort_unstable();
        suspects.missing.dedup();
        suspects.strays.sort_unstable_by(|one, other| one.document.cmp(&other.document));
        suspects.strays.dedup();
        let began = Instant::now();
        let mut pause = Duration::from_millis(250);
        loop {
            suspects = self.look_again(suspects).await?;
            let waited = began.elapsed();
            if suspects.len() == 0 || waited >= self.patience {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(pause.min(self.patience - waited)) => {}
                () = self.stop.cancelled() => return Ok(()),
            }
            pause = (pause * 2).min(PAUSE);
        }
        let waiting = self.under_way(&suspects.missing, began.elapsed()).await?;
        self.report.lock().on_their_way += waiting.len() as u64;
        suspects.missing.retain(|entry| waiting.binary_search(entry).is_err());
        self.accuse(suspects).await
    }

    /// Those that may be in a task that waits, ascending: first seen to be missing so long ago.
    async fn under_way(&self, missing: &[Entry], ago: Duration) -> anyhow::Result<Vec<Entry>> {
        let mut may_be = if missing.is_empty() {
            Vec::new()
        } else if let Some(waiting) = self.stored.index_audit.under_way(missing).await? {
            waiting
        } else if self.has_older_tasks(ago).await {
            missing.to_vec()
        } else {
            Vec::new()
        };
        may_be.sort_unstable();
        Ok(may_be)
    }

    /// Whether index tasks wait for so long, or for an unknown time.
    async fn has_older_tasks(&self, ago: Duration) -> bool {
        let Some(look) = &self.queues else { return false };
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        match look.queue.stats().await {
            Ok(lanes) => lanes.iter().any(|lane| {
                let is_old = lane.oldest_ms.is_none_or(|age| age >= ago);
                lane.queue == Family::IndexTasks.as_str() && lane.depth > 0 && is_old
            }),
            Err(error) => {
                tracing::warn!(%error, "whether entries are on their way to the index can't be told");
                false
            }
        }
    }

    async fn look_again(&self, suspects: Suspects) -> anyhow::Result<Suspects> {
        let index = &self.stored.index_audit;
        let mut missing = index.missing(suspects.missing).await?;
        if !missing.is_empty() {
            // Purged meanwhile.
            let purged = self.purged(&missing).await?;
            missing.retain(|entry| purged.get(&entry.channel).is_some_and(|purged| entry.seq > *purged));
        }
        let mut strays = Vec::new();
        for stray in index.present(suspects.strays).await? {
            if !self.is_stored(&stray).await? {
                strays.push(stray);
            }
        }
        Ok(Suspects { missing, strays })
    }

    async fn purged(&self, entries: &[Entry]) -> anyhow::Result<BTreeMap<ChannelId, Seq>> {
        let mut purged = BTreeMap::new();
        for Entry { channel, .. } in entries {
            if !purged.contains_key(channel)
                && let Some(extent) = self.stored.audit.extent(*channel).await?
            {
                purged.insert(*channel, extent.purged_seq);
            }
        }
        Ok(purged)
    }

    /// Whether it is an entry that came behind the head meanwhile.
    async fn is_stored(&self, stray: &Stray) -> anyhow::Result<bool> {
        let (Some(channel), Some(seq)) = (stray.channel, stray.seq) else { return Ok(false) };
        let page = self.stored.store.messages(channel, Page::After(seq.saturating_sub(1)), 1).await?;
        Ok(page.first().is_some_and(|entry| {
            entry.seq == seq && entry.kind == Kind::Text && entry.id.to_string() == stray.document
        }))
    }

    async fn accuse(&self, Suspects { missing, strays }: Suspects) -> anyhow::Result<()> {
        let missing: Vec<_> = missing.into_iter().map(|entry| (finding_of(&entry), entry)).collect();
        let strays: Vec<_> = strays.into_iter().map(|stray| (finding_of_stray(&stray), stray)).collect();
        let index = &self.stored.index_audit;
        let (mut missing_still, mut strays_still) = (Vec::new(), Vec::new());
        if self.repair {
            // First: an entry's document may say that it is another entry.
            index.remove(strays.iter().map(|(_, stray)| stray.clone()).collect()).await?;
            strays_still = index.present(strays.iter().map(|(_, stray)| stray.clone()).collect()).await?;
            missing_still = self.index_again(missing.iter().map(|(_, entry)| *entry).collect()).await?;
        }
        missing_still.sort_unstable();
        let mut report = self.report.lock();
        for (finding, entry) in missing {
            report.add(finding, self.repair && missing_still.binary_search(&entry).is_err());
        }
        let left: std::collections::HashSet<&str> = strays_still.iter().map(|stray| stray.document.as_str()).collect();
        for (finding, stray) in strays {
            report.add(finding, self.repair && !left.contains(stray.document.as_str()));
        }
        Ok(())
    }

    /// Those that are not in the index even then.
    async fn index_again(&self, mut missing: Vec<Entry>) -> anyhow::Result<Vec<Entry>> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(500);
        loop {
            missing.sort_unstable();
            for page in self.pages(&missing) {
                let messages = self.read(page).await?;
                self.stored.index.index(messages).await?;
            }
            missing = self.stored.index_audit.missing(missing).await?;
            if missing.is_empty() || began.elapsed() >= AGAIN || self.stop.is_cancelled() {
                return Ok(missing);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE);
        }
    }

    /// In pieces of one channel, close together.
    fn pages<'a>(&self, missing: &'a [Entry]) -> impl Iterator<Item = &'a [Entry]> + use<'a> {
        missing
            .chunk_by(|one, next| one.channel == next.channel && next.seq - one.seq < PAGE as Seq)
            .flat_map(|near| near.chunks(PAGE))
    }

    async fn read(&self, entries: &[Entry]) -> anyhow::Result<Vec<Message>> {
        let mut messages = Vec::with_capacity(entries.len());
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(messages) };
        let mut after = first.seq.saturating_sub(1);
        while after < last.seq {
            let page = self.stored.store.messages(first.channel, Page::After(after), PAGE).await?;
            let Some(end) = page.last() else { break };
            after = end.seq;
            let is_wanted = |message: &Message| entries.binary_search_by_key(&message.seq, |entry| entry.seq).is_ok();
            messages.extend(page.into_iter().filter(is_wanted));
        }
        Ok(messages)
    }
}

fn finding_of(entry: &Entry) -> Finding {
    let Entry { channel, seq, id } = *entry;
    Finding { channel: Some(channel), what: What::NotIndexed { seq, id } }
}

fn finding_of_stray(stray: &Stray) -> Finding {
    let (document, seq) = (stray.document.clone(), stray.seq);
    Finding { channel: stray.channel, what: What::StrayInIndex { document, seq } }
}
