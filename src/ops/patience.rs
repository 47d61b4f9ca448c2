//! Servers that are away for a moment.

use std::time::{Duration, Instant};

use crate::server::search::SearchError;
use crate::server::store::StoreError;
use crate::server::worker::Backoff;

/// How long a call is tried again while a server is not there.
const PATIENCE: Duration = Duration::from_secs(60);

/// Errors after which the same call may succeed.
pub trait Passing: std::fmt::Display {
    fn is_passing(&self) -> bool;
}

impl Passing for StoreError {
    fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl Passing for SearchError {
    fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Of a look at several stores.
impl Passing for anyhow::Error {
    fn is_passing(&self) -> bool {
        self.downcast_ref::<StoreError>().is_some_and(Passing::is_passing)
            || self.downcast_ref::<SearchError>().is_some_and(Passing::is_passing)
    }
}

/// The call's outcome, after it was repeated for at most a minute while its error was a passing one.
pub async fn patiently<T, E: Passing>(mut call: impl AsyncFnMut() -> Result<T, E>) -> Result<T, E> {
    let (give_up, mut backoff) = (Instant::now() + PATIENCE, Backoff::new());
    loop {
        match call().await {
            Err(error) if error.is_passing() && Instant::now() < give_up => {
                tracing::warn!(%error, "a step is tried again");
                backoff.pause().await;
            }
            outcome => return outcome,
        }
    }
}
