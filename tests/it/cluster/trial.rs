//! A cluster under load: something happens to it, and in the end the oracle is asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aula::oracle::Violation;
use rustix::process::Signal;

use super::Cluster;
use super::namespace::Namespace;
use crate::rng::Rng;
use crate::swarm::{Counts, Pace, Swarm};

/// How long a process may take that was told to end.
const END_LIMIT: Duration = Duration::from_secs(20);

pub struct Trial {
    // Before the cluster: the users go first.
    pub swarm: Swarm,
    pub cluster: Cluster,
    pub rng: Rng,
    seed: u64,
}

impl Trial {
    /// Users on each of two gateways, and two workers.
    pub async fn start(namespace: Namespace, common: &[(&str, &str)]) -> Self {
        let cluster = tokio::task::block_in_place(|| Cluster::on(Arc::new(namespace), common));
        Self::on(cluster).await
    }

    pub async fn on(cluster: Cluster) -> Self {
        let places = cluster.addrs();
        Self::at(cluster, &places, Pace::STEADY).await
    }

    /// The users go to these addresses, which need not be the gateways' own.
    pub async fn at(cluster: Cluster, places: &[SocketAddr], pace: Pace) -> Self {
        let seed = Rng::seed_from_env();
        println!("AULA_TEST_SEED={seed}");
        let swarm = Swarm::start_at(places, seed, pace).await;
        Self { swarm, cluster, rng: Rng::new(seed), seed }
    }

    /// Lets the load run.
    pub async fn go_on(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
        self.swarm.still_well().await;
    }

    pub async fn go_on_ms(&mut self, from: u64, to: u64) {
        let time = Duration::from_millis(self.rng.between(from, to));
        self.go_on(time).await;
    }

    /// Calls something that blocks.
    pub fn block<T>(&mut self, call: impl FnOnce(&mut Cluster) -> T) -> T {
        tokio::task::block_in_place(|| call(&mut self.cluster))
    }

    /// SIGKILL of a worker; another one takes its place, and comes last.
    pub fn replace_worker(&mut self, index: usize) {
        self.block(|cluster| {
            cluster.workers.remove(index).kill9();
            cluster.add_worker();
        });
    }

    /// SIGKILL of a gateway, which comes back at another address.
    pub fn restart_gateway(&mut self, index: usize) {
        self.block(|cluster| cluster.gateways[index].kill9());
        self.away_while(index, |cluster| cluster.gateways[index].restart());
    }

    /// SIGTERM of a gateway, which comes back at another address.
    pub fn roll_gateway(&mut self, index: usize) {
        self.away_while(index, |cluster| {
            let gateway = &mut cluster.gateways[index];
            gateway.sigterm();
            let status = gateway.wait(END_LIMIT).unwrap_or_else(|| panic!("it still runs:\n{}", gateway.stderr()));
            assert_eq!(status.code(), Some(0), "{}", gateway.stderr());
            gateway.restart();
        });
    }

    /// Nobody new goes to this gateway meanwhile.
    fn away_while(&mut self, index: usize, call: impl FnOnce(&mut Cluster)) {
        let mut places = self.cluster.addrs();
        places.remove(index);
        self.swarm.servers_are_at(&places);
        self.block(call);
        self.swarm.servers_are_at(&self.cluster.addrs());
    }

    /// A worker stands still for a while.
    pub async fn pause_worker(&mut self, index: usize, time: Duration) {
        self.cluster.workers[index].signal(Signal::STOP);
        self.go_on(time).await;
        self.cluster.workers[index].signal(Signal::CONT);
    }

    /// A gateway stands still for a while.
    pub async fn pause_gateway(&mut self, index: usize, time: Duration) {
        self.cluster.gateways[index].signal(Signal::STOP);
        self.go_on(time).await;
        self.cluster.gateways[index].signal(Signal::CONT);
    }

    /// Lets everything settle, and asks the oracle.
    pub async fn end(self, what: &str) -> Counts {
        self.end_but_for(what, |_| false).await
    }

    /// As [`end`](Self::end), but for what the promises leave open.
    pub async fn end_but_for(self, what: &str, is_left_open: impl Fn(&str) -> bool) -> Counts {
        let Self { swarm, cluster, seed, .. } = self;
        swarm.settle();
        let settling = Instant::now();
        let (counts, verdict) = swarm.judge_at(&cluster.addrs(), || cluster.logs()).await;
        println!("{what}: {counts:?}, settled and judged in {:?}", settling.elapsed());
        if std::env::var_os("AULA_TEST_LOGS").is_some() {
            eprintln!("{}", cluster.logs());
        }
        let found = verdict.violations.iter().map(Violation::to_string);
        let found: Vec<String> = found.filter(|found| !is_left_open(found)).collect();
        assert!(found.is_empty(), "{what}, AULA_TEST_SEED={seed}: {found:#?}\n{}", cluster.logs());
        assert!(counts.messages > 20 && counts.persisted > 10, "{what}: too little happened: {counts:?}");
        counts
    }
}

/// Fails a test that hangs.
pub async fn bounded<T>(seconds: u64, test: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(Duration::from_secs(seconds), test).await;
    ended.unwrap_or_else(|_| panic!("the test is not over after {seconds} s"))
}
