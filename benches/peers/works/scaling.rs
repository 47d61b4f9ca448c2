//! Whether a delivery costs the same among many connections as among few.

use std::time::Duration;

use super::delivery::Stage;
use super::{ratio, row};
use crate::cast::Cast;
use crate::crowd::Load;
use crate::figures::Figures;
use crate::peer::Peer;

const ROUND: Duration = Duration::from_secs(6);
const MEMBERS: u32 = 1_000;
const ROOMS: u32 = 15;
const RATE: u64 = 100;

/// One room in turn among 1,000 connections and among 15,000, the others idle; and as many messages over all rooms.
pub fn run(servers: &[Peer], rounds: u32, figures: &mut Figures) {
    for &peer in servers {
        let mut few = Stage::set(peer, Cast::new(1, MEMBERS));
        let mut many = Stage::set(peer, Cast::new(ROOMS as usize, MEMBERS));
        let one_room = Load { senders: vec![0], rate: RATE, length: ROUND };
        let all_rooms = Load { senders: (0..ROOMS).map(|room| room * MEMBERS).collect(), ..one_room.clone() };
        few.play(&one_room);
        many.play(&all_rooms);
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
        }
        few.check();
        many.check();
    }
}
