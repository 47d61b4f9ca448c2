//! Messages to rooms at a fixed rate: the server's CPU time for a delivery, and when it comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aula::ops::simulate::resources::descriptors;

use super::{note_judged, ratio, row};
use crate::cast::Cast;
use crate::crowd::{Crowd, Load, Outcome};
use crate::figures::Figures;
use crate::judged::judge;
use crate::pause;
use crate::peer::Peer;
use crate::server::Server;

const ROUND: Duration = Duration::from_secs(8);
const WARM_UP: Duration = Duration::from_secs(2);
/// In its first minute an owner of aula's asks the store about every send: most servers are older than that.
const FIRST_MINUTE: Duration = Duration::from_secs(62);
/// What this process has open beside its clients' sockets, at most.
const OTHER_FILES: u64 = 100;
/// Of one room: one connection may only have so many sends on their way.
const SENDERS: usize = 4;

/// A server with its clients, all connected.
pub struct Stage {
    pub server: Server,
    crowd: Crowd,
    sent: u64,
}

impl Stage {
    pub fn set(peer: Peer, mut cast: Cast) -> Self {
        let server = Server::start(peer, &mut cast);
        let cast = Arc::new(cast);
        let crowd = Crowd::new(&server, &cast);
        crowd.connect(0..cast.len());
        Self { server, crowd, sent: 0 }
    }

    /// The server's CPU time for each delivery of this load, in microseconds, and what came of it.
    pub fn play(&mut self, load: &Load) -> (f64, Outcome) {
        let before = self.server.settled_cpu();
        let outcome = self.crowd.send(load);
        let used = self.server.settled_cpu() - before;
        self.sent += outcome.sent;
        if self.server.peer == Peer::Aula {
            assert_eq!(outcome.received, outcome.expected, "messages received, and expected");
        }
        (used.as_secs_f64() * 1e6 / outcome.received.max(1) as f64, outcome)
    }

    /// Nobody lost its connection, and everything that aula was sent is in its store.
    pub fn check(&self) {
        self.crowd.check();
        if let Some(stored) = self.server.stored_messages() {
            assert_eq!(stored, self.sent, "messages stored, and sent");
        }
    }
}

pub fn fanout(servers: &[Peer], rounds: u32, figures: &mut Figures) {
    let loads = [100, 300].map(|rate| {
        let load = Load { senders: (0..SENDERS as u32).collect(), rate, length: ROUND };
        (format!("fanout_{rate}"), format!("1 room × 1,000 at {rate} msg/s"), load)
    });
    alternate(servers, rounds, WARM_UP, || Cast::new(1, 1_000), &loads, figures);
}

pub fn rooms(servers: &[Peer], rounds: u32, figures: &mut Figures) {
    let cast = || Cast::new(500, 10);
    let senders = cast().rooms.iter().map(|room| room.members.start).collect();
    let load = Load { senders, rate: 3_000, length: ROUND };
    let loads = [("rooms".to_owned(), "500 rooms × 10 at 3,000 msg/s".to_owned(), load)];
    alternate(servers, rounds, FIRST_MINUTE, cast, &loads, figures);
}

fn alternate(
    servers: &[Peer],
    rounds: u32,
    age: Duration,
    cast: impl Fn() -> Cast,
    loads: &[(String, String, Load)],
    figures: &mut Figures,
) {
    let began = Instant::now();
    let servers = connectable(servers, cast().len());
    let mut stages: Vec<Stage> = servers.iter().map(|&peer| Stage::set(peer, cast())).collect();
    for stage in &mut stages {
        stage.play(&Load { length: WARM_UP, ..loads[0].2.clone() });
    }
    if servers.contains(&Peer::Aula) {
        pause(age.saturating_sub(began.elapsed()));
    }
    for (key, label, load) in loads {
        for _ in 0..rounds {
            for stage in &mut stages {
                let (micros, outcome) = stage.play(load);
                note(figures, key, label, stage.server.peer, micros, &outcome);
            }
        }
    }
    for stage in &stages {
        stage.check();
    }
    drop(stages);
    if servers.contains(&Peer::Aula) {
        for (key, label, load) in loads {
            note_judged(figures, key, label, judge(&cast(), load.rate, load.length));
        }
    }
}

/// The servers take turns, so the clients of all of them are connected at a time: as far as this process may have so
/// many sockets.
fn connectable(servers: &[Peer], clients: u32) -> &[Peer] {
    let limit = descriptors();
    let most = (limit.saturating_sub(OTHER_FILES) / u64::from(clients)) as usize;
    let (first, left_out) = servers.split_at(servers.len().min(most));
    for peer in left_out {
        eprintln!(
            "{} is left out here: {clients} clients of each server are too many for {limit} open files; name fewer with \
             --servers, or raise `ulimit -Hn`",
            peer.name()
        );
    }
    first
}

fn note(figures: &mut Figures, key: &str, label: &str, peer: Peer, micros: f64, outcome: &Outcome) {
    let cpu = ratio(&format!("{key}_cpu_us_per_delivery"), &format!("{label}: server CPU, µs a delivery"), 2);
    figures.note(&cpu, peer, &[micros]);
    let latency = row(&format!("{key}_latency_ms"), "… send to receive, ms: p50 / p99 / p99.9", 1);
    let millis = [0.5, 0.99, 0.999].map(|quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1000.0);
    figures.note(&latency, peer, &millis);
    let reach = row(&format!("{key}_reach"), "… reach: received ÷ expected", 3);
    figures.note(&reach, peer, &[outcome.received as f64 / outcome.expected.max(1) as f64]);
}
