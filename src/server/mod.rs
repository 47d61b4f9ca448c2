//! The way of a message.

pub mod auth;
pub mod http;
pub mod sqlite;
