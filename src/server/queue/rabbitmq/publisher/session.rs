//! One AMQP channel in confirm mode, from its beginning to its end.

use std::collections::{BTreeMap, HashSet};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::super::super::QueueError;
use super::super::TIMEOUT;
use super::answer::{Answer, PublishId};
use super::{Publish, Queued};
use crate::message::Millis;
use crate::server::rabbitmq::{Life, Unavailable};

/// Publishes handed over at once: what comes together is written together.
const BATCH: usize = 256;
/// No confirm takes so long from a broker that lives.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// How often that is looked after.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// `delivery-mode`: written to disk. Quorum queues do so in any case; a queue that somebody replaced by a classic one
/// must not forget tasks at a restart.
const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;
/// The highest of `x-max-priority`.
const FIRST: u8 = 1;

type Outcome = (u64, Result<Confirmation, lapin::Error>);

pub(super) async fn open(life: &Life) -> Result<Channel, Unavailable> {
    let channel = life.channel().await?;
    // From now on the broker says of each publish when it is safe.
    match timeout(TIMEOUT, channel.confirm_select(ConfirmSelectOptions { nowait: false })).await {
        Ok(selected) => selected?,
        Err(_elapsed) => return Err(Unavailable("RabbitMQ doesn't answer".into())),
    }
    Ok(channel)
}

/// Publishes until the channel ends, or (`Ok`) until nobody can publish any more and all is confirmed.
///
/// Whatever has no confirm when this returns is answered with [`QueueError::Unavailable`] by the drop of its `Answer`.
pub(super) async fn run(life: &Life, channel: Channel, queued: &mut mpsc::Receiver<Queued>) -> Result<(), Unavailable> {
    let mut unconfirmed: BTreeMap<u64, (Instant, Answer)> = BTreeMap::new();
    let mut under_way = FuturesUnordered::new();
    let mut returned = HashSet::new();
    let (mut batch, mut done): (Vec<Queued>, Vec<Outcome>) = (Vec::new(), Vec::new());
    let mut number = 0;
    let mut is_open = true;
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let answered = poll_fn(|context| {
            while let Poll::Ready(Some(outcome)) = under_way.poll_next_unpin(context) {
                done.push(outcome);
            }
            if done.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        });
        tokio::select! {
            () = answered => {
                let failed = settle(std::mem::take(&mut done), &mut unconfirmed, &mut returned);
                if let Some(error) = failed {
                    return Err(error.into());
                }
                if !is_open && unconfirmed.is_empty() {
                    return Ok(());
                }
            }
            count = queued.recv_many(&mut batch, BATCH), if is_open => {
                is_open = count > 0;
                if !is_open && unconfirmed.is_empty() {
                    return Ok(());
                }
                let now = (Instant::now(), Millis::now());
                for Queued { publish: what, answer } in batch.drain(..) {
                    number += 1;
                    unconfirmed.insert(number, (now.0, answer));
                    // They are begun in this order, and put on the connection's list when they begin.
                    under_way.push(publish(&channel, number, now.1, what));
                }
            }
            _ = look.tick() => {
                if !channel.status().connected() {
                    return Err(Unavailable("the channel for publishing ended".into()));
                }
                give_up_late(life, &mut unconfirmed)?;
            }
            () = life.ended() => return Err(Unavailable("the connection for publishing ended".into())),
        }
    }
}

async fn publish(channel: &Channel, number: u64, at: Millis, publish: Publish) -> Outcome {
    // Mandatory: what no queue takes comes back, instead of being confirmed and lost.
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let mut properties = BasicProperties::default()
        .with_delivery_mode(if publish.is_question { TRANSIENT } else { PERSISTENT })
        .with_timestamp(u64::try_from(at.0 / 1000).unwrap_or(0))
        .with_message_id(PublishId { at, number }.to_string().into());
    if publish.is_question {
        properties = properties.with_priority(FIRST);
    }
    if let Some(headers) = publish.headers {
        properties = properties.with_headers(headers);
    }
    let Publish { exchange, key, payload, .. } = publish;
    let confirm = match channel.basic_publish(exchange.into(), key, options, &payload, properties).await {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    (number, confirm)
}

/// Answers what the broker has decided. Returns the error of a channel that has ended.
///
/// The library hands a returned message to whichever confirm it handles next, which need not be its own: with "all up to
/// n" it goes through them in any order. It does so before the returned one's own confirm, or with it; and `done` holds
/// all that it has handled. So all are read before any is answered, and whoever carries a foreign message is not
/// trusted with a confirm either.
fn settle(
    done: Vec<Outcome>,
    unconfirmed: &mut BTreeMap<u64, (Instant, Answer)>,
    returned: &mut HashSet<u64>,
) -> Option<lapin::Error> {
    for (_, outcome) in &done {
        let Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message))) = outcome else { continue };
        let id = message.properties.message_id().as_ref().and_then(|id| id.as_str().parse::<PublishId>().ok());
        tracing::warn!(
            exchange = message.exchange.as_str(),
            key = message.routing_key.as_str(),
            reason = message.reply_text.as_str(),
            "rabbitmq has no queue for a task: queue.shards is another number here, or `aula migrate` is at work"
        );
        metrics::counter!("aula_publishes_refused_total", "reason" => "returned").increment(1);
        returned.extend(id.map(|id| id.number));
    }
    let mut failed = None;
    for (number, outcome) in done {
        let Some((_, answer)) = unconfirmed.remove(&number) else { continue };
        let was_returned = returned.remove(&number);
        answer.give(match outcome {
            Ok(Confirmation::Ack(None)) if !was_returned => Ok(()),
            Ok(Confirmation::Ack(_)) => Err(QueueError::Unavailable("no queue takes tasks of this shard now".into())),
            Ok(Confirmation::Nack(_)) => {
                metrics::counter!("aula_publishes_refused_total", "reason" => "full").increment(1);
                Err(QueueError::Overloaded)
            }
            // The channel is in confirm mode; what is not confirmed is not safe.
            Ok(Confirmation::NotRequested) => Err(QueueError::Unavailable("rabbitmq confirms nothing".into())),
            Err(error) => {
                let reason = format!("rabbitmq: {error}");
                failed = Some(error);
                Err(QueueError::Unavailable(reason))
            }
        });
    }
    failed
}

/// Nobody waits for ever: neither for a broker that doesn't answer, nor for one that has no room.
fn give_up_late(life: &Life, unconfirmed: &mut BTreeMap<u64, (Instant, Answer)>) -> Result<(), Unavailable> {
    let is_late = |entry: &std::collections::btree_map::OccupiedEntry<'_, u64, (Instant, Answer)>| {
        entry.get().0.elapsed() > CONFIRM_TIMEOUT
    };
    while let Some(oldest) = unconfirmed.first_entry().filter(is_late) {
        if !life.is_blocked() {
            life.give_up();
            return Err(Unavailable(format!("no confirm within {} s", CONFIRM_TIMEOUT.as_secs())));
        }
        // It may still be taken when there is room; new ones are refused meanwhile.
        oldest.remove().1.give(Err(QueueError::Unavailable("rabbitmq has no room".into())));
    }
    Ok(())
}
