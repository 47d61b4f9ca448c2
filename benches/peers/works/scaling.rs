//! Whether a delivery costs the same among many connections as among few.

use std::collections::BTreeMap;
use std::time::Duration;

use super::delivery::Stage;
use super::{note_judged, ratio, row};
use crate::cast::Cast;
use crate::crowd::Load;
use crate::durable::load::median;
use crate::figures::Figures;
use crate::judged::judge;
use crate::peer::Peer;

const ROUND: Duration = Duration::from_secs(6);
const MEMBERS: u32 = 1_000;
const ROOMS: u32 = 15;
const RATE: u64 = 100;
/// What a delivery of aula's may cost among all connections, as a multiple of what it costs among those of its room.
const MOST_GROWTH: f64 = 1.2;

/// One room in turn among 1,000 connections and among 15,000, the others idle; and as many messages over all rooms.
/// Panics if aula's cost grows with connections that have nothing to do with it.
pub fn run(servers: &[Peer], rounds: u32, figures: &mut Figures) {
    let mut growths = BTreeMap::new();
    for &peer in servers {
        let mut few = Stage::set(peer, Cast::new(1, MEMBERS));
        let mut many = Stage::set(peer, Cast::new(ROOMS as usize, MEMBERS));
        let one_room = Load { senders: vec![0], rate: RATE, length: ROUND };
        let all_rooms = Load { senders: (0..ROOMS).map(|room| room * MEMBERS).collect(), ..one_room.clone() };
        few.play(&one_room);
        many.play(&all_rooms);
        let mut growth = Vec::new();
        for _ in 0..rounds {
            let among_few = few.play(&one_room).0;
            let among_many = many.play(&one_room).0;
            let in_all = many.play(&all_rooms).0;
            let label = "1 room × 1,000 among 1,000 connections: server CPU, µs a delivery";
            figures.note(&ratio("scaling_1000_cpu_us_per_delivery", label, 2), peer, &[among_few]);
            let label = "… among 15,000, the others idle: times that";
            figures.note(&row("scaling_15000_one_room", label, 2), peer, &[among_many / among_few]);
            let label = "… over 15 rooms × 1,000: times that";
            figures.note(&row("scaling_15000_all_rooms", label, 2), peer, &[in_all / among_few]);
            growth.push(among_many / among_few);
        }
        few.check();
        many.check();
        growths.insert(peer, median(growth));
    }
    if let Some(bare) = growths.get(&Peer::Bare) {
        for (peer, growth) in &growths {
            let label = "… among 15,000, the others idle: its growth as a multiple of the bare server's";
            figures.note(&row("scaling_15000_one_room_to_bare", label, 2), *peer, &[growth / bare]);
        }
    }
    let Some(growth) = growths.get(&Peer::Aula) else { return };
    let judged = judge(&Cast::new(ROOMS as usize, MEMBERS), RATE, ROUND);
    note_judged(figures, "scaling", "15 rooms × 1,000", judged);
    assert!(
        *growth <= MOST_GROWTH,
        "a delivery among {} connections costs {growth:.2} times what it costs among {MEMBERS}, and may cost {MOST_GROWTH}",
        ROOMS * MEMBERS
    );
}
