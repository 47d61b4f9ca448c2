//! Answers to searches through RabbitMQ: each gateway has a queue on the exchange `search_results`, bound by its name.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use tokio::sync::Mutex;
use tokio::time::timeout;
use uuid::Uuid;

use super::queued::{SearchAnswer, SearchAnswers, Waiting};
use crate::server::rabbitmq::topology::{Topology, declare_gateway_queue};
use crate::server::rabbitmq::{Life, Link, Unavailable};
use crate::server::worker::Backoff;

const EXCHANGE: &str = "search_results";
/// Whoever asked has been told by then that it takes too long.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// The worker's end.
pub struct RabbitAnswers {
    link: Link,
    channel: Mutex<Option<Channel>>,
}

impl RabbitAnswers {
    /// `link` is one for publishing.
    pub fn new(link: Link) -> Self {
        Self { link, channel: Mutex::default() }
    }

    async fn send(&self, gateway: &str, answer: &SearchAnswer) -> Result<(), Unavailable> {
        let bytes = rmp_serde::to_vec(answer).map_err(|error| Unavailable(error.to_string()))?;
        let mut kept = self.channel.lock().await;
        let channel = match kept.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => self.link.channel().await?,
        };
        // Neither persistent nor confirmed nor mandatory: an answer that is lost is a search that took too long.
        let options = BasicPublishOptions::default();
        channel.basic_publish(EXCHANGE.into(), gateway.into(), options, &bytes, BasicProperties::default()).await?;
        *kept = Some(channel);
        Ok(())
    }
}

#[async_trait]
impl SearchAnswers for RabbitAnswers {
    async fn answer(&self, gateway: &str, answer: SearchAnswer) {
        let sent = timeout(PUBLISH_TIMEOUT, self.send(gateway, &answer)).await;
        if let Err(error) = sent.unwrap_or_else(|_elapsed| Err(Unavailable("the broker takes nothing".into()))) {
            tracing::warn!(%error, "an answer to a search is dropped");
        }
    }
}

/// Hands the answers for `gateway` to those who wait. Runs until dropped; what is lost with a connection is asked again by
/// people.
pub async fn receive(link: Link, topology: Arc<Topology>, gateway: String, waiting: Arc<Waiting>) {
    let mut backoff = Backoff::new();
    loop {
        let life = link.next_life().await;
        match receive_on(&life, &topology, &gateway, &waiting).await {
            Ok(()) => backoff = Backoff::new(),
            Err(error) => tracing::warn!(%error, "no answers to searches can be received yet"),
        }
        backoff.pause().await;
    }
}

async fn receive_on(life: &Life, topology: &Topology, gateway: &str, waiting: &Waiting) -> anyhow::Result<()> {
    let channel = life.channel().await?;
    let mut queue = topology.gateway_queue("search_results", gateway)?;
    // Another name each time: the queue of a connection that broke unseen is locked until the broker sees it. Bound by
    // the same key, it gets the answers, too, and nobody reads them there.
    queue.name = format!("{}.{}", queue.name, &Uuid::new_v4().simple().to_string()[..8]);
    declare_gateway_queue(&channel, &queue).await?;
    // Not acknowledged: there are never more answers than questions, and these are bounded.
    let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(queue.name.as_str().into(), "".into(), options, FieldTable::default());
    let mut consumer = consumer.await.map_err(Unavailable::from)?;
    loop {
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery,
            () = life.ended() => None,
        };
        let Some(Ok(delivery)) = delivery else { return Ok(()) };
        match rmp_serde::from_slice(&delivery.data) {
            Ok(answer) => waiting.answered(answer),
            Err(error) => tracing::error!(%error, "an answer to a search can't be read"),
        }
    }
}
