//! The producer's side: one AMQP channel, published to in the order of the calls, and confirmed in a window.

mod answer;
mod session;
mod suspects;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use lapin::types::{FieldTable, ShortString};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(super) use self::answer::PublishId;
use self::answer::{Answer, Window};
use self::suspects::Suspects;
use super::super::{Confirm, QueueError};
use crate::server::rabbitmq::{Life, Link, Unavailable};
use crate::server::worker::Backoff;

/// What is put where.
pub(super) struct Publish {
    pub exchange: &'static str,
    pub key: ShortString,
    pub payload: Bytes,
    pub headers: Option<FieldTable>,
    /// A person waits, and nobody will in a few seconds: it goes first, and to no disk.
    pub is_question: bool,
}

/// Clones share the channel.
#[derive(Clone)]
pub(super) struct Publisher {
    link: Link,
    window: Window,
    queued: mpsc::Sender<Queued>,
    is_ready: Arc<AtomicBool>,
}

struct Queued {
    publish: Publish,
    answer: Answer,
}

impl Publisher {
    /// `window`: publishes of what may be refused that wait for the broker's confirm.
    pub(super) fn start(link: Link, window: usize) -> Self {
        let window = Window::new(window);
        let (queued, receiver) = mpsc::channel(window.capacity());
        let is_ready = Arc::new(AtomicBool::new(false));
        tokio::spawn(run(link.clone(), receiver, Arc::clone(&is_ready)));
        Self { link, window, queued, is_ready }
    }

    /// Publishes after everything that was published before. `confirm` is called once unless this fails.
    ///
    /// Errors: [`QueueError::Overloaded`] if too much waits for a confirm or the broker takes nothing;
    /// [`QueueError::Unavailable`] without a connection.
    pub(super) fn publish(&self, may_be_refused: bool, publish: Publish, confirm: Confirm) -> Result<(), QueueError> {
        if self.link.life()?.is_blocked() {
            metrics::counter!("aula_publishes_refused_total", "reason" => "blocked").increment(1);
            return Err(QueueError::Overloaded);
        }
        let Some(place) = self.window.place(may_be_refused) else {
            metrics::counter!("aula_publishes_refused_total", "reason" => "window").increment(1);
            return Err(QueueError::Overloaded);
        };
        let is_task = may_be_refused;
        match self.queued.try_send(Queued { publish, answer: Answer::new(place, is_task, confirm) }) {
            Ok(()) => Ok(()),
            // It has room for the whole window.
            Err(mpsc::error::TrySendError::Full(queued)) => {
                queued.answer.forget();
                Err(QueueError::Overloaded)
            }
            Err(mpsc::error::TrySendError::Closed(queued)) => {
                queued.answer.forget();
                Err(QueueError::Closed)
            }
        }
    }

    /// Whether there is a channel to publish on.
    pub(super) fn check(&self) -> Result<(), QueueError> {
        // Its task has ended, which it does by a panic alone: nothing is published any more.
        if self.queued.is_closed() {
            return Err(QueueError::Closed);
        }
        if self.is_ready.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(QueueError::Unavailable("there is no channel to publish on".into()))
    }
}

/// Publishes until the last [`Publisher`] is gone and everything is confirmed.
async fn run(link: Link, mut queued: mpsc::Receiver<Queued>, is_ready: Arc<AtomicBool>) {
    let mut backoff = Backoff::new();
    let mut suspects = Suspects::default();
    loop {
        let life = tokio::select! {
            biased;
            life = link.next_life() => life,
            // What came before the end of the last connection was noticed.
            late = queued.recv() => match late {
                Some(Queued { answer, .. }) => {
                    answer.give(Err(QueueError::Unavailable("there is no connection with RabbitMQ".into())));
                    continue;
                }
                None => return,
            },
        };
        match publish_on(&life, &mut queued, &mut suspects, &is_ready).await {
            Ok(()) => return,
            Err(Unavailable(reason)) => {
                is_ready.store(false, Ordering::Release);
                tracing::warn!(reason, "tasks can't be published until there is a new channel");
            }
        }
        backoff.pause().await;
        if life.is_alive() {
            continue;
        }
        backoff = Backoff::new();
    }
}

async fn publish_on(
    life: &Life,
    queued: &mut mpsc::Receiver<Queued>,
    suspects: &mut Suspects,
    is_ready: &AtomicBool,
) -> Result<(), Unavailable> {
    let channel = session::open(life).await?;
    is_ready.store(true, Ordering::Release);
    suspects.probe_at_once(Instant::now());
    session::run(life, channel, queued, suspects).await
}
