//! What every [`EventBus`] and [`EventSource`] must do, whatever is behind them. A new backend implements [`Backend`] and
//! adds one line at the end of the list.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod bus;
mod embedded;
mod rabbitmq;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{Event, EventBus, EventSink, EventSource};
use crate::message::{ChannelId, Kind, Message, Millis, Seq, Username};

/// For what is known to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// For what must not come.
const A_MOMENT: Duration = Duration::from_millis(50);

/// A bus under test.
#[async_trait]
trait Backend: Send + Sync + Sized + 'static {
    /// Gateways that may listen at the same time.
    const GATEWAYS: usize;

    /// One that nobody uses yet.
    async fn fresh() -> Self;

    /// The end of one more worker.
    async fn bus(&self) -> Arc<dyn EventBus>;

    /// The end of one more gateway.
    async fn source(&self) -> Box<dyn EventSource>;

    /// Publishes more than is kept for a gateway that fetches nothing. Returns what it is still going to get.
    async fn overrun(&self, bus: &dyn EventBus) -> Vec<Event>;
}

/// One `#[tokio::test]` for each sentence of the contract.
macro_rules! contract_of {
    ($module:ident, $backend:ty) => {
        contract_of!(@ $module, $backend, [
            all_arrive_in_order,
            a_gateway_begins_with_what_comes_after_its_start,
            a_gateway_that_stood_still_too_long_is_told_so,
            publishers_at_once_keep_their_order_and_lose_nothing,
            a_publish_that_nobody_goes_on_with_holds_up_no_other,
        ]);
    };
    (@ $module:ident, $backend:ty, [$($test:ident),* $(,)?]) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() {
                    super::bus::$test::<$backend>().await;
                }
            )*
        }
    };
}

contract_of!(on_sqlite, super::embedded::Sqlite);
contract_of!(on_rabbitmq, super::rabbitmq::Rabbitmq);

/// A gateway that writes down what it hears.
#[derive(Default)]
struct Recorder {
    heard: Mutex<Vec<Event>>,
    /// How often it was told that it missed something.
    missed: watch::Sender<u32>,
}

impl EventSink for Recorder {
    fn deliver(&self, event: Event) {
        self.heard.lock().push(event);
    }

    fn missed(&self) {
        self.missed.send_modify(|times| *times += 1);
    }
}

impl Recorder {
    /// The first `count` events and whatever came with them.
    async fn hears(&self, count: usize) -> Vec<Event> {
        let hears = async {
            while self.heard.lock().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = timeout(PATIENCE, hears).await.is_ok();
        let heard = self.heard.lock().clone();
        assert!(in_time, "{} of {count} events came", heard.len());
        heard
    }

    /// Until it is told for the `times`th time that it missed something.
    async fn misses(&self, times: u32) {
        timeout(PATIENCE, self.missed.subscribe().wait_for(|missed| *missed >= times)).await.unwrap().unwrap();
    }

    fn missed(&self) -> u32 {
        *self.missed.borrow()
    }

    /// Until the last of `events` has come.
    async fn hears_of(&self, last: &Event) {
        let hears = async {
            while !self.heard.lock().contains(last) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, hears).await.unwrap_or_else(|_| panic!("{last:?} did not come"));
    }
}

/// A gateway at work, until it is dropped.
struct Listening {
    gateway: Arc<Recorder>,
    _running: AbortOnDropHandle<()>,
}

impl Listening {
    fn start(source: Box<dyn EventSource>) -> Self {
        let gateway = Arc::new(Recorder::default());
        let running = tokio::spawn(source.run(gateway.clone()));
        Self { gateway, _running: AbortOnDropHandle::new(running) }
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

/// One that says where it is from.
fn numbered(channel: u128, number: Seq) -> Event {
    Event::Watermarks { channel: ChannelId(Uuid::from_u128(channel)), delivered: Some(number), read: None }
}

/// Which of [`numbered`] it is.
fn number(event: &Event) -> Option<(u128, Seq)> {
    match event {
        Event::Watermarks { channel, delivered: Some(number), .. } => Some((channel.0.as_u128(), *number)),
        _ => None,
    }
}
