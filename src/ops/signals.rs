use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

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

    /// Which one came first.
    pub async fn received(mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
