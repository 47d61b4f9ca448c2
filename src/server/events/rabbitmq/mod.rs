//! The way from the workers to the gateways through RabbitMQ: every worker publishes to one exchange, every gateway has
//! a queue on it.

mod bundle;
mod bus;
mod source;

pub use bus::RabbitBus;
pub use source::RabbitEvents;
