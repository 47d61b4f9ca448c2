//! The way of a message.

pub mod sqlite;
