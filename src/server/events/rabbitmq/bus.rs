use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::bundle::{self, Origin};
use crate::server::events::{BusError, Event, EventBus};
use crate::server::rabbitmq::{Link, Unavailable};

pub(super) const EXCHANGE: &str = "events";
/// Events in one message, at most.
const IN_BUNDLE: usize = 128;
/// For a confirm. A broker that is short of memory gives none until it has room again.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// Publishes to every gateway.
pub struct RabbitBus {
    publisher: Arc<Publisher>,
}

struct Publisher {
    link: Link,
    id: Uuid,
    state: Mutex<State>,
}

/// Behind a lock, so that numbers go out in their order.
#[derive(Default)]
struct State {
    channel: Option<Channel>,
    published: u64,
}

impl RabbitBus {
    /// `link` is one for publishing.
    pub fn new(link: Link) -> Self {
        Self { publisher: Arc::new(Publisher { link, id: Uuid::new_v4(), state: Mutex::default() }) }
    }
}

impl Publisher {
    /// Resolves when the bundle is on its way; what it resolves to, when it is confirmed.
    async fn send(
        &self,
        mut bundle: Vec<u8>,
    ) -> Result<impl Future<Output = lapin::Result<Confirmation>> + Send + use<>, Unavailable> {
        let mut state = self.state.lock().await;
        let channel = match state.channel.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => {
                let channel = self.link.channel().await?;
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                channel
            }
        };
        state.published += 1;
        bundle::stamp(&mut bundle, Origin { publisher: self.id, number: state.published });
        // Not persistent: a gateway's queue doesn't outlive the gateway. Not mandatory: without any gateway there is
        // nobody to tell.
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let confirm = channel.basic_publish(EXCHANGE.into(), "".into(), options, &bundle, properties).await?;
        // Not kept if that failed: what was begun on it may be half written.
        state.channel = Some(channel);
        Ok(confirm)
    }

    /// All bundles, and their confirms.
    async fn send_all(&self, bundles: Vec<Vec<u8>>) -> Result<(), BusError> {
        let mut confirms = Vec::with_capacity(bundles.len());
        for bundle in bundles {
            confirms.push(self.send(bundle).await.map_err(|error| BusError(error.to_string()))?);
        }
        for confirm in confirms {
            match confirm.await {
                Ok(Confirmation::Nack(_)) => return Err(BusError("the broker refused it".into())),
                Ok(_) => {}
                Err(error) => return Err(BusError(error.to_string())),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl EventBus for RabbitBus {
    async fn publish(&self, events: Vec<Event>) -> Result<(), BusError> {
        let bundles = events.chunks(IN_BUNDLE).map(bundle::encode).collect::<Result<_, _>>()?;
        let publisher = Arc::clone(&self.publisher);
        // A task of its own, because it holds a lock while it waits. An owner publishes one thing while others of its
        // futures, which nobody polls meanwhile, are about to publish: one of those must not be the lock's holder.
        let sent = AbortOnDropHandle::new(tokio::spawn(async move { publisher.send_all(bundles).await }));
        match timeout(CONFIRM_TIMEOUT, sent).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(ended)) => Err(BusError(ended.to_string())),
            Err(_elapsed) => Err(BusError("the broker confirms nothing".into())),
        }
    }
}
