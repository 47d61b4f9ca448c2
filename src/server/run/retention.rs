use std::sync::Arc;

use tokio::task::JoinSet;

use crate::config::Config;
use crate::server::backends::Backends;
use crate::server::events::EventBus;
use crate::server::purge::Purger;
use crate::server::purge::retention::Retention;

/// Keeps to the retention, if there is one, in the background.
pub(super) fn keep_to(config: &Config, backends: &Backends, bus: Arc<dyn EventBus>, background: &mut JoinSet<()>) {
    let by = format!("aula, process {}", std::process::id());
    let Some(retention) = Retention::configured(&config.retention, by) else { return };
    let purger = Purger {
        store: Arc::clone(&backends.store),
        purge: Arc::clone(&backends.purge),
        index: Arc::clone(&backends.index),
        queue: Arc::clone(&backends.queue),
        dead_letters: Arc::clone(&backends.dead_letters),
        bus,
    };
    background.spawn(retention.run(purger, Arc::clone(&backends.scan)));
}
