//! Ctrl-C and SIGTERM: a run ends early, and is still reported.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

/// How often it is looked whether somebody wishes to end.
const LOOK: Duration = Duration::from_millis(50);

/// Waits for what comes from another thread, for about `limit` at most and no longer than until `is_enough`.
///
/// Errors: it did not come in time, or the other thread has ended.
pub fn receive<T>(from: &Receiver<T>, limit: Duration, is_enough: impl Fn() -> bool) -> Result<T, RecvTimeoutError> {
    let began = Instant::now();
    loop {
        match from.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) if began.elapsed() < limit && !is_enough() => {}
            received => return received,
        }
    }
}

/// Counts the wishes to end.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicU32>);

impl Interrupt {
    /// From now on these signals no longer kill the process.
    pub fn listen() -> io::Result<Self> {
        let interrupt = Self(Arc::default());
        let count = Arc::clone(&interrupt.0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupted, mut terminated) = {
            let _within = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        std::thread::Builder::new().name("aula-signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupted.recv() => {}
                        _ = terminated.recv() => {}
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        })?;
        Ok(interrupt)
    }

    /// For tests: no signal leads to it.
    #[cfg(test)]
    pub fn never() -> Self {
        Self(Arc::default())
    }

    #[cfg(test)]
    pub fn wish(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}
