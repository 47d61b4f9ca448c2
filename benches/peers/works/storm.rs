//! Clients that connect, say who they are and join a room, as fast as they can. The bare server asks nobody who it is:
//! it is no measure here.

use std::sync::Arc;

use aula::oracle::Record;

use super::{note_judged, row};
use crate::alive::{judge, reach_all};
use crate::cast::Cast;
use crate::crowd::Crowd;
use crate::figures::Figures;
use crate::peer::Peer;
use crate::server::Server;

const ROOMS: usize = 200;
const MEMBERS: u32 = 10;

pub fn run(servers: &[Peer], rounds: u32, figures: &mut Figures) {
    let stages = servers.iter().map(|&peer| {
        let mut cast = Cast::new(ROOMS, MEMBERS);
        let server = Server::start(peer, &mut cast);
        (server, Arc::new(cast), Vec::new(), 0)
    });
    let mut stages: Vec<(Server, Arc<Cast>, Vec<Record>, u64)> = stages.collect();
    // The first one warms up: there the oracle sees the welcomes as well.
    for round in 0..=rounds {
        for (server, cast, seen, deliveries) in &mut stages {
            let before = server.settled_cpu();
            let crowd = Crowd::new(server, cast);
            let is_witnessed = server.peer == Peer::Aula;
            if is_witnessed && round == 0 {
                crowd.witness();
            }
            let took = crowd.connect(0..cast.len());
            let used = server.settled_cpu() - before;
            crowd.check();
            if is_witnessed && round > 0 {
                crowd.witness();
            }
            // After the storm everybody is there.
            *deliveries += reach_all(cast, &crowd);
            if is_witnessed {
                seen.push(crowd.witnessed());
            }
            crowd.check();
            drop(crowd);
            if round > 0 {
                let cpu =
                    row("storm_cpu_us_per_connection", "2,000 connect, authenticate and join: server CPU, µs each", 0);
                figures.note(&cpu, server.peer, &[used.as_secs_f64() * 1e6 / f64::from(cast.len())]);
                let seconds = row("storm_seconds", "… seconds until all have joined", 2);
                figures.note(&seconds, server.peer, &[took.as_secs_f64()]);
            }
        }
    }
    for (server, cast, seen, deliveries) in stages {
        if let Some(judged) = judge(&server, &cast, seen, deliveries) {
            note_judged(figures, "storm", "… and a message to each room behind each storm", judged);
        }
    }
}
