//! The way of a message.

pub mod auth;
pub mod events;
pub mod gateway;
pub mod http;
pub mod queue;
pub mod receipts;
pub mod search;
pub mod sqlite;
pub mod store;
pub mod worker;
