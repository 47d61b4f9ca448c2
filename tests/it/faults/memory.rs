//! How much memory a server takes when nothing happens. Printed for people; the bounds only catch what is broken.

use std::time::Duration;

use super::{bounded, builder, rss_kib};
use crate::client::{Client, Encoding};
use crate::http::Http;

/// The aim is 20 MiB in a release build; a debug build's is what its code alone takes more.
const AT_REST_KIB: u64 = if cfg!(debug_assertions) { 64 << 10 } else { 24 << 10 };
const AFTER_A_BURST_KIB: u64 = if cfg!(debug_assertions) { 160 << 10 } else { 96 << 10 };
const USERS: usize = 24;
const MESSAGES: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_rest() {
    bounded(120, async {
        let server = builder().env("AULA_AUTH_LOGINS_PER_MINUTE", 1000).start();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let after_start = rss_kib(server.pid());
        let http = Http::new(server.addr());
        let mut clients = Vec::new();
        for index in 0..USERS {
            let name = format!("user{index}");
            let token = http.new_user(&name).await;
            clients.push(Client::connect(server.addr(), &name, &token, Encoding::BOTH[index % 2]).await);
        }
        let after_log_ins = rss_kib(server.pid());
        let others: Vec<String> = (1..USERS).map(|index| format!("user{index}")).collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let channel = clients[0].create_group("all", &others).await;
        for number in 0..MESSAGES {
            clients[0].send_persisted(&channel, &format!("message {number} {}", "x".repeat(500))).await;
        }
        let after_sends = rss_kib(server.pid());
        for client in &clients {
            client.close().await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let at_the_end = rss_kib(server.pid());
        println!(
            "RSS in KiB: {after_start} after start, {after_log_ins} after {USERS} sign-ups and log-ins, {after_sends} \
             after {MESSAGES} messages to all of them, {at_the_end} when they have gone"
        );
        assert!(after_start < AT_REST_KIB, "{after_start} KiB after start");
        assert!(at_the_end < AFTER_A_BURST_KIB, "{at_the_end} KiB at rest after a burst");
    })
    .await;
}
