//! Keeping to the retention of the configuration.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Order, PurgeError, Purger};
use crate::config;
use crate::message::{ChannelId, Millis, Seq};
use crate::server::store::{Cause, Page, Scan};

/// Channels read at once.
const PAGE: usize = 200;
/// Between two channels: a look costs two reads, and nobody waits for it.
const PAUSE: Duration = Duration::from_millis(2);

/// Which messages are too old.
pub struct Retention {
    keep: Option<Duration>,
    exceptions: HashMap<ChannelId, Option<Duration>>,
    every: Duration,
    rate: u32,
    /// Who it is that keeps to it, for the records.
    by: String,
}

impl Retention {
    /// `None` if everything is kept for ever.
    pub fn configured(config: &config::Retention, by: String) -> Option<Self> {
        let some = |keep: Duration| (!keep.is_zero()).then_some(keep);
        let exceptions: HashMap<_, _> = config.channels.iter().map(|kept| (kept.channel, some(kept.keep))).collect();
        let keep = some(config.keep);
        (keep.is_some() || exceptions.values().any(Option::is_some)).then_some(Self {
            keep,
            exceptions,
            every: config.every,
            rate: config.rate,
            by,
        })
    }

    /// Looks after it again and again. Runs until dropped; several processes may, and then each purge is done by the
    /// one that comes by first.
    pub async fn run(self, purger: Purger, scan: std::sync::Arc<dyn Scan>) {
        loop {
            // Not all processes of a deployment at once, and not when they have just started.
            let spread = 0.5 + f64::from(uuid::Uuid::new_v4().as_u128() as u16) / f64::from(u16::MAX) / 2.0;
            tokio::time::sleep(self.every.mul_f64(spread)).await;
            let began = Instant::now();
            match self.look_through(&purger, &*scan).await {
                Ok(0) => {}
                Ok(entries) => {
                    let seconds = began.elapsed().as_secs_f64();
                    tracing::info!(entries, seconds, "messages older than the retention are removed");
                }
                Err(PurgeError::IndexBeingBuilt) => {
                    tracing::info!("the retention waits for the index that is being built");
                }
                Err(error) => tracing::warn!(%error, "the retention can't be kept to yet"),
            }
        }
    }

    /// Removes what is too old; how many entries that were.
    ///
    /// Errors: as [`Purger::run`]; what was removed until then is.
    pub async fn look_through(&self, purger: &Purger, scan: &dyn Scan) -> Result<u64, PurgeError> {
        let now = Millis::now();
        let mut entries = 0;
        if self.keep.is_none() {
            for channel in self.exceptions.keys() {
                entries += self.look_at(purger, *channel, now).await?;
            }
            return Ok(entries);
        }
        for part in scan.parts(1).await? {
            let mut after = None;
            loop {
                let found = scan.channels(part, after, PAGE).await?;
                for scanned in &found {
                    entries += self.look_at(purger, scanned.channel, now).await?;
                    tokio::time::sleep(PAUSE).await;
                }
                match found.last() {
                    Some(last) if found.len() == PAGE => after = Some(last.cursor),
                    _ => break,
                }
            }
        }
        Ok(entries)
    }

    async fn look_at(&self, purger: &Purger, channel: ChannelId, now: Millis) -> Result<u64, PurgeError> {
        let Some(keep) = self.exceptions.get(&channel).copied().unwrap_or(self.keep) else { return Ok(0) };
        let moment = Millis(now.0.saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX)));
        match self.purge_before(purger, channel, moment).await {
            // Named in the configuration, and not there.
            Err(PurgeError::NoChannel(_)) => Ok(0),
            other => other,
        }
    }

    async fn purge_before(&self, purger: &Purger, channel: ChannelId, moment: Millis) -> Result<u64, PurgeError> {
        // Most channels have nothing that old: one read tells.
        let oldest = purger.store.messages(channel, Page::After(0), 1).await?;
        if oldest.first().is_none_or(|oldest| oldest.at >= moment) {
            return Ok(0);
        }
        let through: Seq = purger.last_before(channel, moment).await?;
        if through == 0 {
            return Ok(0);
        }
        let order = Order {
            channel,
            through,
            // What was set aside waits for an operator, however old it is.
            letters_until: None,
            by: self.by.clone(),
            cause: Cause::Retention,
            rate: self.rate,
        };
        let purged = purger.run(&order, &CancellationToken::new(), |_stand| {}).await?;
        metrics::counter!("aula_purged_total", "cause" => "retention").increment(purged.record.entries);
        Ok(purged.record.entries)
    }
}
