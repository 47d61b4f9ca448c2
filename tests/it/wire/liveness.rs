//! Pings, pongs and silence.

use std::time::{Duration, Instant};

use serde_json::json;

use super::three;
use crate::client::Encoding;
use crate::raw::{RawFrame, RawSocket};
use crate::server::Server;

const PING: u8 = 9;
const PONG: u8 = 10;

fn frame(opcode: u8, payload: &[u8]) -> RawFrame<'_> {
    RawFrame { fin: true, opcode, masked: true, declared: None, payload }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_op_ping_is_answered() {
    let people = three(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let ada = people.one("ada", encoding).await;
        ada.post(json!({"op": "ping"})).await.unwrap();
        ada.wait_for(|frame| frame["op"] == "pong").await;
        for reference in [json!(0), json!(u64::MAX)] {
            let request = json!({"op": "ping", "ref": reference});
            ada.send_raw(encoding.encode(&request)).await.unwrap();
            ada.wait_for(|frame| *frame == json!({"op": "pong", "ref": reference})).await;
        }
        // No ref, none in the answer.
        ada.send_raw(encoding.encode(&json!({"op": "ping"}))).await.unwrap();
        ada.wait_for(|frame| *frame == json!({"op": "pong"})).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_pinged_and_then_closed() {
    let builder = Server::builder().env("AULA_SESSION_PING_INTERVAL", "200ms").env("AULA_SESSION_IDLE_TIMEOUT", "1s");
    let people = three(builder).await;
    let bearer = format!("Bearer {}", people.token("ada-j"));
    let addr = people.server.addr();
    let (silent, pinged) = (bearer.clone(), bearer);
    let silent = tokio::task::spawn_blocking(move || {
        let mut socket = RawSocket::connect(addr, &[("authorization", &silent)]);
        let begun = Instant::now();
        let mut pings = 0;
        loop {
            match socket.read().expect("a close frame") {
                (PING, _) => pings += 1,
                (8, payload) => {
                    assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), 1008);
                    return (pings, begun.elapsed());
                }
                _ => {}
            }
        }
    });
    let answering = tokio::task::spawn_blocking(move || {
        let mut socket = RawSocket::connect(addr, &[("authorization", &pinged)]);
        let begun = Instant::now();
        socket.write(&frame(PING, b"are you there")).unwrap();
        let mut echoed = false;
        while begun.elapsed() < Duration::from_millis(2500) {
            match socket.read().expect("it stays open") {
                (PING, payload) => socket.write(&frame(PONG, &payload)).unwrap(),
                (PONG, payload) => echoed = payload == b"are you there",
                (8, payload) => panic!("closed: {payload:?}"),
                _ => {}
            }
        }
        assert!(echoed, "a ping is answered with its payload");
    });
    let (pings, after) = silent.await.unwrap();
    assert!(pings >= 2, "{pings} pings");
    assert!((900..2500).contains(&after.as_millis()), "{after:?}");
    answering.await.unwrap();
}
