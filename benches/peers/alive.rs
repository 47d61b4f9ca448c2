//! Whether everybody who is connected is reached: one message to each room; and, of aula, what the oracle says of it.

use std::time::Duration;

use aula::message::ChannelId;
use aula::oracle::{Record, Recorder};

use crate::cast::Cast;
use crate::crowd::{Crowd, Load};
use crate::durable::load::proof::{self, Judged, Reader};
use crate::peer::Peer;
use crate::server::Server;

/// Messages a second, at most.
const RATE: u64 = 500;

/// Its first member writes one message to each room. Panics unless every member gets it.
pub fn reach_all(cast: &Cast, crowd: &Crowd) -> u64 {
    let senders: Vec<u32> = cast.rooms.iter().map(|room| room.members.start).collect();
    let length = Duration::from_secs((senders.len() as u64).div_ceil(RATE));
    // Whole numbers, so that it is one message each.
    let rate = senders.len() as u64 / length.as_secs();
    assert_eq!(rate * length.as_secs(), senders.len() as u64, "rooms, and messages to them");
    let outcome = crowd.send(&Load { senders, rate, length });
    assert_eq!(outcome.received, outcome.expected, "messages received, and expected");
    outcome.received
}

/// The oracle's verdict on what aula's clients saw, with two members' histories of each room. Panics if a promise was
/// broken; none for another server, of which nobody knows what it promises.
pub fn judge(server: &Server, cast: &Cast, seen: Vec<Record>, deliveries: u64) -> Option<Judged> {
    if server.peer != Peer::Aula {
        return None;
    }
    let mut recorder = Recorder::new(usize::MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for room in &cast.rooms {
            let channel = ChannelId(room.name.parse().unwrap());
            for member in [room.members.start, room.members.end - 1] {
                crate::stop_if_interrupted();
                let person = &cast.people[member as usize];
                let reader = Reader { address: server.address, name: &person.name, token: &person.credential };
                proof::read(&http, &reader, channel, &mut recorder).await;
            }
        }
    });
    let histories = recorder.into_record().unwrap();
    Some(proof::prove(&Record::merge(seen.into_iter().chain([histories])), deliveries))
}
