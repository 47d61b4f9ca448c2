//! What the queue, the events and the search share of RabbitMQ: connections that come back, the topology, and the
//! management interface.
//!
//! Publishing and consuming have a connection each: a broker that is short of memory stops reading from connections that
//! publish, and must go on reading acknowledgements, which make room.

mod connect;
mod link;
pub mod management;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub(crate) mod testing;
pub mod topology;

pub use connect::process;
pub use link::{Life, Link};

/// The broker can't be reached, or has ended what was under way. Trying again later may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

impl From<lapin::Error> for Unavailable {
    fn from(error: lapin::Error) -> Self {
        Self(format!("rabbitmq: {error}"))
    }
}
