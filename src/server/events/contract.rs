//! What every bus keeps to, and the embedded one's two ways tested by it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::{EmbeddedBus, Event, EventBus, EventSink, EventSource as _, EventTail};
use crate::message::{ChannelId, Kind, Message, Millis, Seq, Username};
use crate::server::sqlite::testing::TempDatabase;

/// A gateway that writes down what it hears.
#[derive(Default)]
struct Recorder {
    heard: Mutex<Vec<Event>>,
    missed: Mutex<u32>,
}

impl EventSink for Recorder {
    fn deliver(&self, event: Event) {
        self.heard.lock().push(event);
    }

    fn missed(&self) {
        *self.missed.lock() += 1;
    }
}

impl Recorder {
    async fn hears(&self, count: usize) -> Vec<Event> {
        for _ in 0..1000 {
            if self.heard.lock().len() >= count {
                return self.heard.lock().clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} of {count} events came", self.heard.lock().len());
    }
}

/// A kind of event for each variant that a gateway acts on.
fn events(channel: u128, from: Seq, to: Seq) -> Vec<Event> {
    let channel = ChannelId(Uuid::from_u128(channel));
    let sender = Username::new("ada").unwrap();
    let each = |seq: Seq| {
        let id = Uuid::from_u128(u128::from(seq));
        let message = Message {
            channel,
            seq,
            id,
            sender: sender.clone(),
            client_id: id,
            kind: Kind::Text,
            body: "hé\0".into(),
            at: Millis(7),
        };
        [
            Event::Message(Arc::new(message)),
            Event::Persisted { channel, seq, sender: sender.clone(), client_id: id },
            Event::Watermarks { channel, delivered: Some(seq), read: None },
        ]
    };
    (from..=to).flat_map(each).collect()
}

/// Everything arrives, once, in the order of the calls.
async fn all_arrive_in_order(bus: Arc<dyn EventBus>, gateway: Arc<Recorder>) {
    let mut published = Vec::new();
    for round in 0..20 {
        let some = events(1, round * 3 + 1, round * 3 + 3);
        published.extend(some.clone());
        bus.publish(some).await.unwrap();
    }
    assert_eq!(gateway.hears(published.len()).await, published);
    bus.publish(Vec::new()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(gateway.heard.lock().len(), published.len());
    assert_eq!(*gateway.missed.lock(), 0);
}

#[tokio::test]
async fn within_a_process() {
    let file = TempDatabase::new();
    let gateway = Arc::new(Recorder::default());
    let sink: Arc<dyn EventSink> = gateway.clone();
    all_arrive_in_order(Arc::new(EmbeddedBus::new(file.open_again(), Some(sink))), gateway).await;
}

#[tokio::test]
async fn from_another_process() {
    let file = TempDatabase::new();
    let gateway = Arc::new(Recorder::default());
    let tail = EventTail::open(file.open_again()).await.unwrap();
    let following = tokio::spawn(Box::new(tail).run(gateway.clone()));
    all_arrive_in_order(Arc::new(EmbeddedBus::new(file.open_again(), None)), gateway).await;
    following.abort();
}

#[tokio::test]
async fn a_gateway_begins_with_what_comes_after_its_start() {
    let file = TempDatabase::new();
    let bus = EmbeddedBus::new(file.open_again(), None);
    bus.publish(events(1, 1, 5)).await.unwrap();
    let gateway = Arc::new(Recorder::default());
    let tail = EventTail::open(file.open_again()).await.unwrap();
    let following = tokio::spawn(Box::new(tail).run(gateway.clone()));
    bus.publish(events(1, 6, 6)).await.unwrap();
    assert_eq!(gateway.hears(3).await, events(1, 6, 6));
    assert_eq!(*gateway.missed.lock(), 0);
    following.abort();
}

#[tokio::test]
async fn a_gateway_that_stood_still_too_long_is_told_so() {
    let file = TempDatabase::new();
    let database = file.open_again();
    let bus = EmbeddedBus::new(file.open_again(), None);
    let gateway = Arc::new(Recorder::default());
    let tail = EventTail::open(file.open_again()).await.unwrap();
    bus.publish(events(1, 1, 4)).await.unwrap();
    // As the bus does when a hundred thousand wait.
    database.write(|connection| connection.execute("DELETE FROM events WHERE id <= 6", [])).await.unwrap();
    let following = tokio::spawn(Box::new(tail).run(gateway.clone()));
    bus.publish(events(1, 5, 5)).await.unwrap();
    assert_eq!(gateway.hears(9).await[..], events(1, 3, 5)[..]);
    assert_eq!(*gateway.missed.lock(), 1);
    following.abort();
}
