//! What is bounded, and how a client is told.

use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{in_channel, named, refused, three};
use crate::client::{Auth, Client, ConnectError, Encoding, is_status, send_request};
use crate::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_has_so_many_bytes() {
    let builder = Server::builder().env("AULA_SESSION_MAX_FRAME_BYTES", 4096).env("AULA_CHANNELS_MAX_BODY_BYTES", 1000);
    let people = three(builder).await;
    for encoding in Encoding::BOTH {
        let ada = people.one("ada", encoding).await;
        let pad = |bytes: usize| json!({"op": "ping", "ref": 7, "pad": "x".repeat(bytes)});
        // What surrounds the padding is at most 40 bytes.
        ada.send_raw(encoding.encode(&pad(4056))).await.unwrap();
        ada.wait_for(|frame| frame["op"] == "pong").await;
        // It may be cut off while it still writes.
        let _ = ada.send_raw(encoding.encode(&pad(4096))).await;
        let close = ada.wait_closed().await;
        assert_eq!(close.code, Some(1009), "{close:?}");
        // As fragments, each of them small enough.
        let bob = people.one("bob", encoding).await;
        let mut fragments = fragments(encoding, &pad(6000), 1000).into_iter();
        while let Some(Ok(())) = match fragments.next() {
            Some(fragment) => Some(bob.send_raw(fragment).await),
            None => None,
        } {}
        assert_eq!(bob.wait_closed().await.code, Some(1009));
    }
}

fn fragments(encoding: Encoding, value: &serde_json::Value, size: usize) -> Vec<Message> {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    let bytes = encoding.encode(value).into_data();
    let first = if encoding == Encoding::Json { Data::Text } else { Data::Binary };
    let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
    let last = pieces.len() - 1;
    let frame = |(index, piece): (usize, &&[u8])| {
        let data = if index == 0 { first } else { Data::Continue };
        Message::Frame(Frame::message(piece.to_vec(), OpCode::Data(data), index == last))
    };
    pieces.iter().enumerate().map(frame).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_makes_so_many_requests() {
    let builder = Server::builder().env("AULA_SESSION_REQUESTS_PER_SECOND", 5).env("AULA_SESSION_REQUEST_BURST", 10);
    let people = three(builder).await;
    for encoding in Encoding::BOTH {
        let ada = people.one("ada", encoding).await;
        for _ in 0..20 {
            ada.post(json!({"op": "ping"})).await.unwrap();
        }
        let after = ada.request(json!({"op": "history", "channel": uuid::Uuid::nil()})).await;
        let wait = refused(after, "rate_limited")["retry_after_ms"].as_u64().unwrap();
        assert!((1..=1000).contains(&wait), "{wait}");
        let frames = ada.received();
        let pongs = frames.iter().filter(|frame| frame["op"] == "pong").count();
        assert!((10..=12).contains(&pongs), "{pongs} of 20");
        // Others are not concerned, and it is forgiven as told.
        let bob = people.one("bob", encoding).await;
        assert_eq!(bob.request(json!({"op": "ping"})).await["op"], "pong");
        tokio::time::sleep(Duration::from_millis(wait + 50)).await;
        assert_eq!(ada.request(json!({"op": "ping"})).await["op"], "pong");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_so_many_connections() {
    let people = three(Server::builder().env("AULA_SESSION_MAX_PER_USER", 2)).await;
    for encoding in Encoding::BOTH {
        let first = people.one("ada", encoding).await;
        let _second = people.one("ada", encoding).await;
        let third = people.stranger(encoding).await;
        let token = people.token(&named("ada", encoding));
        let reference = third.post(json!({"op": "auth", "token": token})).await.unwrap();
        let error = refused(third.wait_for(|frame| frame["op"] == "error").await, "rate_limited");
        assert_eq!(error["ref"], reference);
        let close = third.wait_closed().await;
        assert_eq!((close.code, close.reason.as_str()), (Some(1008), "refused"));
        people.one("bob", encoding).await;
        first.close().await;
        // The place is free once the server has seen the end.
        tokio::time::sleep(Duration::from_millis(200)).await;
        people.one("ada", encoding).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_connections_may_be_open() {
    let people =
        three(Server::builder().env("AULA_SERVER_MAX_CONNECTIONS", 4).env("AULA_SERVER_MAX_UNAUTHENTICATED", 2)).await;
    // The sign-ups' connections are kept alive by their client.
    let mut people = people;
    people.http = crate::http::Http::new(people.server.addr());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let strangers = [people.stranger(Encoding::Json).await, people.stranger(Encoding::Json).await];
    let third = Client::try_connect(people.server.addr(), "third", Auth::None, Encoding::Json).await;
    assert!(matches!(third, Err(ConnectError::Refused(503))));
    drop(strangers);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut open = Vec::new();
    for name in ["ada", "bob", "cleo", "ada"] {
        open.push(people.one(name, Encoding::Json).await);
    }
    let fifth = Client::try_connect(people.server.addr(), "fifth", Auth::None, Encoding::Json).await;
    // What it sent is never read: the reset for that may overtake the answer.
    assert!(matches!(fifth, Err(ConnectError::Refused(503) | ConnectError::Failed(_))), "there is no place");
    open[0].close().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    people.one("bob", Encoding::Json).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_requests_wait_for_an_answer() {
    let people = three(Server::builder().env("AULA_SESSION_MAX_IN_FLIGHT", 2)).await;
    for encoding in Encoding::BOTH {
        let (ada, bob) = (people.one("ada", encoding).await, people.one("bob", encoding).await);
        let channel = ada.create_direct(&bob.username).await;
        ada.send_persisted(&channel, "hello").await;
        // While another holds the database no send is accepted.
        let database = rusqlite::Connection::open(people.server.data_dir().join("aula.db")).unwrap();
        database.busy_timeout(Duration::from_secs(5)).unwrap();
        database.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut sent = Vec::new();
        for index in 0..3 {
            let id = uuid::Uuid::now_v7().to_string();
            sent.push(ada.post(send_request(&channel, &format!("number {index}"), &id, false)).await.unwrap());
        }
        let error = refused(ada.wait_for(|frame| frame["ref"] == sent[2]).await, "overloaded");
        assert!(error["retry_after_ms"].as_u64().unwrap() <= 1000);
        let history = json!({"op": "history", "channel": channel});
        refused(ada.request(history.clone()).await, "overloaded");
        // What needs no waiting goes on.
        assert_eq!(ada.request(json!({"op": "ping"})).await["op"], "pong");
        ada.post(in_channel("typing", &channel)).await.unwrap();
        bob.wait_for(|frame| frame["op"] == "typing").await;
        database.execute_batch("ROLLBACK").unwrap();
        for reference in &sent[..2] {
            let reply = ada.wait_for(|frame| frame["ref"] == *reference && frame["op"] != "typing").await;
            assert_eq!(reply["status"], "accepted", "{reply}");
        }
        ada.wait_for(|frame| is_status(frame, "persisted") && frame["seq"] == 4).await;
        assert_eq!(ada.request(history).await["op"], "ok");
        drop(database);
    }
}
