//! What is on the broker. AMQP answers a question about something that is missing or different by closing the channel,
//! so that a new one has to be opened after each such answer.

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::{Channel, ErrorKind};

use super::apply::{exchange_options, queue_options};
use super::{Exchange, Queue};
use crate::server::rabbitmq::{Link, Unavailable};

/// What came of a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked {
    AsItShouldBe,
    Missing,
    /// In words.
    Different(String),
}

/// Waiting tasks, and consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Tasks that no consumer has in hand.
    pub ready: u64,
    pub consumers: u64,
}

pub struct Looker<'l> {
    link: &'l Link,
    channel: Channel,
}

impl<'l> Looker<'l> {
    pub async fn new(link: &'l Link) -> Result<Self, Unavailable> {
        Ok(Self { link, channel: link.channel().await? })
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// `None` if there is no such queue.
    pub async fn count(&mut self, queue: &str) -> Result<Option<Count>, Unavailable> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match self.channel.queue_declare(queue.into(), options, FieldTable::default()).await {
            Ok(found) => Ok(Some(Count {
                ready: u64::from(found.message_count()),
                consumers: u64::from(found.consumer_count()),
            })),
            Err(error) => match self.reopened(error).await? {
                Looked::Missing => Ok(None),
                looked => Err(Unavailable(format!("queue {queue}: {looked:?}"))),
            },
        }
    }

    pub(super) async fn queue(&mut self, queue: &Queue) -> Result<Looked, Unavailable> {
        match self.count(&queue.name).await? {
            None => Ok(Looked::Missing),
            // It is there, so that this only compares.
            Some(_) => self.declare_queue(queue).await,
        }
    }

    pub(super) async fn exchange(&mut self, exchange: &Exchange) -> Result<Looked, Unavailable> {
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let name = exchange.name.as_str().into();
        match self.channel.exchange_declare(name, exchange.kind.amqp(), options, FieldTable::default()).await {
            Ok(()) => self.declare_exchange(exchange).await,
            Err(error) => self.reopened(error).await,
        }
    }

    pub(super) async fn declare_queue(&mut self, queue: &Queue) -> Result<Looked, Unavailable> {
        let name = queue.name.as_str().into();
        match self.channel.queue_declare(name, queue_options(queue), queue.amqp_arguments()).await {
            Ok(_) => Ok(Looked::AsItShouldBe),
            Err(error) => self.reopened(error).await,
        }
    }

    pub(super) async fn declare_exchange(&mut self, exchange: &Exchange) -> Result<Looked, Unavailable> {
        let name = exchange.name.as_str().into();
        let (kind, options) = (exchange.kind.amqp(), exchange_options(exchange));
        match self.channel.exchange_declare(name, kind, options, FieldTable::default()).await {
            Ok(()) => Ok(Looked::AsItShouldBe),
            Err(error) => self.reopened(error).await,
        }
    }

    /// What an answer means that has closed the channel.
    async fn reopened(&mut self, error: lapin::Error) -> Result<Looked, Unavailable> {
        let ErrorKind::ProtocolError(answer) = error.kind() else { return Err(error.into()) };
        let looked = match answer.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Looked::Missing,
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => {
                Looked::Different(in_words(answer.get_message().as_str()))
            }
            _ => return Err(error.into()),
        };
        self.channel = self.link.channel().await?;
        Ok(looked)
    }
}

/// The broker says `inequivalent arg 'x-max-length' for queue 'db_tasks.0' in vhost '/': received the value '10' of
/// type 'long' but current is the value '20' of type 'signedint'` (or `but current is none`).
fn in_words(answer: &str) -> String {
    let words = || {
        let after = answer.split_once("inequivalent arg '")?.1;
        let (argument, after) = after.split_once('\'')?;
        let should = after.split_once("received ")?.1;
        let (should, is) = should.split_once(" but current is ")?;
        Some(format!("{argument} is {}, and should be {}", value(is), value(should)))
    };
    words().unwrap_or_else(|| answer.to_owned())
}

/// `the value '10' of type 'long'` is 10, `none` is not set, `'direct'` is direct.
fn value(said: &str) -> String {
    let value = said.strip_prefix("the value ").unwrap_or(said).trim();
    let value = value.split(" of type").next().unwrap_or(value).trim_matches('\'');
    if value == "none" { "not set".to_owned() } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_put_into_words() {
        let answer = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'db_tasks.0' in vhost '/': \
                      received the value '10' of type 'long' but current is the value '20' of type 'signedint'";
        assert_eq!(in_words(answer), "x-max-length is 20, and should be 10");
        let answer = "PRECONDITION_FAILED - inequivalent arg 'x-overflow' for queue 'q' in vhost '/': received none \
                      but current is the value 'reject-publish' of type 'longstr'";
        assert_eq!(in_words(answer), "x-overflow is reject-publish, and should be not set");
        let answer = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'events' in vhost '/': received \
                      'fanout' but current is 'direct'";
        assert_eq!(in_words(answer), "type is direct, and should be fanout");
        assert_eq!(in_words("something else"), "something else");
    }
}
