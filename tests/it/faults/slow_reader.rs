//! A client that stops reading while its room goes on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aula::oracle;
use serde_json::json;

use super::{bounded, builder, metric, rss_kib};
use crate::client::{Client, Encoding, is_status, recorder};
use crate::http::Http;
use crate::raw::{RawFrame, RawSocket};
use crate::server::Server;

/// Together far more than any buffer between the server and its reader holds.
const BODY: usize = 12_000;
const SLOW_READERS: usize = 4;
const OUTBOX: &str = "256KiB";

/// A socket that has authenticated and been welcomed, and will be read no more until the test says so.
fn stalled(addr: SocketAddr, token: &str) -> RawSocket {
    let mut socket = RawSocket::connect(addr, &[("Sec-WebSocket-Protocol", "aula.v1.json")]);
    let auth = json!({"op": "auth", "token": token}).to_string();
    let frame = RawFrame { fin: true, opcode: 1, masked: true, declared: None, payload: auth.as_bytes() };
    socket.write(&frame).unwrap();
    let (_, welcome) = socket.read().expect("a welcome");
    assert!(String::from_utf8_lossy(&welcome).contains("\"op\":\"welcome\""));
    socket
}

/// Everything to the end: the seqs of the messages, and the close frame.
fn read_to_end(mut socket: RawSocket) -> (Vec<u64>, Option<(u16, String)>) {
    let mut seqs = Vec::new();
    while let Some((opcode, payload)) = socket.read() {
        match opcode {
            8 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                return (seqs, Some((code, String::from_utf8_lossy(&payload[2..]).into_owned())));
            }
            1 => {
                let frame: serde_json::Value = serde_json::from_slice(&payload).unwrap();
                seqs.extend(frame["seq"].as_u64().filter(|_| frame["op"] == "message"));
            }
            _ => {}
        }
    }
    (seqs, None)
}

struct Room {
    server: Server,
    ada: Client,
    bob: Client,
    slow_token: String,
    channel: String,
}

async fn room(server: Server) -> Room {
    let http = Http::new(server.addr());
    let mut tokens = Vec::new();
    for name in ["ada", "bob", "slow"] {
        tokens.push(http.new_user(name).await);
    }
    let ada = Client::connect(server.addr(), "ada", &tokens[0], Encoding::Json).await;
    let bob = Client::connect(server.addr(), "bob", &tokens[1], Encoding::Msgpack).await;
    let channel = ada.create_group("busy", &["bob", "slow"]).await;
    bob.wait_for(|frame| frame["op"] == "channel_created").await;
    Room { server, ada, bob, slow_token: tokens.remove(2), channel }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_is_sent_away_and_resumes() {
    bounded(120, async {
        let server = builder().env("AULA_SESSION_OUTBOX_BYTES", OUTBOX).start();
        let Room { server, ada, bob, slow_token, channel } = room(server).await;
        let mut stalled: Vec<RawSocket> =
            (0..SLOW_READERS).map(|_| tokio::task::block_in_place(|| stalled(server.addr(), &slow_token))).collect();
        ada.send_persisted(&channel, "the first").await;
        let at_rest = rss_kib(server.pid());
        let mut most = at_rest;
        let mut slowest = Duration::ZERO;
        let mut closes = Vec::new();
        for number in 0..2_000 {
            let sent = Instant::now();
            let body = format!("message {number} {}", "x".repeat(BODY));
            let mark = bob.mark();
            let (client_id, reply) = ada.send(&channel, &body).await;
            assert_eq!(reply["status"], "accepted", "{reply}");
            bob.wait_for_after(mark, |frame| frame["client_id"] == client_id).await;
            slowest = slowest.max(sent.elapsed());
            most = most.max(rss_kib(server.pid()));
            if number % 10 == 9 && metric(&server, "aula_slow_consumers_total").await >= SLOW_READERS as f64 {
                println!("{SLOW_READERS} readers are sent away after {number} messages of {BODY} bytes");
                // They wake up: what they get is whole, and ends with the reason.
                closes = tokio::task::block_in_place(|| stalled.drain(..).map(read_to_end).collect());
                break;
            }
        }
        println!("slowest delivery to the others {slowest:?}; RSS {at_rest} KiB, at most {most} KiB");
        assert_eq!(closes.len(), SLOW_READERS, "nobody was sent away");
        for (seqs, close) in &closes {
            let (code, reason) = close.as_ref().expect("a close frame");
            assert_eq!(*code, 1013, "{reason}");
            assert!(reason.contains("slow consumer"), "{reason}");
            assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "holes: {seqs:?}");
        }
        assert!(bob.close_reason().is_none() && ada.close_reason().is_none());
        assert!(slowest < Duration::from_secs(2), "others waited {slowest:?} for a delivery");
        // A reader may hold its outbox, as much again under way, and little else.
        let allowed = at_rest + 24 * 1024 + SLOW_READERS as u64 * 4 * 1024;
        assert!(most < allowed, "RSS rose from {at_rest} to {most} KiB");

        // Back again: everything after what it had, and only once.
        let last = ada.send_persisted(&channel, "the last").await;
        let had = closes[0].0.last().copied().unwrap_or(0);
        let slow = Client::connect(server.addr(), "slow", &slow_token, Encoding::Json).await;
        let reply = slow.resume(&[(&channel, had)]).await;
        assert_eq!(reply["channels"][&channel]["complete"], true, "{reply}");
        slow.wait_for(|frame| frame["seq"] == last).await;
        let mut recorder = recorder();
        for client in [&ada, &bob, &slow] {
            client.record_history(&channel, &mut recorder).await;
            client.record(&mut recorder);
        }
        let verdict = oracle::check(&recorder.into_record().unwrap());
        assert!(verdict.is_clean(), "{verdict:#?}");
    })
    .await;
}

