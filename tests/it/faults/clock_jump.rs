//! A clock that jumps an hour, back or forward, while people chat (libfaketime, from a file that the test rewrites).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{bounded, builder, settle_and_judge};
use crate::client::{Client, Encoding};
use crate::http::Http;
use crate::rng::Rng;
use crate::server::Builder;
use crate::swarm::Swarm;

const HOUR: i64 = 3600;
/// The offset is read from the file at each question for the time; so the jump is over at once.
const SETTLED: Duration = Duration::from_millis(100);

/// The library for programs with threads, wherever Debian's multiarch folders have it.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let found = folders
        .chain([PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib")])
        .map(|folder| folder.join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists());
    found.expect("libfaketime is missing: apt-get install faketime")
}

struct Clock(PathBuf);

impl Clock {
    /// For a process whose wall clock the test moves; its monotonic clocks stay true.
    fn of(on: Builder, folder: &Path) -> (Self, Builder) {
        let clock = Self(folder.join("offset"));
        clock.set(0);
        let on = on
            .env("LD_PRELOAD", library().display())
            .env("FAKETIME_TIMESTAMP_FILE", clock.0.display())
            .env("FAKETIME_NO_CACHE", 1)
            .env("DONT_FAKE_MONOTONIC", 1)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", 1);
        (clock, on)
    }

    fn set(&self, seconds: i64) {
        // Renamed into place: half a file would be another time.
        let next = self.0.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(next, &self.0).unwrap();
    }
}

/// How far a message's time is from the true one, in hours.
fn hours_off(entry: &Value) -> i64 {
    let at: jiff::Timestamp = entry["at"].as_str().unwrap().parse().unwrap();
    (at.as_second() - jiff::Timestamp::now().as_second() + HOUR / 2).div_euclid(HOUR)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chat_goes_on_through_jumps() {
    bounded(180, async {
        let seed = Rng::seed_from_env();
        println!("AULA_TEST_SEED={seed}");
        let folder = tempfile::tempdir().unwrap();
        // Pings, idle limits and leases short enough that a jump would show in them.
        let on = builder()
            .env("AULA_AUTH_ACCESS_TOKEN_TTL", "12h")
            .env("AULA_SESSION_PING_INTERVAL", "300ms")
            .env("AULA_SESSION_IDLE_TIMEOUT", "2s")
            .env("AULA_QUEUE_LEASE", "1s");
        let (clock, on) = Clock::of(on, folder.path());
        let mut server = on.start();
        let http = Http::new(server.addr());
        let token = http.new_user("probe").await;
        http.new_user("peer").await;
        let probe = Client::connect(server.addr(), "probe", &token, Encoding::Json).await;
        let channel = probe.create_direct("peer").await;
        let mut swarm = Swarm::start(&server, seed).await;
        for (number, hours) in [0, -1, 0, 1, 0, -1].into_iter().enumerate() {
            clock.set(hours * HOUR);
            tokio::time::sleep(SETTLED).await;
            let seq = probe.send_persisted(&channel, &format!("jump {number}")).await;
            assert_eq!(seq, number as u64 + 2, "the order doesn't depend on the time");
            let entry = probe.history_after(&channel, seq - 1).await.remove(0);
            assert_eq!(hours_off(&entry), hours, "the server's clock has not jumped: {entry}");
            // Longer than the idle limit and the lease.
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            swarm.still_well().await;
            assert!(probe.close_reason().is_none(), "{:?}", probe.close_reason());
            // A token from before the jump, on a new connection; and a new one.
            Client::connect(server.addr(), "probe", &token, Encoding::Msgpack).await.close().await;
            let fresh = http.log_in("probe", crate::http::PASSWORD).await;
            Client::connect(server.addr(), "probe", &fresh.access, Encoding::Json).await.close().await;
            let refresh = serde_json::json!({"refresh_token": fresh.refresh});
            let (status, reply) = http.post("/api/v1/sessions/refresh", None, &refresh).await;
            assert_eq!(status, 200, "{reply}");
        }
        let log = server.stderr();
        assert!(!log.contains("lease") && !log.contains("panicked"), "{log}");
        assert_eq!(http.get("/readyz", None).await.0, 200);
        probe.close().await;
        settle_and_judge(swarm, &mut server, "jumps", seed).await;
    })
    .await;
}

/// The passage of time is what a token's life is measured by, also when the clock is then set right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_s_changes_count_whatever_the_clock_says() {
    bounded(60, async {
        let folder = tempfile::tempdir().unwrap();
        let (clock, on) = Clock::of(builder(), folder.path());
        let server = on.start();
        let http = Http::new(server.addr());
        let token = http.new_user("ada").await;
        let ada = Client::connect(server.addr(), "ada", &token, Encoding::Json).await;
        clock.set(-HOUR);
        tokio::time::sleep(SETTLED).await;
        // Ends sessions that began, by this clock, in the future.
        let (status, out, err) = server.aula(&["--output", "json", "user", "passwd", "ada", "--generate"]);
        assert!(status.success(), "{err}");
        assert_eq!(ada.wait_closed().await.code, Some(1008));
        let changed: Value = serde_json::from_str(&out).unwrap();
        let fresh = http.log_in("ada", changed["password"].as_str().unwrap()).await;
        clock.set(-2 * HOUR);
        tokio::time::sleep(SETTLED).await;
        let ada = Client::connect(server.addr(), "ada", &fresh.access, Encoding::Json).await;
        // Answered: from here on its life is measured.
        ada.request(serde_json::json!({"op": "ping"})).await;
        clock.set(HOUR);
        tokio::time::sleep(SETTLED).await;
        assert!(ada.close_reason().is_none(), "{:?}", ada.close_reason());
        let (status, out, _) = server.aula(&["token", "check", &fresh.access]);
        assert!(status.code() == Some(1) && out.contains("expired"), "{out}");
    })
    .await;
}
