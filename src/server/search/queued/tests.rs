//! Questions and answers through a real broker, with gateways and workers that break.

use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join_all;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::message::{ChannelId, Message};
use crate::server::events::EmbeddedBus;
use crate::server::queue::{IndexTask, RabbitQueue, RabbitQueueOptions, enqueue_confirmed};
use crate::server::rabbitmq::Link;
use crate::server::rabbitmq::testing::{Proxy, Vhost};
use crate::server::rabbitmq::topology::{Topology, declare_gateway_queue};
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
            always_look_up: false,
            takeover: PATIENCE,
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

#[tokio::test]
async fn answers_reach_the_gateway_that_asked() {
    let deployment = Deployment::new(LONG).await;
    let _workers = (deployment.worker("one").await, deployment.worker("other").await);
    let gateways = [deployment.gateway("left").await, deployment.gateway("right").await];
    for gateway in &gateways {
        gateway.is_answered().await;
    }
    // The same numbers on both sides: each gateway counts its own.
    let ask = async |side: usize, number: usize| {
        let text = format!("{side}/{number}");
        let page = gateways[side].ask(&text).await.unwrap();
        let said = page.cursor.unwrap();
        assert!(page.total == 7 && said.starts_with(&format!("ada {text} ")), "{said}");
    };
    join_all((0..120).map(|number| ask(number % 2, number / 2))).await;
    assert_eq!(gateways[0].ask("not mine").await, Err(SearchError::NotAMember));
    assert!(gateways.iter().all(|gateway| gateway.waiting() == 0));
}

#[tokio::test]
async fn without_a_worker_search_is_unavailable_in_time() {
    let deployment = Deployment::new(SHORT).await;
    let gateway = deployment.gateway("left").await;
    let outcomes = timeout(PATIENCE, join_all((0..3).map(|_| gateway.ask("anybody?")))).await.unwrap();
    assert!(outcomes.iter().all(is_unavailable), "{outcomes:?}");
    assert_eq!(gateway.waiting(), 0);
    // Nobody waits for those any more: they are not kept for whoever comes.
    let worker = deployment.worker("one").await;
    assert_eq!(gateway.is_answered().await, worker.index.name);
}

#[tokio::test]
async fn without_a_broker_search_is_unavailable_and_comes_back() {
    let deployment = Deployment::new(LONG).await;
    let _worker = deployment.worker("one").await;
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
    gateway.proxy.accept(false);
    gateway.proxy.cut();
    let refused = async { while !is_unavailable(&gateway.ask("anybody?").await) {} };
    // Long before a worker would have had to answer.
    timeout(LONG / 2, refused).await.unwrap();
    gateway.proxy.accept(true);
    gateway.is_answered().await;
}

#[tokio::test]
async fn a_question_that_died_with_its_worker_is_answered_by_another() {
    let deployment = Deployment::new(LONG).await;
    let first = deployment.worker("first").await;
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
    let asked = async {
        let answer = gateway.ask("held").await;
        answer.unwrap().cursor.unwrap()
    };
    let taken_over = async {
        first.holds(1).await;
        let second = deployment.worker("second").await;
        second.index.releases.send_replace(true);
        first.dies().await;
        second
    };
    let (said, _second) = timeout(PATIENCE, async { tokio::join!(asked, taken_over) }).await.unwrap();
    assert_eq!(said, "ada held second");
}

#[tokio::test]
async fn a_question_that_died_with_the_only_worker_times_out() {
    let deployment = Deployment::new(Duration::from_secs(2)).await;
    let worker = deployment.worker("first").await;
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
    let dies = async {
        worker.holds(1).await;
        worker.dies().await;
    };
    let began = Instant::now();
    let (outcome, ()) = timeout(PATIENCE, async { tokio::join!(gateway.ask("held"), dies) }).await.unwrap();
    assert!(is_unavailable(&outcome), "{outcome:?}");
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(gateway.waiting(), 0);
}

#[tokio::test]
async fn what_is_no_question_stops_no_worker() {
    let deployment = Deployment::new(LONG).await;
    let _worker = deployment.worker("one").await;
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
    let other = Task::Index(IndexTask { channel: ChannelId::new_group(), first: 1, last: 2 }).encode().unwrap();
    for garbage in [Bytes::new(), vec![1].into(), vec![0xff; 1000].into(), vec![9, 1, 2].into(), other] {
        enqueue_confirmed(&*gateway.search.queue, LANE, garbage).await.unwrap();
    }
    gateway.is_answered().await;
}

#[tokio::test]
async fn no_more_questions_wait_than_may() {
    let deployment = Deployment::new(LONG).await;
    let gateway = deployment.gateway("left").await;
    let waiting = gateway.search.waiting();
    let mut asked: Vec<_> = (0..MAX_WAITING).map(|_| waiting.ask().unwrap()).collect();
    assert!(waiting.ask().is_none());
    // At once.
    assert!(is_unavailable(&timeout(LONG / 2, gateway.ask("one more")).await.unwrap()));
    // Whoever goes makes room.
    asked.pop();
    asked.push(waiting.ask().unwrap());
    assert!(waiting.ask().is_none());
    drop(asked);
    assert_eq!(gateway.waiting(), 0);
}

#[tokio::test]
async fn an_answer_after_the_time_is_counted_and_dropped() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    // Of this thread, on which all of this test runs.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let deployment = Deployment::new(SHORT).await;
    let worker = deployment.worker("one").await;
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
    while !timeout(PATIENCE, gateway.ask("held")).await.is_ok_and(|outcome| {
        assert!(is_unavailable(&outcome), "{outcome:?}");
        *worker.index.held.borrow() > 0
    }) {}
    let count = || {
        let text = counted.render();
        let value = text.lines().find_map(|line| line.strip_prefix("aula_search_answers_late_total "));
        value.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    let before = count();
    worker.index.releases.send_replace(true);
    let late = async {
        while count() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, late).await.unwrap();
    gateway.is_answered().await;
}

/// Another worker is free: it must get what the first one could only keep waiting.
#[tokio::test]
async fn a_worker_takes_no_more_questions_than_it_works_on() {
    let deployment = Deployment::new(LONG).await;
    let first = deployment.worker("first").await;
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
    let held = join_all((0..40).map(|_| gateway.ask("held")));
    let then = async {
        first.holds(32).await;
        let second = deployment.worker("second").await;
        second.holds(8).await;
        for worker in [&first, &second] {
            worker.index.releases.send_replace(true);
        }
    };
    let (outcomes, ()) = timeout(PATIENCE, async { tokio::join!(held, then) }).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

/// The broker has not noticed yet that the gateway's last connection is gone, and keeps its queue.
#[tokio::test]
async fn what_the_broker_keeps_of_a_lost_connection_is_not_in_the_way() {
    let deployment = Deployment::new(LONG).await;
    let _worker = deployment.worker("one").await;
    let lost = deployment.vhost.link().await;
    let channel = lost.channel().await.unwrap();
    let queue = deployment.topology.gateway_queue("search_results", "left").unwrap();
    declare_gateway_queue(&channel, &queue).await.unwrap();
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
}
