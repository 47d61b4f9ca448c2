//! The way of a message.
//!
//! 1. [`socket`]: a client's frame arrives and is decoded.
//! 2. [`gateway`]: the session checks it; a refusal is an answer with a code.
//! 3. [`queue`]: it becomes a durable task on its channel's shard; the confirm is `accepted`. Where the shard's owner is
//!    in the same process it gets the task as it is, and confirms it when it is stored.
//! 4. [`worker`]: the shard's owner gives it the next seq and publishes it at once; live delivery of a durable task waits
//!    for no store.
//! 5. [`store`]: the owner stores batches, each a continuation of the log: then it is `persisted`, and goes to
//!    [`search`].
//! 6. [`events`] carry it to the [`gateway`], which fans it out: encoded once, handed to each session of the room.
//! 7. [`receipts`]: members' watermarks travel the same way, and come back as `delivered` and `read`.
//!
//! [`auth`] says who somebody is, [`http`] serves what needs no socket, [`sqlite`] is the engine of all embedded
//! backends. [`backends`] is the one place that picks them, [`run`] a process from start to end.

pub mod auth;
pub mod backends;
pub mod cassandra;
pub mod events;
pub mod gateway;
pub mod http;
pub mod lock;
pub mod metrics;
pub mod migrate;
pub mod purge;
pub mod queue;
pub mod rabbitmq;
pub mod receipts;
pub mod run;
pub mod search;
pub mod socket;
pub mod sqlite;
pub mod store;
pub mod tls;
pub mod worker;
