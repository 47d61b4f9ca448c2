//! RabbitMQ, Cassandra and Elasticsearch.

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::task::JoinSet;

use super::{Backends, Events, Look, Part, make_data_dir};
use crate::config::Config;
use crate::server::auth::agreement;
use crate::server::auth::cassandra::CassandraAccounts;
use crate::server::auth::secret::{SigningKeys, keys_file};
use crate::server::cassandra::Cassandra;
use crate::server::events::{EventBus, EventSink, EventSource, RabbitBus, RabbitEvents};
use crate::server::migrate;
use crate::server::queue::{RabbitQueue, RabbitQueueOptions, TaskQueue};
use crate::server::rabbitmq::management::Management;
use crate::server::rabbitmq::topology::{Topology, Values};
use crate::server::rabbitmq::{Link, process};
use crate::server::search::{
    ElasticsearchIndex, QueuedSearch, RabbitAnswers, Search, SearchIndex, connect_elasticsearch, receive_answers,
};
use crate::server::store::{CassandraStore, Scan, Store};

/// Connects with all three. Nothing is made or changed: that is what `aula migrate` is for.
pub(super) async fn open(config: &Config, part: Part) -> anyhow::Result<Backends> {
    migrate::verify(config).await?;
    let cassandra = Cassandra::connect(&config.cassandra, true).await?;
    let stored = Arc::new(CassandraStore::new(cassandra.clone(), config.queue.dedup_ttl).await?);
    let store = Arc::clone(&stored) as Arc<dyn Store>;
    let accounts = CassandraAccounts::open(&cassandra).await.context("accounts can't be read from Cassandra")?;
    if part != Part::Worker {
        make_data_dir(&config.data_dir)?;
        let file = keys_file(config);
        agreement::agree(&cassandra, &SigningKeys::open(&file)?, &file).await?;
    }

    let role = match part {
        Part::Whole | Part::Gateway => "serve",
        Part::Worker => "worker",
    };
    let publishing = Link::open(&config.rabbitmq, &format!("{role}, publishing")).await?;
    let consuming = Link::open(&config.rabbitmq, &format!("{role}, consuming")).await?;
    let topology = Arc::new(Topology::new(&Values::configured(config))?);
    let queue = open_queue(config, &topology, publishing.clone(), consuming.clone()).await?;
    let dead_letters = Arc::new(queue.clone());
    let queue: Arc<dyn TaskQueue> = Arc::new(queue);

    let client = connect_elasticsearch(&config.elasticsearch)?;
    let (timeout, total_cap) = (config.search.timeout, config.search.total_cap as u64);
    let alias = config.elasticsearch.alias.clone();
    let index = Arc::new(ElasticsearchIndex::new(client, alias, Arc::clone(&store), timeout, total_cap));
    let mut background = JoinSet::new();
    let gateway = gateway_name();
    let search: Arc<dyn Search> = match part {
        Part::Worker => Arc::clone(&index) as Arc<dyn Search>,
        Part::Whole | Part::Gateway => {
            let search = QueuedSearch::new(Arc::clone(&queue), gateway.clone(), timeout);
            let answers = receive_answers(consuming.clone(), Arc::clone(&topology), gateway.clone(), search.waiting());
            background.spawn(answers);
            Arc::new(search)
        }
    };
    Ok(Backends {
        queue,
        store,
        scan: Arc::clone(&stored) as Arc<dyn Scan>,
        purge: stored,
        dead_letters,
        search,
        index: index as Arc<dyn SearchIndex>,
        answers: Some(Arc::new(RabbitAnswers::new(publishing.clone()))),
        accounts: Arc::new(accounts),
        events: Box::new(Exchange { publishing, consuming, topology, gateway }),
        background,
    })
}

/// The queue, only to look at.
pub(super) async fn look_at_queue(config: &Config) -> anyhow::Result<Look> {
    let topology = Topology::new(&Values::configured(config))?;
    let link = Link::open(&config.rabbitmq, "looking").await?;
    let place = format!("RabbitMQ at {}", link.address());
    let queue = open_queue(config, &topology, link.clone(), link.clone()).await?;
    let bus = Arc::new(RabbitBus::new(link));
    Ok(Look { queue: Arc::new(queue.clone()), dead_letters: Arc::new(queue), bus, place })
}

async fn open_queue(
    config: &Config,
    topology: &Topology,
    publishing: Link,
    consuming: Link,
) -> anyhow::Result<RabbitQueue> {
    let (management, publish_window) = (Management::new(&config.rabbitmq)?, config.rabbitmq.publish_window);
    let options = RabbitQueueOptions { publishing, consuming, management, publish_window };
    Ok(RabbitQueue::open(topology, options).await?)
}

/// Different for each start: a queue of the one before may still be there.
fn gateway_name() -> String {
    let start = &uuid::Uuid::new_v4().simple().to_string()[..8];
    let readable: String = process().chars().filter(|c| c.is_ascii_alphanumeric()).take(60).collect();
    format!("{readable}-{start}")
}

struct Exchange {
    publishing: Link,
    consuming: Link,
    topology: Arc<Topology>,
    gateway: String,
}

#[async_trait]
impl Events for Exchange {
    /// A gateway in this process is told like all others.
    fn bus(&self, _gateway: Option<Arc<dyn EventSink>>) -> Arc<dyn EventBus> {
        Arc::new(RabbitBus::new(self.publishing.clone()))
    }

    fn between_gateways(&self) -> Option<Arc<dyn EventBus>> {
        Some(self.bus(None))
    }

    async fn source(&self) -> anyhow::Result<Box<dyn EventSource>> {
        let (consuming, topology) = (self.consuming.clone(), Arc::clone(&self.topology));
        Ok(Box::new(RabbitEvents::open(consuming, topology, &self.gateway).await?))
    }
}
