//! Dead letters are messages of a queue. AMQP can't look at a message without taking it: a walk takes all that it passes,
//! acknowledges what leaves, and closes its channel at the end, which puts the rest back in its place.
//!
//! That costs the broker one entry for each message that is passed, so a walk passes [`WINDOW`] × [`WINDOWS`] at most.
//! They come in windows, each by a consumer of its own: this process holds one window, and what the broker returns it
//! returns by consumer (in the order of their tags) and message, so that the order stays. A walk that is killed had taken
//! a part: that may come behind the rest.

pub(super) mod headers;

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, message};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, timeout};

use self::headers::Deaths;
use super::super::dead_letters::{DeadLetter, DeadLetters, Walk, lane_of, repeated};
use super::super::{Family, Lane, QueueError, enqueue_confirmed_by};
use super::publisher::{Publish, PublishId};
use super::{Inner, RabbitQueue, TIMEOUT};
use crate::message::Millis;
use crate::server::rabbitmq::topology::present::Looker;
use crate::server::rabbitmq::{Link, Unavailable, process};

/// Letters in memory here.
const WINDOW: u16 = 500;
/// Consumers of a walk. The broker keeps up to 32 of them in the order of their tags.
const WINDOWS: u16 = 32;
/// For the next letter of a window, when the broker has counted that many.
const PATIENCE: Duration = Duration::from_secs(3);
/// Until the broker has put back what a walk did not take.
const RETURNED_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[async_trait]
impl DeadLetters for RabbitQueue {
    async fn walk(&self, family: Family) -> Result<Box<dyn Walk>, QueueError> {
        let link = self.inner.options.consuming.clone();
        let queue = format!("{family}.dead");
        let there = ready(&link, &queue).await?;
        let channel = link.channel().await?;
        let left = there.min(u64::from(WINDOW) * u64::from(WINDOWS));
        Ok(Box::new(RabbitWalk {
            inner: std::sync::Arc::clone(&self.inner),
            link,
            channel: Closing(channel),
            family,
            queue,
            there,
            left,
            removed: 0,
            windows: 0,
            window: VecDeque::new(),
            current: None,
        }))
    }
}

/// Those that nobody has in hand.
async fn ready(link: &Link, queue: &str) -> Result<u64, QueueError> {
    let asked = async {
        let mut looker = Looker::new(link).await?;
        looker.count(queue).await
    };
    match timeout(TIMEOUT, asked).await {
        Ok(count) => Ok(count?.map_or(0, |count| count.ready)),
        Err(_elapsed) => Err(QueueError::Unavailable("RabbitMQ doesn't answer".into())),
    }
}

/// Closes the channel at once and as a whole: nobody need answer for what it has in hand to be put back.
struct Closing(Channel);

impl Drop for Closing {
    fn drop(&mut self) {
        // Its frame is on the connection's list when it has been polled; closed already is as good.
        if let Some(Err(error)) = self.0.close(200, "looked".into()).now_or_never() {
            tracing::debug!(%error, "a walk's channel was closed already");
        }
    }
}

struct RabbitWalk {
    inner: std::sync::Arc<Inner>,
    link: Link,
    channel: Closing,
    family: Family,
    queue: String,
    /// Letters when the walk began.
    there: u64,
    /// Of these, what this walk will still ask for.
    left: u64,
    removed: u64,
    /// Consumers so far.
    windows: u16,
    window: VecDeque<message::Delivery>,
    current: Option<(u64, DeadLetter)>,
}

impl RabbitWalk {
    /// Takes the next window. Its consumer ends at once: what is acknowledged later makes no room for more.
    async fn fill(&mut self) -> Result<(), Unavailable> {
        let count = self.left.min(u64::from(WINDOW)) as u16;
        let channel = &self.channel.0;
        channel.basic_qos(count, BasicQosOptions { global: false }).await?;
        let tag = format!("dead-letters {:02}, {}", self.windows, process()).chars().take(200).collect::<String>();
        let options = BasicConsumeOptions::default();
        let mut stream = channel
            .basic_consume(self.queue.as_str().into(), tag.as_str().into(), options, FieldTable::default())
            .await?;
        self.windows += 1;
        while self.window.len() < usize::from(count) {
            match timeout(PATIENCE, stream.next()).await {
                Ok(Some(delivery)) => self.window.push_back(delivery?),
                Ok(None) => return Err(Unavailable(format!("{} was closed", self.queue))),
                // Somebody else has the rest.
                Err(_elapsed) => break,
            }
        }
        self.left = if self.window.len() < usize::from(count) { 0 } else { self.left - u64::from(count) };
        channel.basic_cancel(tag.as_str().into(), BasicCancelOptions { nowait: false }).await?;
        Ok(())
    }

