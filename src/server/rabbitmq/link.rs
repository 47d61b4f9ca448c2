//! A connection that is made anew whenever it breaks.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Channel, Connection, Event};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Unavailable;
use super::connect::{self, Cut, Target};
use crate::config;
use crate::server::worker::Backoff;

/// The library tells of most ends by an event; this finds the others.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// For the round trip that opens a channel.
const CHANNEL_TIMEOUT: Duration = Duration::from_secs(5);
/// For the goodbye of a connection that works.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Keeps a connection with the broker. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct Link {
    state: watch::Receiver<State>,
    address: Arc<str>,
    _stop: Arc<DropGuard>,
}

#[derive(Clone)]
enum State {
    Up(Arc<Life>),
    Down(String),
}

/// One connection, from its beginning to its end. What was made on it ends with it: nothing is carried over to the next.
pub struct Life {
    connection: Connection,
    cut: Cut,
    ended: CancellationToken,
}

impl Link {
    /// Connects, and stays connected from then on. `role` is shown to the broker's operators.
    ///
    /// Errors: what is wrong with the configuration, or that the broker can't be reached now.
    pub async fn open(config: &config::Rabbitmq, role: &str) -> anyhow::Result<Self> {
        let target = Target::new(config)?;
        let first = connect(&target, role).await?;
        let (sender, state) = watch::channel(State::Up(Arc::clone(&first)));
        let stop = CancellationToken::new();
        let address = target.address().into();
        tokio::spawn(keep(target, role.to_owned(), first, sender, stop.clone()));
        Ok(Self { state, address, _stop: Arc::new(stop.drop_guard()) })
    }

    /// The present connection, at once.
    pub fn life(&self) -> Result<Arc<Life>, Unavailable> {
        match &*self.state.borrow() {
            State::Up(life) if life.is_alive() => Ok(Arc::clone(life)),
            State::Up(_) => Err(Unavailable("the connection with RabbitMQ has just ended".into())),
            State::Down(reason) => Err(Unavailable(reason.clone())),
        }
    }

    /// The next connection that works, however long that takes. Cancel-safe.
    pub async fn next_life(&self) -> Arc<Life> {
        let mut state = self.state.clone();
        loop {
            if let State::Up(life) = &*state.borrow_and_update()
                && life.is_alive()
            {
                return Arc::clone(life);
            }
            // An error would mean that nobody keeps the connection; that ends with the last `Link`, and here is one.
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// A new channel on the present connection.
    pub async fn channel(&self) -> Result<Channel, Unavailable> {
        self.life()?.channel().await
    }

    /// Host, port and virtual host.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Life {
    pub fn is_alive(&self) -> bool {
        !self.ended.is_cancelled() && self.connection.status().connected()
    }

    /// The broker is short of memory or disk and reads nothing from connections that publish. Whether it is so is told
    /// only to a connection that has published since.
    pub fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Resolves when the connection has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub async fn channel(&self) -> Result<Channel, Unavailable> {
        match timeout(CHANNEL_TIMEOUT, self.connection.create_channel()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(error.into()),
            Err(_elapsed) => Err(Unavailable("RabbitMQ doesn't answer".into())),
        }
    }

    /// Ends the connection without goodbye, for one that doesn't answer. The link makes a new one.
    pub fn give_up(&self) {
        self.ended.cancel();
        self.cut.now();
    }

    /// Waits for the end. Returns why.
    async fn watch(&self, role: &str) -> String {
        let mut events = std::pin::pin!(self.connection.events_listener());
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut reason = "the connection ended".to_owned();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(why)) => {
                        tracing::warn!(role, why, "rabbitmq refuses publishes until it has room again");
                    }
                    Some(Event::ConnectionUnblocked) => tracing::info!(role, "rabbitmq accepts publishes again"),
                    Some(Event::Error(error)) => reason = error.to_string(),
                    _ => {}
                },
                _ = look.tick() => {}
                () = self.ended.cancelled() => return "given up: it did not answer".to_owned(),
            }
            if !self.connection.status().connected() {
                return reason;
            }
        }
    }

    async fn close(&self) {
        self.ended.cancel();
        // Its failure changes nothing: the socket is closed in any case.
        let goodbye = timeout(CLOSE_TIMEOUT, self.connection.close(200, "bye".into())).await;
        tracing::debug!(in_good_order = goodbye.is_ok_and(|closed| closed.is_ok()), "rabbitmq connection closed");
        self.cut.now();
    }
}

async fn connect(target: &Target, role: &str) -> Result<Arc<Life>, Unavailable> {
    let (connection, cut) = target.connect(&connect::name(role)).await?;
    Ok(Arc::new(Life { connection, cut, ended: CancellationToken::new() }))
}

async fn keep(target: Target, role: String, mut life: Arc<Life>, state: watch::Sender<State>, stop: CancellationToken) {
    loop {
        let reason = tokio::select! {
            reason = life.watch(&role) => reason,
            () = stop.cancelled() => return life.close().await,
        };
        life.give_up();
        metrics::counter!("aula_rabbitmq_disconnects_total").increment(1);
        tracing::warn!(role, reason, "the connection with rabbitmq broke");
        state.send_replace(State::Down(format!("the connection with {} broke: {reason}", target.address())));
        let mut backoff = Backoff::new();
        life = loop {
            tokio::select! {
                () = stop.cancelled() => return,
                connected = connect(&target, &role) => match connected {
                    Ok(life) => break life,
                    Err(Unavailable(reason)) => {
                        state.send_replace(State::Down(reason));
                    }
                },
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = backoff.pause() => {}
            }
        };
        tracing::info!(role, "connected with rabbitmq again");
        state.send_replace(State::Up(Arc::clone(&life)));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
