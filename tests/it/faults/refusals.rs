//! What a server refuses before it serves: a second one, a schema from the future, a port that somebody has.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use super::{END_LIMIT, bounded, builder, differences, settle_and_judge, snapshot};
use crate::rng::Rng;
use crate::server::{Builder, Server, StartFailure};
use crate::swarm::Swarm;

fn refused(on: &Builder) -> StartFailure {
    let failure = on.try_start().err().expect("it is refused");
    assert_eq!(failure.status.and_then(|status| status.code()), Some(1), "{failure}");
    failure
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_is_refused_and_harms_nobody() {
    bounded(90, async {
        let seed = Rng::seed_from_env();
        let mut server = Swarm::server();
        let mut swarm = Swarm::start(&server, seed).await;
        for attempt in 0..4 {
            let second = server.builder_ref().clone();
            let second = if attempt % 2 == 0 { second } else { second.arg("--no-worker") };
            let failure = tokio::task::block_in_place(|| refused(&second));
            let pid = format!("process {}", server.pid());
            assert!(failure.stderr.contains(&pid), "it names {pid}: {failure}");
            assert!(failure.stderr.contains(&*server.data_dir().to_string_lossy()), "{failure}");
            swarm.still_well().await;
        }
        settle_and_judge(swarm, &mut server, "second servers", seed).await;
    })
    .await;
}

/// Many at once on a new directory: one wins, the others say so, whoever comes first.
#[test]
fn of_servers_that_start_together_one_wins() {
    let on = builder();
    for _ in 0..3 {
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..4).map(|_| scope.spawn(|| on.try_start())).collect();
            starting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let running: Vec<&Server> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(running.len(), 1, "{:?}", outcomes.iter().filter_map(|o| o.as_ref().err()).collect::<Vec<_>>());
        for failure in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(failure.status.and_then(|status| status.code()), Some(1), "{failure}");
            assert!(failure.stderr.contains("another server (process "), "{failure}");
        }
    }
}

#[test]
fn a_schema_from_the_future_is_refused_and_left_as_it_is() {
    for kill in [false, true] {
        let on = builder();
        let mut server = on.start();
        if !kill {
            server.sigterm();
            assert!(server.wait(END_LIMIT).is_some_and(|status| status.success()));
        }
        let database = rusqlite::Connection::open(on.dir().join("aula.db")).unwrap();
        database.execute("INSERT INTO schema_migrations VALUES (9999, 'later', '', 0, 0)", []).unwrap();
        if kill {
            // Both die: the row is in the log that they leave behind.
            server.kill9();
            database.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        }
        drop(database);
        let before = snapshot(on.dir());
        let failure = refused(&on);
        assert!(failure.stderr.contains("9999") && failure.stderr.contains("newer aula"), "{failure}");
        let (status, _, err) = on.aula(&["worker", "--queue", "db_tasks"]);
        assert!(status.code() == Some(1) && err.contains("9999"), "{err}");
        for words in [&["migrate", "up"][..], &["migrate", "plan"], &["user", "list"], &["token", "mint", "ada"]] {
            let (status, _, err) = on.aula(words);
            assert!(status.code() == Some(1) && err.contains("9999"), "{words:?}: {status} {err}");
        }
        let changed = differences(&before, &snapshot(on.dir()));
        assert!(changed.is_empty(), "killed: {kill}; changed: {changed:?}");
    }
}

#[test]
fn a_port_that_somebody_has_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let on = builder();
    let (status, _, err) = on.aula(&["serve", "--listen", &addr]);
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.contains(&addr) && err.contains("in use") && err.contains("hint:"), "{err}");
    assert!(snapshot(on.dir()).is_empty(), "nothing was begun: {:?}", snapshot(on.dir()).keys());
    drop(taken);
    for address in ["no-such-host.invalid:80", "127.0.0.1", "127.0.0.1:99999"] {
        let (status, _, err) = on.aula(&["serve", "--listen", address]);
        assert!(matches!(status.code(), Some(1 | 2)) && err.contains(address), "{address}: {status} {err}");
    }
}

/// A kill at any moment of a start harms nothing, and SIGTERM ends it well.
#[test]
fn a_start_that_is_interrupted_does_no_harm() {
    let on = builder();
    for step in 0..24_u64 {
        let mut starting = on.spawn();
        std::thread::sleep(Duration::from_millis(step * 3));
        let signal = if step % 3 == 0 { rustix::process::Signal::KILL } else { rustix::process::Signal::TERM };
        starting.signal(signal);
        let status = starting.wait(END_LIMIT).expect("it ends");
        // Before the program can listen for signals, SIGTERM does what it does to everybody.
        let fine = status.code() == Some(0) || status.signal() == Some(signal.as_raw());
        assert!(fine, "after {} ms: {status} {}", step * 3, starting.stderr());
    }
    let mut server = on.start();
    server.sigterm();
    assert!(server.wait(END_LIMIT).is_some_and(|status| status.success()));
    let left: Vec<_> = std::fs::read_dir(on.dir().join("run")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "the dead leave their files behind: {left:?}");
}
