//! Who had what removed.

use crate::message::{ChannelId, Millis};
use crate::ops::output::printable;
use crate::ops::{Context, Exit};
use crate::server::store::{Cause, Purge, PurgeRecord};

/// Shown at most.
const SHOWN: usize = 1_000;

pub async fn show(context: &Context, purge: &dyn Purge, of: Option<ChannelId>) -> anyhow::Result<Exit> {
    let records = purge.records(of, SHOWN).await?;
    let header = ["BEGAN", "ENDED", "CHANNEL", "MESSAGES", "THROUGH", "INDEXED", "DEAD LETTERS", "BY"];
    context.output.rows(&records, header, |record: &PurgeRecord| {
        let by = match record.cause {
            Cause::Command => printable(&record.by),
            Cause::Retention => format!("retention ({})", printable(&record.by)),
        };
        [
            seconds(record.began_at),
            record.ended_at.map_or_else(|| "not yet".into(), seconds),
            record.channel.to_string(),
            record.entries.to_string(),
            record.through.to_string(),
            record.indexed.to_string(),
            record.dead_letters.to_string(),
            by,
        ]
    })?;
    Ok(Exit::Done)
}

fn seconds(at: Millis) -> String {
    let text = at.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}