/// A page of long messages is larger than the outbox; asking for it must not look like reading slowly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_replies_are_no_slowness() {
    bounded(60, async {
        let server = builder().env("AULA_SESSION_OUTBOX_BYTES", "64KiB").start();
        let Room { server, ada, slow_token, channel, .. } = room(server).await;
        let body = "z".repeat(BODY);
        let mut last = 0;
        for _ in 0..110 {
            last = ada.send_persisted(&channel, &body).await;
        }
        for encoding in Encoding::BOTH {
            let slow = Client::connect(server.addr(), "slow", &slow_token, encoding).await;
            assert_eq!(slow.history_all(&channel).await.len() as u64, last);
            for after in [0, last - 1, last - 10, last - 70] {
                let mark = slow.mark();
                let reply = slow.resume(&[(&channel, after)]).await;
                assert_eq!(reply["channels"][&channel]["complete"], true, "{reply}");
                slow.wait_for_after(mark, |frame| frame["op"] == "message" && frame["seq"] == last).await;
            }
            let found = slow.request(json!({"op": "search", "query": "busy OR z*", "limit": 50})).await;
            assert_ne!(found["op"], "error", "{found}");
            assert!(slow.close_reason().is_none());
        }
    })
    .await;
}

/// Not enough traffic to fill the outbox: the write's own limit ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_does_not_end_ends_the_connection() {
    bounded(60, async {
        let limits = builder().env("AULA_SESSION_WRITE_TIMEOUT", "500ms").env("AULA_SESSION_OUTBOX_BYTES", "64MiB");
        let server = limits.env("AULA_SESSION_OUTBOX_FRAMES", 1_000_000).start();
        let Room { server, ada, slow_token, channel, .. } = room(server).await;
        let stalled = tokio::task::block_in_place(|| stalled(server.addr(), &slow_token));
        let body = "y".repeat(BODY);
        let mut number = 0;
        while metric(&server, "aula_slow_consumers_total").await < 1.0 {
            assert!(number < 2_000, "{number} messages, and it still counts as connected");
            for _ in 0..20 {
                ada.send(&channel, &body).await;
                number += 1;
            }
        }
        let (_, close) = tokio::task::block_in_place(|| read_to_end(stalled));
        let (code, reason) = close.expect("a close frame");
        assert_eq!(code, 1013, "{reason}");
        ada.send_persisted(&channel, "and on it goes").await;
        ada.wait_for(|frame| is_status(frame, "persisted")).await;
    })
    .await;
}
