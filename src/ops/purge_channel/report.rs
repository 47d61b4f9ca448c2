//! What went.

use serde::Serialize;

use crate::server::purge::Purged;
use crate::server::store::PurgeRecord;

#[derive(Debug, Serialize)]
pub struct Report<'a> {
    #[serde(flatten)]
    record: &'a PurgeRecord,
    is_whole: bool,
}

impl<'a> Report<'a> {
    pub fn of(purged: &'a Purged) -> Self {
        Self { record: &purged.record, is_whole: purged.is_whole }
    }

    /// For people.
    pub fn text(&self) -> String {
        let PurgeRecord { channel, entries, indexed, dead_letters, through, .. } = self.record;
        let gone = format!(
            "{entries} messages are gone from {channel}, {indexed} from the index, {dead_letters} dead letters"
        );
        if self.is_whole {
            format!("{gone}; its log begins behind {through}")
        } else {
            format!("interrupted: {gone}; run it again for the rest, up to {through}")
        }
    }
}
