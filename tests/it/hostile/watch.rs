//! What the attacks cost the server, and whether others notice.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, Encoding};
use crate::people::People;
use crate::server::Builder;

/// Sockets that are closed are gone within this time.
const SETTLE: Duration = Duration::from_secs(5);
/// What the allocator may keep, and what caches may fill.
const GROWTH_KIB: u64 = 24 * 1024;

pub struct Watch {
    pub people: People,
    bystander: Client,
    other: Client,
    channel: String,
    files: usize,
    resident_kib: u64,
}

impl Watch {
    /// Two well-behaved users on a server, and what it uses so far.
    pub async fn on(builder: Builder) -> Self {
        let people = People::on(builder.env("AULA_STORE_READERS", 1), &["ada", "bob", "mallory"]).await;
        let bystander = people.client("ada", Encoding::Json).await;
        let other = people.client("bob", Encoding::Msgpack).await;
        let channel = bystander.create_direct("bob").await;
        bystander.send_persisted(&channel, "all is well").await;
        // The connections of the sign-ups are closed with their client.
        let mut people = people;
        people.http = crate::http::Http::new(people.server.addr());
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (files, resident_kib) = (open_files(&people), resident_kib(&people));
        Self { people, bystander, other, channel, files, resident_kib }
    }

    /// Others are served while something goes on.
    pub async fn others_are_served(&self) {
        let begun = Instant::now();
        let body = format!("at {begun:?}");
        self.bystander.send_persisted(&self.channel, &body).await;
        self.other.wait_for(|frame| frame["op"] == "message" && frame["body"] == body).await;
        let pong = self.bystander.request(json!({"op": "ping"})).await;
        assert_eq!(pong["op"], "pong");
        assert!(begun.elapsed() < Duration::from_secs(3), "others waited {:?}", begun.elapsed());
    }

    /// Nothing is left of it.
    pub async fn nothing_is_left(&self) {
        self.others_are_served().await;
        let deadline = Instant::now() + SETTLE;
        loop {
            let files = open_files(&self.people);
            // The store's reader may have opened its files meanwhile.
            if files <= self.files + 2 {
                break;
            }
            assert!(Instant::now() < deadline, "{} files are open, {} were", files, self.files);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let now = resident_kib(&self.people);
        assert!(now <= self.resident_kib + GROWTH_KIB, "{now} KiB are resident, {} were", self.resident_kib);
        let errors = self.people.server.stderr();
        assert!(!errors.contains("panicked"), "{errors}");
    }
}

fn open_files(people: &People) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", people.server.pid())).unwrap().count()
}

fn resident_kib(people: &People) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", people.server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().split(' ').next().unwrap().parse().unwrap()
}
