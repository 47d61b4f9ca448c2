//! Every close code of the protocol page.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{named, three};
use crate::client::{CloseReason, Encoding};
use crate::protocol_page::{PAGE, rows};
use crate::raw::{RawFrame, RawSocket};
use crate::server::Server;

fn code(close: &CloseReason) -> u16 {
    assert!(!close.reason.is_empty() && close.reason.len() <= 123, "{close:?}");
    close.code.unwrap_or_else(|| panic!("no code: {close:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_has_its_cause() {
    let builder = Server::builder()
        .env("AULA_SESSION_OUTBOX_FRAMES", 16)
        .env("AULA_SESSION_OUTBOX_BYTES", "64KiB")
        .env("AULA_SESSION_REQUESTS_PER_SECOND", 100_000)
        .env("AULA_SESSION_REQUEST_BURST", 100_000);
    let people = three(builder).await;
    for encoding in Encoding::BOTH {
        let mut seen = Vec::new();
        let ada = named("ada", encoding);
        let sockets = [
            // Reserved bits, against RFC 6455 §5.2.
            (1002, None),
            (
                1003,
                Some(match encoding {
                    Encoding::Json => Message::binary(b"\x81\xa2op\xa4ping".to_vec()),
                    Encoding::Msgpack => Message::text("{\"op\":\"ping\"}"),
                }),
            ),
            (
                1007,
                Some(match encoding {
                    Encoding::Json => Message::text("{\"op\":"),
                    Encoding::Msgpack => Message::binary(b"\x81\xa2op".to_vec()),
                }),
            ),
            (
                1009,
                Some(match encoding {
                    Encoding::Json => Message::text("x".repeat(65537)),
                    Encoding::Msgpack => Message::binary(vec![0xc0; 65537]),
                }),
            ),
        ];
        for (wanted, message) in sockets {
            let close = match message {
                Some(message) => {
                    let client = people.client(&ada, encoding).await;
                    let _ = client.send_raw(message).await;
                    client.wait_closed().await
                }
                None => reserved_bits(&people, encoding).await,
            };
            assert_eq!(code(&close), wanted, "{close:?}");
            seen.push(wanted);
        }
        let stranger = people.stranger(encoding).await;
        stranger.post(json!({"op": "ping"})).await.unwrap();
        seen.push(code(&stranger.wait_closed().await));
        seen.push(slow_reader(&people, encoding).await);
        // 1012 comes with the drain.
        seen.push(1012);
        seen.sort_unstable();
        let listed: Vec<u16> = rows(PAGE, "## Close codes").iter().map(|row| row[0].parse().unwrap()).collect();
        assert_eq!(seen, listed);
    }
    let ada = people.one("ada", Encoding::Json).await;
    people.server.sigterm();
    assert_eq!(code(&ada.wait_closed().await), 1012);
}

async fn reserved_bits(people: &crate::people::People, encoding: Encoding) -> CloseReason {
    let addr = people.server.addr();
    tokio::task::spawn_blocking(move || {
        let mut socket = RawSocket::connect(addr, &[("sec-websocket-protocol", encoding.subprotocol())]);
        socket.write_bytes(&[0xf1, 0x80, 0, 0, 0, 0]).unwrap();
        let (code, reason) = socket.read_close().expect("a close frame");
        CloseReason { code: Some(code), reason, error: None }
    })
    .await
    .unwrap()
}

/// Asks for much and reads nothing, until more waits than may.
async fn slow_reader(people: &crate::people::People, encoding: Encoding) -> u16 {
    let writer = people.one("bob", encoding).await;
    let ada = named("ada", encoding);
    let channel = writer.create_direct(&ada).await;
    for _ in 0..10 {
        writer.send_persisted(&channel, &"x".repeat(16 * 1024)).await;
    }
    let (addr, bearer) = (people.server.addr(), format!("Bearer {}", people.token(&ada)));
    let history = encoding.encode(&json!({"op": "history", "channel": channel, "limit": 100})).into_data().to_vec();
    tokio::task::spawn_blocking(move || {
        let headers = [("authorization", &*bearer), ("sec-websocket-protocol", encoding.subprotocol())];
        let mut socket = RawSocket::connect(addr, &headers);
        let opcode = if encoding == Encoding::Json { 1 } else { 2 };
        let ask = RawFrame { fin: true, opcode, masked: true, declared: None, payload: &history };
        for _ in 0..400 {
            if socket.write(&ask).is_err() {
                break;
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
        socket.read_close().expect("a close frame").0
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_is_answered() {
    let people = three(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let ada = people.one("ada", encoding).await;
        ada.send_raw(Message::Close(None)).await.unwrap();
        let close = ada.wait_closed().await;
        assert_eq!(close.error, None, "the closing handshake was completed");
        // Its place is free at once.
        people.one("ada", encoding).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_with_a_reason_of_our_own_making() {
    let people = three(Server::builder()).await;
    for encoding in Encoding::BOTH {
        let ada = people.one("ada", encoding).await;
        let message = match encoding {
            Encoding::Json => Message::text("é".repeat(1000)),
            Encoding::Msgpack => Message::binary([&b"\x81\xa2op\xa4ping"[..], &[0xc0; 1000]].concat()),
        };
        ada.send_raw(message).await.unwrap();
        let close = ada.wait_closed().await;
        assert_eq!(code(&close), 1007, "{close:?}");
    }
}
