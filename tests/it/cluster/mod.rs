//! The distributed deployment, on real servers: gateways and workers as processes of their own, and what breaks
//! between them.

mod balancer;
mod behind;
mod commands;
mod dead_letters;
mod kills;
mod migrate;
pub mod namespace;
mod network;
mod outages;
mod poison;
mod promises;
mod proxy;
mod secured;
pub mod servers;
mod storm;
pub mod trial;
pub mod verify;

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::server::{Builder, Server, Worker};
use namespace::Namespace;
use servers::Servers;

const WORKER_LIMIT: Duration = Duration::from_secs(20);
/// What a worker of these deployments works on.
pub const ALL_QUEUES: [&str; 3] = ["db_tasks", "index_tasks", "search_tasks"];

/// Gateways and workers on one namespace. Dropping it ends the processes, then removes the namespace.
pub struct Cluster {
    pub gateways: Vec<Server>,
    pub workers: Vec<Worker>,
    /// What every process is started with.
    common: Vec<(String, String)>,
    pub namespace: Arc<Namespace>,
}

impl Cluster {
    /// Two gateways and two workers on the servers that all tests share.
    pub fn start() -> Self {
        Self::on(Arc::new(Namespace::new(&Servers::shared())), &[])
    }

    /// Two gateways and two workers, with these variables for all of them.
    pub fn on(namespace: Arc<Namespace>, common: &[(&str, &str)]) -> Self {
        Self::of(namespace, 2, 2, common)
    }

    pub fn of(namespace: Arc<Namespace>, gateways: usize, workers: usize, common: &[(&str, &str)]) -> Self {
        let common = common.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut cluster = Self { gateways: Vec::new(), workers: Vec::new(), common, namespace };
        for _ in 0..gateways {
            cluster.gateways.push(cluster.gateway().start());
        }
        for _ in 0..workers {
            cluster.add_worker();
        }
        cluster
    }

    /// How a process of this deployment is started, on a data directory of its own.
    pub fn builder(&self) -> Builder {
        let builder = Builder::on_servers(&self.namespace).env("AULA_SESSION_REQUESTS_PER_SECOND", 100_000);
        self.common.iter().fold(builder, |builder, (name, value)| builder.env(name, value))
    }

    pub fn gateway(&self) -> Builder {
        self.builder().arg("--no-worker")
    }

    /// One more worker, for all queues; at work, or standing by, when this returns.
    pub fn add_worker(&mut self) {
        let worker = self.worker(&[]);
        self.workers.push(worker);
    }

    pub fn worker(&self, more: &[&str]) -> Worker {
        let mut arguments = vec!["worker"];
        arguments.extend(ALL_QUEUES.iter().flat_map(|queue| ["--queue", queue]));
        arguments.extend(more);
        let mut worker = Worker::spawn(&self.builder(), &arguments);
        worker.wait_for_log("working", WORKER_LIMIT);
        worker
    }

    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.gateways.iter().map(Server::addr).collect()
    }

    /// What all processes wrote to stderr, its end of each.
    pub fn logs(&self) -> String {
        let gateways = self.gateways.iter().map(Server::stderr);
        let logs = gateways.chain(self.workers.iter().map(Worker::stderr));
        logs.map(|log| format!("--- one process:\n{}\n", tail(&log))).collect()
    }
}

/// The last lines: the first cause is usually not so far back.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Runs to its end on a thread and a runtime of its own: from anywhere, destructors included.
fn blocking<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let ended = std::thread::scope(|scope| {
        let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
        scope.spawn(run).join()
    });
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

thread_local! {
    static ON_SERVERS: Cell<bool> = const { Cell::new(false) };
}

/// A namespace for a server that the test of this thread builds; none if the test is about the embedded deployment.
pub fn namespace_for_this_test() -> Option<Arc<Namespace>> {
    ON_SERVERS.get().then(|| Arc::new(Namespace::new(&Servers::shared())))
}

/// Runs a test of the embedded deployment on the distributed one: every server it builds is a gateway, with workers, on
/// a namespace of its own.
pub fn on_servers(test: fn()) {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            ON_SERVERS.set(false);
        }
    }
    ON_SERVERS.set(true);
    let _reset = Reset;
    test();
}

/// The tests of a module that run on the distributed deployment as well.
#[macro_export]
macro_rules! on_servers {
    ($($test:ident),+ $(,)?) => {
        mod on_servers {
            $(#[test]
            fn $test() {
                $crate::cluster::on_servers(super::$test);
            })+
        }
    };
}
