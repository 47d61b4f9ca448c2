use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{BusError, Event, EventBus, EventSink, EventSource};
use crate::server::sqlite::{Database, DbError};

/// Events read at once, at most.
const PAGE: i64 = 512;
/// Events kept for a gateway that does not fetch them. It would find the rest in the store.
const KEPT: i64 = 100_000;

/// Within one process a call; from a worker in another process, rows of a table that the gateway follows.
///
/// A data directory has at most one gateway, so there is nobody else to tell.
pub struct EmbeddedBus {
    gateway: Option<Arc<dyn EventSink>>,
    database: Database,
}

impl EmbeddedBus {
    /// `gateway` is the one of this process, if it has one.
    pub fn new(database: Database, gateway: Option<Arc<dyn EventSink>>) -> Self {
        Self { gateway, database }
    }
}

#[async_trait]
impl EventBus for EmbeddedBus {
    async fn publish(&self, events: Vec<Event>) -> Result<(), BusError> {
        if let Some(gateway) = &self.gateway {
            for event in events {
                gateway.deliver(event);
            }
            return Ok(());
        }
        let mut rows = Vec::with_capacity(events.len());
        for event in &events {
            rows.push(rmp_serde::to_vec(event).map_err(|error| BusError(error.to_string()))?);
        }
        let written = self.database.write(move |connection| {
            let mut insert = connection.prepare_cached("INSERT INTO events (payload) VALUES (?1)")?;
            for row in &rows {
                insert.execute([row])?;
            }
            connection
                .prepare_cached("DELETE FROM events WHERE id <= ?1")?
                .execute([connection.last_insert_rowid() - KEPT])?;
            Ok(())
        });
        written.await.map_err(|error: DbError| BusError(error.to_string()))
    }
}

/// The gateway's end: follows the table and hands over what workers of other processes wrote.
pub struct EventTail {
    database: Database,
    changed: Arc<Notify>,
    cursor: i64,
}

impl EventTail {
    /// Begins at the end: a gateway that just started has no client who could have missed anything.
    pub async fn open(database: Database) -> Result<Self, DbError> {
        let changed = Arc::new(Notify::new());
        let observer = Arc::clone(&changed);
        database.on_foreign_commit(move || observer.notify_one());
        let cursor = database
            .write(|connection| {
                let last: Option<i64> = connection
                    .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'events'", [], |row| row.get(0))
                    .or_else(|error| match error {
                        rusqlite::Error::QueryReturnedNoRows => Ok(None),
                        other => Err(other),
                    })?;
                connection.execute("DELETE FROM events", [])?;
                Ok(last.unwrap_or(0))
            })
            .await?;
        Ok(Self { database, changed, cursor })
    }

    async fn hand_over(&mut self, gateway: &dyn EventSink) -> Result<(), DbError> {
        loop {
            let after = self.cursor;
            let rows = self
                .database
                .read(move |connection| {
                    let mut events = connection
                        .prepare_cached("SELECT id, payload FROM events WHERE id > ?1 ORDER BY id LIMIT ?2")?;
                    let rows = events
                        .query_map([after, PAGE], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
                    rows.collect::<rusqlite::Result<Vec<_>>>()
                })
                .await?;
            let Some(last) = rows.last().map(|(id, _)| *id) else { return Ok(()) };
            // Ids have no holes: what is missing was deleted because this gateway stood still.
            if rows.first().is_some_and(|(first, _)| *first > self.cursor + 1) {
                gateway.missed();
            }
            for (id, payload) in &rows {
                match rmp_serde::from_slice(payload) {
                    Ok(event) => gateway.deliver(event),
                    Err(error) => {
                        tracing::error!(%error, id, "an event can't be read: is a worker of another version?")
                    }
                }
            }
            self.cursor = last;
            self.database
                .write(move |connection| {
                    connection.prepare_cached("DELETE FROM events WHERE id <= ?1")?.execute([last])
                })
                .await?;
        }
    }
}

#[async_trait]
impl EventSource for EventTail {
    async fn run(mut self: Box<Self>, gateway: Arc<dyn EventSink>) {
        loop {
            self.changed.notified().await;
            while let Err(error) = self.hand_over(gateway.as_ref()).await {
                tracing::warn!(%error, "events can't be read; trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}
