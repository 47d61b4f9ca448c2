//! The consumer of a lane: an AMQP channel of its own.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::{Consumer, Delivery, Family, Lane, QueueError, Tag, enqueue_confirmed_by};
use super::dead_letters::headers::{deaths_before, died};
use super::publisher::{Publish, PublishId, Publisher};
use super::tracker::{Ack, InHand, Tracker};
use super::{TIMEOUT, queue_name};
use crate::message::Millis;
use crate::server::rabbitmq::{Link, Unavailable, process, topology};

/// How long an acknowledgement may wait for those before it.
const HOLD: Duration = Duration::from_millis(50);

pub(super) struct RabbitConsumer {
    // Before the library's own consumer goes.
    _closing: Closing,
    taken: Arc<Taken>,
    publisher: Publisher,
    _stop: DropGuard,
}

/// A lane that this process consumes.
pub(super) struct Taken {
    lane: Lane,
    channel: Channel,
    state: Mutex<State>,
    holds_back: Notify,
}

/// How full a consumer's lane is.
pub(super) struct Depth {
    pub ready: u64,
    /// In this consumer's hands.
    pub in_hand: u64,
    /// When the oldest of these was enqueued.
    pub oldest: Option<Millis>,
    /// This one, and those who stand by.
    pub consumers: u64,
}

struct State {
    stream: lapin::Consumer,
    /// Not handed out yet.
    buffer: VecDeque<Delivery>,
    tracker: Tracker,
    end: Option<QueueError>,
    /// Of the call that waits.
    waker: Option<Waker>,
}

/// Closes the channel at once and as a whole. Left to itself, the library would first cancel the consumer: the next one
/// would get what comes after the tasks in hand, and only then these.
struct Closing(Channel);

impl Drop for Closing {
    fn drop(&mut self) {
        // The call puts its frame on the connection's list when it is polled; nobody waits for the answer.
        let closed = self.0.close(200, "given back".into()).now_or_never();
        if let Some(Err(error)) = closed {
            tracing::debug!(%error, "a consumer's channel was closed already");
        }
    }
}

impl RabbitConsumer {
    /// Resolves when the lane is this consumer's. The broker does not tell when a consumer becomes the active one but by
    /// its first task, so this waits for one.
    pub(super) async fn take(
        link: &Link,
        publisher: Publisher,
        lane: Lane,
        prefetch: usize,
    ) -> Result<Self, QueueError> {
        let life = link.next_life().await;
        let channel = life.channel().await?;
        let closing = Closing(channel.clone());
        let stream = within(subscribe(&channel, lane, prefetch)).await?;
        let state = State { stream, buffer: VecDeque::new(), tracker: Tracker::new(prefetch), end: None, waker: None };
        let taken = Arc::new(Taken { lane, channel, state: Mutex::new(state), holds_back: Notify::new() });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(hold_no_longer(Arc::downgrade(&taken))));
        let consumer = Self { _closing: closing, taken, publisher, _stop: stop.drop_guard() };
        if lane.family == Family::DbTasks {
            consumer.taken.first().await?;
        }
        Ok(consumer)
    }

    pub(super) fn taken(&self) -> Weak<Taken> {
        Arc::downgrade(&self.taken)
    }
}

async fn subscribe(channel: &Channel, lane: Lane, prefetch: usize) -> Result<lapin::Consumer, Unavailable> {
    // Of this consumer, not of the channel as a whole, which quorum queues don't know.
    let qos = BasicQosOptions { global: false };
    channel.basic_qos(u16::try_from(prefetch).unwrap_or(u16::MAX), qos).await?;
    let options = BasicConsumeOptions {
        // RabbitMQ doesn't implement it.
        no_local: false,
        // Tasks are acknowledged when their effects are durable.
        no_ack: false,
        // Standbys subscribe too; the queue itself has a single active consumer.
        exclusive: false,
        // Its failure must be heard of.
        nowait: false,
    };
    let tag = process().chars().take(200).collect::<String>();
    Ok(channel.basic_consume(queue_name(lane).into(), tag.into(), options, FieldTable::default()).await?)
}

async fn within<T>(call: impl Future<Output = Result<T, Unavailable>>) -> Result<T, QueueError> {
    match timeout(TIMEOUT, call).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => Err(QueueError::Unavailable("RabbitMQ doesn't answer".into())),
    }
}

/// Acknowledges what has been held back for long enough.
async fn hold_no_longer(taken: Weak<Taken>) {
    loop {
        {
            let Some(strong) = taken.upgrade() else { return };
            if !strong.state.lock().tracker.holds_back() {
                // Not to keep the lane by waiting: the consumer ends this task when it is dropped.
                strong.holds_back.notified().await;
            }
        }
        sleep(HOLD).await;
        let Some(taken) = taken.upgrade() else { return };
        let mut state = taken.state.lock();
        let acks = state.tracker.all_held();
        taken.send(acks);
    }
}

impl Taken {
    /// The first task stays in the buffer.
    async fn first(&self) -> Result<(), QueueError> {
        poll_fn(|context| {
            let mut state = self.state.lock();
            state.receive(self.lane, context);
            match &state.end {
                Some(end) => Poll::Ready(Err(end.clone())),
                None if state.buffer.is_empty() => Poll::Pending,
                None => Poll::Ready(Ok(())),
            }
        })
        .await
    }

