//! A real-time chat server, its workers, its schema migrations and its operator's toolkit.
//!
//! The modules, in the order a message meets them: [`message`] names the nouns; [`server`] is the way of a message.
//! [`config`] is what can be set, [`ops`] the command line: it uses the server, never the reverse.

pub mod config;
pub mod message;
pub mod ops;
pub mod server;
