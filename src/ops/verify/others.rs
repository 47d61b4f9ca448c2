//! What belongs to no channel that is there: in users' lists, and in the index.

use std::sync::atomic::Ordering;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::finding::{Finding, What};
use super::{Job, OF_CHANNELS, SIDE_BY_SIDE};
use crate::message::{ChannelId, Username};
use crate::ops::patience::patiently;
use crate::server::search::audit::{Differences, Slice};

impl Job<'_> {
    /// The rows of users' lists that no membership stands behind.
    pub(super) async fn lists(&self) -> anyhow::Result<()> {
        let mut after = None;
        while !self.stop.is_cancelled() {
            let step = patiently(async || self.stored.audit.strays_in_lists(after.clone()).await).await?;
            self.report.lock().list_rows += step.rows;
            let fraction = OF_CHANNELS + (1.0 - OF_CHANNELS) / 2.0 * step.fraction;
            self.progress.lock().show(fraction, self.eyes.entries.load(Ordering::Relaxed), "entries");
            if !step.strays.is_empty() {
                tokio::time::sleep(self.pause).await;
            }
            for stray in step.strays {
                let finding = Finding { channel: stray.channel, what: What::Listed { user: stray.user.clone() } };
                let Some(id) = stray.channel else {
                    // A list of an embedded store skips it: it is seen by nobody.
                    self.report.lock().add(finding, false);
                    continue;
                };
                if self.report.lock().is_missing_member(stray.channel, &stray.user)
                    || !self.is_listed_only(id, &stray.user).await?
                {
                    continue;
                }
                if self.repair {
                    let head = patiently(async || self.stored.audit.extent(id).await).await?;
                    for mend in finding.what.mends(head.map_or(0, |extent| extent.last_seq)) {
                        patiently(async || self.stored.audit.mend(id, mend.clone()).await).await?;
                    }
                }
                let repaired = self.repair && !self.is_listed_only(id, &stray.user).await?;
                self.report.lock().add(finding, repaired);
            }
            match step.rest {
                Some(rest) => after = Some(rest),
                None => break,
            }
        }
        Ok(())
    }

    /// Whether the channel is in the user's list, and the user is no member.
    async fn is_listed_only(&self, id: ChannelId, user: &Username) -> anyhow::Result<bool> {
        let listed = patiently(async || self.stored.audit.listed(id, vec![user.clone()]).await).await?;
        let role = patiently(async || self.stored.store.role(id, user).await).await?;
        Ok(listed.iter().any(Option::is_some) && role.is_none())
    }

    /// What the index has of channels that are not there.
    pub(super) async fn through_the_index(&self) -> anyhow::Result<()> {
        let mut after = None;
        while !self.stop.is_cancelled() {
            let step = patiently(async || self.stored.index_audit.walk(after.clone()).await).await?;
            self.progress.lock().show(
                OF_CHANNELS + (1.0 - OF_CHANNELS) / 2.0,
                self.eyes.entries.load(Ordering::Relaxed),
                "entries",
            );
            let exist = step.channels.into_iter().map(|id| async move {
                let extent = patiently(async || self.stored.audit.extent(id).await).await?;
                anyhow::Ok(extent.is_none().then_some(id))
            });
            let looks: Vec<_> = exist.collect();
            let unknown: Vec<Option<ChannelId>> =
                stream::iter(looks).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
            let all_of = |channel| Slice { channel, after: 0, through: u64::MAX, entries: Vec::new() };
            self.index.compare(unknown.into_iter().flatten().map(all_of).collect()).await?;
            self.index.suspect(Differences { missing: Vec::new(), strays: step.strays }).await?;
            match step.rest {
                Some(rest) => after = Some(rest),
                None => break,
            }
        }
        Ok(())
    }
}
