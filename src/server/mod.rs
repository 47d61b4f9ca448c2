//! The way of a message.

pub mod events;
pub mod queue;
pub mod sqlite;
pub mod store;
