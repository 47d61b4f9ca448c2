//! What a connection costs that nobody speaks on: memory, and the CPU time of what keeps it alive.

use std::sync::Arc;
use std::time::Duration;

use super::{note_judged, row};
use crate::alive::{judge, reach_all};
use crate::cast::Cast;
use crate::crowd::Crowd;
use crate::figures::Figures;
use crate::pause;
use crate::peer::Peer;
use crate::server::Server;

const ROOMS: usize = 1_500;
const MEMBERS: u32 = 10;
const FEW: u32 = 1_000;
const WATCHED: u32 = 10_000;
const WATCH: Duration = Duration::from_secs(30);
/// What a connection needed only to begin is given back meanwhile.
const REST: Duration = Duration::from_secs(4);

pub fn run(servers: &[Peer], figures: &mut Figures) {
    for &peer in servers {
        let mut cast = Cast::new(ROOMS, MEMBERS);
        let server = Server::start(peer, &mut cast);
        let cast = Arc::new(cast);
        pause(REST);
        let at_rest = server.resident_kib();

        let crowd = Crowd::new(&server, &cast);
        crowd.connect(0..FEW);
        pause(REST);
        let with_few = server.resident_kib();
        crowd.connect(FEW..WATCHED);
        pause(REST);

        let before = server.settled_cpu();
        pause(WATCH);
        let used = server.cpu() - before;
        crowd.connect(WATCHED..cast.len());
        pause(REST);
        let with_all = server.resident_kib();
        crowd.check();
        // Each of them is alive: it gets what is said in its room.
        if peer == Peer::Aula {
            crowd.witness();
        }
        let deliveries = reach_all(&cast, &crowd);
        let judged = judge(&server, &cast, vec![crowd.witnessed()], deliveries);
        crowd.check();

        let more = f64::from(cast.len() - FEW);
        figures.note(
            &row("idle_kib_per_connection", "idle memory, KiB a connection", 1),
            peer,
            &[(with_all - with_few) / more],
        );
        figures.note(&row("resident_at_rest_mib", "resident at rest, MiB", 1), peer, &[at_rest / 1024.0]);
        let micros = used.as_secs_f64() * 1e6 / WATCH.as_secs_f64() / f64::from(WATCHED);
        let label = "CPU of 10,000 idle connections, µs a second each";
        figures.note(&row("idle_cpu_us_per_second", label, 2), peer, &[micros]);
        if let Some(judged) = judged {
            note_judged(figures, "idle", "15,000 connections that were idle", judged);
        }
    }
}
