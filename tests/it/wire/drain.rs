//! A server that is told to stop.

use std::time::{Duration, Instant};

use serde_json::json;

use super::three;
use crate::client::{Encoding, send_request};
use crate::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_goodbye_and_loses_nothing() {
    let mut people = three(Server::builder().env("AULA_SERVER_RECONNECT_JITTER", "2s")).await;
    let mut clients = Vec::new();
    for encoding in Encoding::BOTH {
        for name in ["ada", "bob", "cleo", "ada", "bob", "cleo"] {
            clients.push(people.one(name, encoding).await);
        }
    }
    let (ada, bob) = (&clients[0], &clients[1]);
    let channel = ada.create_direct(&bob.username).await;
    let readiness = people.http.get("/readyz", None).await;
    assert_eq!(readiness.0, 200, "{readiness:?}");
    let mut sent = Vec::new();
    for index in 0..50 {
        let id = uuid::Uuid::now_v7().to_string();
        sent.push(ada.post(send_request(&channel, &format!("number {index}"), &id, false)).await.unwrap());
    }
    ada.wait_for(|frame| frame["status"] == "accepted").await;

    let begun = Instant::now();
    people.server.sigterm();
    // On a connection that is open already: new ones are not accepted any more.
    let mut not_ready = None;
    while not_ready.is_none() && begun.elapsed() < Duration::from_secs(2) {
        let url = format!("http://{}/readyz", people.server.addr());
        match reqwest::get(url).await {
            Ok(response) if response.status().as_u16() == 503 => not_ready = Some(true),
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(_) => break,
        }
    }
    let mut delays = Vec::new();
    for client in &clients {
        let reconnect = client.wait_for(|frame| frame["op"] == "reconnect").await;
        delays.push(reconnect["after_ms"].as_u64().unwrap());
        let close = client.wait_closed().await;
        assert_eq!((close.code, close.reason.as_str()), (Some(1012), "the server restarts"), "{close:?}");
    }
    assert!(delays.iter().all(|delay| (100..=2100).contains(delay)), "{delays:?}");
    let spread = delays.iter().max().unwrap() - delays.iter().min().unwrap();
    assert!(spread > 200, "they are spread: {delays:?}");
    let status = tokio::task::block_in_place(|| people.server.wait(Duration::from_secs(11)));
    assert_eq!(status.expect("it ends within server.drain_timeout").code(), Some(0), "{}", people.server.stderr());

    let accepted: Vec<_> = ada.received().iter().filter(|frame| frame["status"] == "accepted").cloned().collect();
    tokio::task::block_in_place(|| people.server.restart());
    let bob = people.one("bob", Encoding::Json).await;
    let history = bob.history_all(&channel).await;
    assert!(history.len() > accepted.len(), "{} of {} accepted", history.len() - 1, accepted.len());
    let reply = bob.request(json!({"op": "ping"})).await;
    assert_eq!(reply["op"], "pong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_not_ready_while_it_drains() {
    use std::io::{Read, Write};
    let mut people = three(Server::builder()).await;
    let ada = people.one("ada", Encoding::Json).await;
    // A request that is half sent when the drain begins is still answered.
    let mut stream = std::net::TcpStream::connect(people.server.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: aula\r\n").unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    people.server.sigterm();
    ada.wait_for(|frame| frame["op"] == "reconnect").await;
    stream.write_all(b"Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer:?}");
    assert!(std::net::TcpStream::connect(people.server.addr()).is_err(), "it still accepts");
    let status = tokio::task::block_in_place(|| people.server.wait(Duration::from_secs(11)));
    assert_eq!(status.and_then(|status| status.code()), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn does_not_wait_for_ever() {
    let mut people = three(Server::builder().env("AULA_SERVER_DRAIN_TIMEOUT", "1s")).await;
    // Connections that say nothing, and never will.
    let stranger = people.stranger(Encoding::Json).await;
    let idle = std::net::TcpStream::connect(people.server.addr()).unwrap();
    let begun = Instant::now();
    people.server.sigterm();
    let status = tokio::task::block_in_place(|| people.server.wait(Duration::from_secs(5)));
    assert!(status.is_some(), "it still runs after {:?}", begun.elapsed());
    drop((stranger, idle));
}

crate::on_servers![says_goodbye_and_loses_nothing];
