use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The wishes to end that a service obeys.
pub struct Terminate {
    terminate: Signal,
    interrupt: Signal,
}

impl Terminate {
    /// From now on these signals no longer kill the process.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// A token that the first of them cancels. To be called within the runtime.
    pub fn token() -> io::Result<CancellationToken> {
        let (signals, stop) = (Self::listen()?, CancellationToken::new());
        let stopped = stop.clone();
        tokio::spawn(async move {
            signals.received().await;
            stopped.cancel();
        });
        Ok(stop)
    }

    /// Which one came first.
    pub async fn received(mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
