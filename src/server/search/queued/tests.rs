//! Questions and answers through a real broker, with gateways and workers that break.

mod answered;
mod broken;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::message::Message;
use crate::server::events::EmbeddedBus;
use crate::server::queue::{RabbitQueue, RabbitQueueOptions};
use crate::server::rabbitmq::Link;
use crate::server::rabbitmq::testing::{Proxy, Vhost};
use crate::server::rabbitmq::topology::Topology;
use crate::server::search::{RabbitAnswers, SearchIndex, receive_answers};
use crate::server::sqlite::testing::TempDatabase;
use crate::server::store::SqliteStore;
use crate::server::worker::{self, Stages, WorkerOptions};

const PATIENCE: Duration = Duration::from_secs(30);
/// For questions that must be answered, however busy the machine is.
const LONG: Duration = Duration::from_secs(30);
/// For questions that nobody answers.
const SHORT: Duration = Duration::from_millis(200);

const LANE: Lane = Lane { family: Family::SearchTasks, shard: 0 };

/// An index that answers with the question, and is told when.
struct Echo {
    name: &'static str,
    /// Questions about `held` that were begun with.
    held: watch::Sender<usize>,
    /// Whether those are answered.
    releases: watch::Sender<bool>,
}

#[async_trait]
impl Search for Echo {
    async fn search(&self, searcher: &Username, query: Query) -> Outcome {
        match query.text.as_str() {
            "held" => {
                self.held.send_modify(|held| *held += 1);
                self.releases.subscribe().wait_for(|releases| *releases).await.unwrap();
            }
            "not mine" => return Err(SearchError::NotAMember),
            _ => {}
        }
        let said = format!("{searcher} {} {}", query.text, self.name);
        Ok(SearchPage { hits: Vec::new(), total: query.limit as u64, cursor: Some(said), facets: None })
    }
}

#[async_trait]
impl SearchIndex for Echo {
    async fn count(&self, _entries: crate::server::queue::IndexRange) -> Result<u64, SearchError> {
        panic!("nobody counts here")
    }

    async fn index(&self, _messages: Vec<Message>) -> Result<(), SearchError> {
        Ok(())
    }
}

/// A deployment of nothing but searches.
struct Deployment {
    vhost: Vhost,
    topology: Arc<Topology>,
    timeout: Duration,
}

struct Gateway {
    search: QueuedSearch,
    proxy: Proxy,
    _receiving: AbortOnDropHandle<()>,
}

struct Worker {
    index: Arc<Echo>,
    proxy: Proxy,
    running: AbortOnDropHandle<()>,
    _database: TempDatabase,
}

impl Deployment {
    async fn new(timeout: Duration) -> Self {
        let (vhost, topology) = Vhost::migrated(|values| values.search_timeout = timeout).await;
        Self { vhost, topology, timeout }
    }

    async fn queue(&self, proxy: &Proxy) -> Arc<dyn TaskQueue> {
        let options = RabbitQueueOptions {
            publishing: self.vhost.link_through(proxy).await,
            consuming: self.vhost.link_through(proxy).await,
            management: None,
            publish_window: 10_000,
        };
        Arc::new(RabbitQueue::open(&self.topology, options).await.unwrap())
    }

    async fn gateway(&self, name: &str) -> Gateway {
        let proxy = self.vhost.proxy().await;
        let search = QueuedSearch::new(self.queue(&proxy).await, name.to_owned(), self.timeout);
        let link: Link = self.vhost.link_through(&proxy).await;
        let receiving = receive_answers(link, Arc::clone(&self.topology), name.to_owned(), search.waiting());
        Gateway { search, proxy, _receiving: AbortOnDropHandle::new(tokio::spawn(receiving)) }
    }

    async fn worker(&self, name: &'static str) -> Worker {
        let (proxy, database) = (self.vhost.proxy().await, TempDatabase::new());
        let index = Arc::new(Echo { name, held: watch::Sender::new(0), releases: watch::Sender::new(false) });
        let stages = Stages {
            queue: self.queue(&proxy).await,
            store: Arc::new(SqliteStore::new(database.database(), PATIENCE)),
            index: Arc::clone(&index) as Arc<dyn SearchIndex>,
            bus: Arc::new(EmbeddedBus::new(database.database(), None)),
            answers: Some(Arc::new(RabbitAnswers::new(self.vhost.link_through(&proxy).await))),
        };
        let options = WorkerOptions {
            prefetch: 1000,
            max_members: 10,
            max_receipt_members: 10,
            dedup_window: 10,
            cached_channels: 10,
        };
        let running = tokio::spawn(worker::run(LANE, stages, options, CancellationToken::new()));
        Worker { index, proxy, running: AbortOnDropHandle::new(running), _database: database }
    }
}

impl Gateway {
    async fn ask(&self, text: &str) -> Outcome {
        let (text, limit) = (text.to_owned(), 7);
        let query =
            Query { text, channel: None, from: None, before: None, after: None, limit, cursor: None, facets: false };
        self.search.search(&Username::new("ada").unwrap(), query).await
    }

    /// Asks until there is an answer: queues may still be declared, connections be made. Returns who gave it.
    async fn is_answered(&self) -> String {
        let answered = async {
            loop {
                match timeout(Duration::from_secs(1), self.ask("ready")).await {
                    Ok(Ok(page)) => return page.cursor.unwrap(),
                    Ok(Err(SearchError::Unavailable(_))) => tokio::time::sleep(Duration::from_millis(10)).await,
                    Ok(Err(error)) => panic!("{error}"),
                    Err(_elapsed) => {}
                }
            }
        };
        let said = timeout(PATIENCE, answered).await.unwrap();
        said.rsplit_once(' ').unwrap().1.to_owned()
    }

    fn waiting(&self) -> usize {
        self.search.waiting.asked.lock().len()
    }
}

impl Worker {
    /// Until it has begun with so many that it holds.
    async fn holds(&self, count: usize) {
        timeout(PATIENCE, self.index.held.subscribe().wait_for(|held| *held >= count)).await.unwrap().unwrap();
    }

    /// As by `kill -9`.
    async fn dies(self) {
        self.proxy.accept(false);
        self.proxy.cut();
        self.running.abort();
    }
}

fn is_unavailable(outcome: &Outcome) -> bool {
    matches!(outcome, Err(SearchError::Unavailable(_)))
}