    async fn fill_in_time(&mut self) -> Result<(), QueueError> {
        match timeout(TIMEOUT * 3, self.fill()).await {
            Ok(filled) => Ok(filled?),
            Err(_elapsed) => Err(QueueError::Unavailable("RabbitMQ doesn't answer".into())),
        }
    }

    async fn acknowledge(&mut self) -> Result<(), QueueError> {
        if let Some((tag, _)) = self.current.take() {
            self.channel.0.basic_ack(tag, BasicAckOptions { multiple: false }).await.map_err(Unavailable::from)?;
            self.removed += 1;
        }
        Ok(())
    }
}

#[async_trait]
impl Walk for RabbitWalk {
    async fn next(&mut self) -> Result<Option<DeadLetter>, QueueError> {
        self.current = None;
        if self.window.is_empty() && self.left > 0 {
            self.fill_in_time().await?;
        }
        let Some(delivery) = self.window.pop_front() else { return Ok(None) };
        let tag = delivery.delivery_tag;
        let letter = letter(self.family, delivery);
        self.current = Some((tag, letter.clone()));
        Ok(Some(letter))
    }

    async fn put_back(&mut self) -> Result<(), QueueError> {
        let Some((_, letter)) = &self.current else { return Ok(()) };
        let lane = lane_of(letter, self.inner.shards);
        let key = match lane.family {
            Family::DbTasks => self.inner.keys.get(usize::from(lane.shard)).map(String::as_str),
            Family::IndexTasks | Family::SearchTasks => Some(lane.family.as_str()),
        };
        let key = key.ok_or_else(|| QueueError::Unavailable(format!("there is no {lane}")))?;
        let publish = Publish {
            exchange: lane.family.as_str(),
            key: key.into(),
            payload: repeated(&letter.payload),
            headers: Some(headers::carried(letter.deaths, letter.first_died_at)),
            is_question: false,
        };
        crate::crash_point!("before_dead_letter_put_back");
        enqueue_confirmed_by(|confirm| self.inner.publisher.publish(true, publish, confirm)).await?;
        crate::crash_point!("after_dead_letter_put_back");
        self.acknowledge().await
    }

    async fn remove(&mut self) -> Result<(), QueueError> {
        self.acknowledge().await
    }

    fn beyond(&self) -> u64 {
        self.there.saturating_sub(u64::from(WINDOW) * u64::from(WINDOWS))
    }

    async fn end(mut self: Box<Self>) -> Result<(), QueueError> {
        // The broker puts back what it returns behind what it has returned before: the order stays if all go together.
        while self.left > 0 {
            self.window.clear();
            self.fill_in_time().await?;
        }
        let Self { link, channel, queue, there, removed, .. } = *self;
        // Answered behind the acknowledgements.
        let closed = timeout(TIMEOUT, channel.0.close(200, "looked".into())).await;
        drop(channel);
        match closed {
            Ok(closed) => closed.map_err(Unavailable::from)?,
            Err(_elapsed) => return Err(QueueError::Unavailable("RabbitMQ doesn't answer".into())),
        }
        let (deadline, rest) = (Instant::now() + RETURNED_WITHIN, there.saturating_sub(removed));
        while ready(&link, &queue).await? < rest && Instant::now() < deadline {
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

fn letter(family: Family, delivery: message::Delivery) -> DeadLetter {
    let properties = delivery.properties;
    let table = properties.headers().clone().unwrap_or_default();
    let Deaths { count, first, last, reason, queue } = headers::deaths(&table);
    // The shard is a part of the name of its lane.
    let shard = queue.and_then(|queue| queue.rsplit_once('.')?.1.parse().ok()).unwrap_or(0);
    let message_id = properties.message_id().as_ref().map_or("", |id| id.as_str());
    // The broker leaves the publisher's own id on what it sets aside.
    let published = message_id.parse::<PublishId>().ok().map(|id| id.at);
    let enqueued_at = headers::number(&table, headers::ENQUEUED_AT).map(Millis).or(published);
    DeadLetter {
        id: name(message_id, &delivery.data, count, last),
        lane: Lane { family, shard },
        payload: Bytes::from(delivery.data),
        reason,
        deaths: count,
        enqueued_at,
        first_died_at: first,
        died_at: last,
    }
}

/// Twelve hexadecimal digits, the same whenever one looks: a broker's own numbers are those of a channel.
fn name(message_id: &str, payload: &[u8], deaths: u32, died_at: Option<Millis>) -> String {
    let mut hash = Sha256::new();
    hash.update(message_id.as_bytes());
    hash.update(deaths.to_le_bytes());
    hash.update(died_at.map_or(0, |at| at.0).to_le_bytes());
    hash.update(payload);
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
