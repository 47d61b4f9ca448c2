//! The way of a message.

pub mod auth;
pub mod events;
pub mod http;
pub mod queue;
pub mod search;
pub mod sqlite;
pub mod store;
pub mod worker;
