//! P1–P9 through SIGKILLs at random moments under load.

use std::time::Duration;

use crate::rng::Rng;
use crate::swarm::Swarm;

/// `AULA_TEST_KILLS` can only raise it.
const KILLS: u64 = 200;
/// The server lives this long after it is ready, in milliseconds.
const LIFE: (u64, u64) = (5, 150);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_accepted_is_lost_through_kill_9() {
    let asked = std::env::var("AULA_TEST_KILLS").map_or(0, |kills| kills.parse().expect("AULA_TEST_KILLS is a number"));
    let kills = KILLS.max(asked);
    let seed = Rng::seed_from_env();
    println!("AULA_TEST_SEED={seed}");
    let mut rng = Rng::new(seed);
    let mut server = Swarm::server();
    let mut swarm = Swarm::start(&server, seed).await;
    for kill in 1..=kills {
        tokio::time::sleep(Duration::from_millis(rng.between(LIFE.0, LIFE.1))).await;
        swarm.still_well().await;
        if kill == kills {
            // The last kill ends the load: after it, all that is open is repeated and must settle.
            swarm.settle();
        }
        tokio::task::block_in_place(|| server.kill9());
        swarm.server_is_down();
        tokio::task::block_in_place(|| server.restart());
        swarm.server_is_at(server.addr());
    }
    let (counts, verdict) = swarm.judge(&server).await;
    println!("{kills} kills, {counts:?}");
    let found: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "AULA_TEST_SEED={seed}: {found:#?}");
    assert!(counts.messages >= kills && counts.retries >= kills / 10, "too little happened: {counts:?}");
}
