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
use super::suspects::{Route, Suspects};
use super::{Publish, Queued};
use crate::message::Millis;
use crate::server::rabbitmq::{Life, Unavailable};

/// Publishes handed over at once: what comes together is written together.
const BATCH: usize = 256;
/// No confirm takes so long from a queue that lives.
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

/// A publish that the broker has not decided on.
struct Undecided {
    since: Instant,
    to: Route,
    /// `None` when it was given because the confirm took too long.
    answer: Option<Answer>,
}

/// Those of a channel, by their numbers.
type Unconfirmed = BTreeMap<u64, Undecided>;

pub(super) async fn open(life: &Life) -> Result<Channel, Unavailable> {
    let channel = life.channel().await?;
    // From now on the broker says of each publish when it is safe.
    match timeout(TIMEOUT, channel.confirm_select(ConfirmSelectOptions { nowait: false })).await {
        Ok(selected) => selected?,
        Err(_elapsed) => return Err(Unavailable("RabbitMQ doesn't answer".into())),
    }
    Ok(channel)
}

/// Publishes until the channel ends, or (`Ok`) until nobody can publish any more and all is answered.
///
/// Whatever has no confirm when this returns is answered with [`QueueError::Unavailable`] by the drop of its `Answer`.
pub(super) async fn run(
    life: &Life,
    channel: Channel,
    queued: &mut mpsc::Receiver<Queued>,
    suspects: &mut Suspects,
) -> Result<(), Unavailable> {
    let mut unconfirmed = Unconfirmed::new();
    // When the broker last said something on this connection.
    let mut heard = Instant::now();
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
                let failed = settle(std::mem::take(&mut done), &mut unconfirmed, &mut returned, suspects);
                if let Some(error) = failed {
                    return Err(error.into());
                }
                heard = Instant::now();
                if !is_open && all_answered(&unconfirmed) {
                    return Ok(());
                }
            }
            count = queued.recv_many(&mut batch, BATCH), if is_open => {
                is_open = count > 0;
                if !is_open && all_answered(&unconfirmed) {
                    return Ok(());
                }
                let now = (Instant::now(), Millis::now());
                for Queued { publish: what, answer } in batch.drain(..) {
                    let to = (what.exchange, what.key.clone());
                    if !suspects.admits(&to, now.0) {
                        unavailable(answer, "its queue confirms nothing");
                        continue;
                    }
                    number += 1;
                    unconfirmed.insert(number, Undecided { since: now.0, to, answer: Some(answer) });
                    // They are begun in this order, and put on the connection's list when they begin.
                    under_way.push(publish(&channel, number, now.1, what));
                }
            }
            _ = look.tick() => {
                if !channel.status().connected() {
                    return Err(Unavailable("the channel for publishing ended".into()));
                }
                let any_late = answer_late(life, &mut unconfirmed, suspects);
                if any_late && !life.is_blocked() && heard.elapsed() > CONFIRM_TIMEOUT {
                    // One queue may be to blame. Whether the connection is, its answer to something else tells; while
                    // that is waited for nothing that was published would get there sooner.
                    if life.channel().await.is_err() {
                        life.give_up();
                        return Err(Unavailable(format!("no word within {} s", heard.elapsed().as_secs())));
                    }
                    heard = Instant::now();
                }
                if !is_open && all_answered(&unconfirmed) {
                    return Ok(());
                }
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
    unconfirmed: &mut Unconfirmed,
    returned: &mut HashSet<u64>,
    suspects: &mut Suspects,
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
        let Some(Undecided { to, answer, .. }) = unconfirmed.remove(&number) else { continue };
        let was_returned = returned.remove(&number);
        if outcome.is_ok() && suspects.clear(&to) {
            tracing::info!(exchange = to.0, key = to.1.as_str(), "a queue confirms tasks again");
        }
        let outcome = match outcome {
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
        };
        if let Some(answer) = answer {
            answer.give(outcome);
        }
    }
    failed
}

/// Nobody waits for ever: neither for a queue that confirms nothing, nor for a broker that has no room. Whether somebody
/// has waited too long. What was answered may still be taken: it stays under way.
fn answer_late(life: &Life, unconfirmed: &mut Unconfirmed, suspects: &mut Suspects) -> bool {
    let mut any_late = false;
    for Undecided { to, answer, .. } in unconfirmed.values_mut().take_while(|one| one.since.elapsed() > CONFIRM_TIMEOUT)
    {
        let Some(answer) = answer.take() else { continue };
        any_late = true;
        if life.is_blocked() {
            // New ones are refused meanwhile.
            answer.give(Err(QueueError::Unavailable("rabbitmq has no room".into())));
            continue;
        }
        if suspects.add(to, Instant::now()) {
            let waited = CONFIRM_TIMEOUT.as_secs();
            tracing::warn!(
                exchange = to.0,
                key = to.1.as_str(),
                "no confirm within {waited} s: nothing but probes goes to this queue"
            );
        }
        unavailable(answer, "no confirm came in time");
    }
    any_late
}

fn unavailable(answer: Answer, why: &str) {
    metrics::counter!("aula_publishes_refused_total", "reason" => "unconfirmed").increment(1);
    answer.give(Err(QueueError::Unavailable(why.to_owned())));
}

fn all_answered(unconfirmed: &Unconfirmed) -> bool {
    unconfirmed.values().all(|one| one.answer.is_none())
}
