//! The tasks that a process can't go on without.

use std::future::pending;

use tokio::task::JoinSet;

/// One of them has ended. Its supervisor has to start it anew.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The log says where.
    #[error("a task of {0} panicked")]
    Panicked(&'static str),
    #[error("a task of {0} ended, and should not have")]
    Ended(&'static str),
}

/// Resolves when one of `tasks` has ended; none of them does so before it is told to. Cancel-safe.
pub(super) async fn first_end(of: &'static str, tasks: &mut JoinSet<()>) -> Broken {
    match tasks.join_next().await {
        Some(Ok(())) => Broken::Ended(of),
        // Nobody aborts one before the set goes.
        Some(Err(_panicked)) => Broken::Panicked(of),
        None => pending().await,
    }
}

/// After they were told to end.
pub(super) async fn all_ended(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a task did not end well");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_first_end_is_told_however_it_came() {
        let mut tasks = JoinSet::new();
        assert!(first_end("nothing", &mut tasks).now_or_never().is_none());
        tasks.spawn(pending());
        assert!(first_end("what lives", &mut tasks).now_or_never().is_none());
        tasks.spawn(async { panic!("on purpose") });
        let broken = first_end("what panics", &mut tasks).await;
        assert_eq!(broken.to_string(), "a task of what panics panicked");
        tasks.spawn(async {});
        let broken = first_end("what returns", &mut tasks).await;
        assert_eq!(broken.to_string(), "a task of what returns ended, and should not have");
    }
}
