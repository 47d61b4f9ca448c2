//! Asking again while a server is not there.

use std::time::{Duration, Instant};

use crate::server::worker::Backoff;

/// How long a server that is not there is waited for.
const GIVE_UP: Duration = Duration::from_secs(60);

pub struct Tries {
    backoff: Backoff,
    began: Instant,
}

impl Tries {
    pub fn new() -> Self {
        Self { backoff: Backoff::new(), began: Instant::now() }
    }

    /// Errors: `error`, when that is enough.
    pub async fn again(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        if self.began.elapsed() >= GIVE_UP {
            return Err(error);
        }
        tracing::warn!(error = format!("{error:#}"), "a look is tried again");
        self.backoff.pause().await;
        Ok(())
    }
}
