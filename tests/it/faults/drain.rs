//! SIGTERM under load: the end comes in time, and nothing accepted is lost by it.

use std::time::{Duration, Instant};

use super::{bounded, builder, settle_and_judge};
use crate::client::{Client, Encoding};
use crate::http::Http;
use crate::raw::RawSocket;
use crate::rng::Rng;
use crate::swarm::Swarm;

/// Beyond the deadline: what the process needs to close its files.
const GRACE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drains_under_load() {
    bounded(180, async {
        let seed = Rng::seed_from_env();
        println!("AULA_TEST_SEED={seed}");
        let mut server = builder().env("AULA_SERVER_DRAIN_TIMEOUT", "10s").start();
        let mut swarm = Swarm::start(&server, seed).await;
        let mut took = Vec::new();
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            swarm.still_well().await;
            let begun = Instant::now();
            server.sigterm();
            let status = tokio::task::block_in_place(|| server.wait(Duration::from_secs(10) + GRACE));
            took.push(begun.elapsed());
            let log = server.stderr();
            assert_eq!(status.and_then(|status| status.code()), Some(0), "{status:?}\n{log}");
            // A copy of the one file is then a copy of everything.
            assert!(!server.data_dir().join("aula.db-wal").exists(), "the database was not closed");
            assert!(log.contains("drained") && !log.contains("drain_timeout is over"), "{log}");
            swarm.server_is_down();
            tokio::task::block_in_place(|| server.restart());
            swarm.server_is_at(server.addr());
        }
        println!("drains under load took {took:?}");
        settle_and_judge(swarm, &mut server, "drains", seed).await;
    })
    .await;
}

/// Connections that answer nothing, half a request, and one that never read: the deadline holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_holds_against_those_who_do_not_go() {
    bounded(60, async {
        let deadline = Duration::from_secs(2);
        let mut server = builder().env("AULA_SERVER_DRAIN_TIMEOUT", "2s").start();
        let token = Http::new(server.addr()).new_user("ada").await;
        let ada = Client::connect(server.addr(), "ada", &token, Encoding::Json).await;
        let _silent = tokio::task::block_in_place(|| RawSocket::connect(server.addr(), &[]));
        let mut half = std::net::TcpStream::connect(server.addr()).unwrap();
        std::io::Write::write_all(&mut half, b"POST /api/v1/sessions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
            .unwrap();
        let _idle = std::net::TcpStream::connect(server.addr()).unwrap();
        let begun = Instant::now();
        server.sigterm();
        let reconnect = ada.wait_for(|frame| frame["op"] == "reconnect").await;
        assert!(reconnect["after_ms"].as_u64().is_some(), "{reconnect}");
        assert_eq!(ada.wait_closed().await.code, Some(1012));
        // A balancer is told, or finds nobody.
        let ready = tokio::net::TcpStream::connect(server.addr()).await;
        assert!(ready.is_err(), "a draining server accepts connections");
        let status = tokio::task::block_in_place(|| server.wait(deadline + GRACE));
        println!("gone after {:?}", begun.elapsed());
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{status:?}\n{}", server.stderr());
    })
    .await;
}