    /// Called with the state locked, so that nothing comes between an acknowledgement and the end of the channel.
    fn send(&self, acks: Vec<Ack>) {
        for Ack { tag, multiple } in acks {
            // As with `Closing`: it is on its way when it has been polled.
            let sent = self.channel.basic_ack(tag, BasicAckOptions { multiple }).now_or_never();
            if let Some(Err(error)) = sent {
                tracing::debug!(%error, lane = %self.lane, "acknowledgements are lost; the tasks will be delivered again");
            }
        }
    }

    /// Exact: the question goes through the consumer's own channel, behind its acknowledgements, and the answer comes
    /// behind its deliveries.
    pub(super) async fn depth(&self) -> Result<Depth, QueueError> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = async {
            Ok(self.channel.queue_declare(queue_name(self.lane).into(), options, FieldTable::default()).await?)
        };
        let queue = within(asked).await?;
        let mut state = self.state.lock();
        // The call that waits for tasks has to look at what this takes from the stream.
        let waker = state.waker.take();
        state.receive(self.lane, &mut Context::from_waker(Waker::noop()));
        let depth = Depth {
            ready: u64::from(queue.message_count()),
            in_hand: state.tracker.unacknowledged() as u64,
            oldest: state.tracker.oldest(),
            consumers: u64::from(queue.consumer_count()),
        };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(depth)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.channel.status().connected()
    }
}

impl State {
    /// Moves what has arrived to the buffer.
    fn receive(&mut self, lane: Lane, context: &mut Context<'_>) {
        while self.end.is_none() {
            match self.stream.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(message))) => self.take_in(message),
                Poll::Ready(Some(Err(error))) => self.end(Unavailable::from(error).into()),
                // The broker has cancelled it: the queue is gone, or has moved.
                Poll::Ready(None) => self.end(QueueError::LaneLost(lane)),
                Poll::Pending => return,
            }
        }
    }

    fn take_in(&mut self, message: lapin::message::Delivery) {
        let id = message.properties.message_id().as_ref().and_then(|id| id.as_str().parse::<PublishId>().ok());
        let payload = Bytes::from(message.data);
        let deaths = message.properties.headers().as_ref().map_or(0, deaths_before);
        let task =
            InHand { payload: payload.clone(), at: id.map(|id| id.at), headers: message.properties.headers().clone() };
        if !self.tracker.delivered(message.delivery_tag, task) {
            return self.end(QueueError::Unavailable("rabbitmq: a delivery is missing".into()));
        }
        if let Some(PublishId { at, .. }) = id {
            let waited = Millis::now().0.saturating_sub(at.0).max(0) as f64 / 1000.0;
            metrics::histogram!("aula_queue_wait_seconds").record(waited);
        }
        self.buffer.push_back(Delivery {
            tag: message.delivery_tag,
            payload,
            // What was put back has been delivered before it died.
            redelivered: message.redelivered || deaths > 0,
            unconfirmed: None,
        });
    }

    /// What has not been handed out never will be: another consumer gets it.
    fn end(&mut self, reason: QueueError) {
        self.buffer.clear();
        self.end = Some(reason);
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn next_batch(&mut self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        let taken = &self.taken;
        poll_fn(|context| {
            let mut state = taken.state.lock();
            state.receive(taken.lane, context);
            if let Some(end) = &state.end {
                return Poll::Ready(Err(end.clone()));
            }
            if state.buffer.is_empty() || max == 0 {
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let count = max.min(state.buffer.len());
            Poll::Ready(Ok(state.buffer.drain(..count).collect()))
        })
        .await
    }

    fn acknowledge(&mut self, tags: &[Tag]) {
        let mut state = self.taken.state.lock();
        let acks = state.tracker.done(tags);
        self.taken.send(acks);
        if state.tracker.holds_back() {
            self.taken.holds_back.notify_one();
        }
    }

    async fn dead_letter(&mut self, tag: Tag, reason: &str) -> Result<(), QueueError> {
        let lane = self.taken.lane;
        let task = {
            let state = self.taken.state.lock();
            if let Some(end) = &state.end {
                return Err(end.clone());
            }
            state.tracker.in_hand(tag).cloned()
        };
        let Some(InHand { payload, at, headers }) = task else { return Ok(()) };
        let mut headers = headers.unwrap_or_default();
        let text = |text: String| AMQPValue::LongString(text.into());
        headers.insert("reason".into(), text(reason.to_owned()));
        headers.insert("lane".into(), text(lane.to_string()));
        died(&mut headers, Millis::now());
        if let Some(at) = at {
            headers.insert("enqueued-at-ms".into(), AMQPValue::LongLongInt(at.0));
        }
        let publish = Publish {
            is_question: false,
            exchange: topology::DEAD_LETTERS,
            key: lane.family.as_str().into(),
            payload,
            headers: Some(headers),
        };
        enqueue_confirmed_by(|confirm| self.publisher.publish(false, publish, confirm)).await?;
        let mut state = self.taken.state.lock();
        let mut acks = state.tracker.done(&[tag]);
        acks.extend(state.tracker.all_held());
        self.taken.send(acks);
        Ok(())
    }
}

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        let mut state = self.taken.state.lock();
        let acks = state.tracker.all_held();
        self.taken.send(acks);
    }
}
