//! A real-time chat server, its workers, its schema migrations and its operator's toolkit.
//!
//! The modules, in the order a message meets them: [`config`] is read first; [`websocket`] cuts a client's bytes into
//! frames; [`wire`] decodes them into the nouns of [`message`]; [`server`] is the way of a message; [`ops`] are the
//! commands of the operator; [`oracle`] judges what clients saw of it.

pub mod config;
pub mod crash;
pub mod message;
pub mod ops;
pub mod oracle;
pub mod server;
pub mod websocket;
pub mod wire;
