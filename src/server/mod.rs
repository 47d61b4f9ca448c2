//! The way of a message.

pub mod events;
pub mod queue;
pub mod search;
pub mod sqlite;
pub mod store;
pub mod worker;
