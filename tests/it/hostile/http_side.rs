//! Requests that no client would make.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::server::Server;

use super::watch::Watch;

/// Above the server's limits of ten seconds for a head and a body.
const PATIENCE: Duration = Duration::from_secs(16);

fn open(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Writes a request, and reads what comes until the connection ends or the answer's head is there.
fn status(addr: SocketAddr, request: &[u8]) -> Option<u16> {
    let mut stream = open(addr);
    // It may be refused before all is written.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        answer.extend_from_slice(&chunk[..read]);
        if answer.windows(4).any(|four| four == b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8_lossy(&answer).into_owned();
    head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_and_bodies_are_cut_off() {
    let watch = Watch::on(Server::builder()).await;
    let addr = watch.people.server.addr();
    let attack = tokio::task::spawn_blocking(move || {
        let slow = |begin: &'static [u8], byte: &'static [u8]| {
            std::thread::spawn(move || {
                let mut stream = open(addr);
                let begun = Instant::now();
                stream.write_all(begin).unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
                loop {
                    assert!(begun.elapsed() < PATIENCE, "{begin:?} goes on for ever");
                    let written = stream.write_all(byte);
                    match stream.read(&mut [0; 512]) {
                        Ok(1..) | Ok(0) => return begun.elapsed(),
                        Err(_) if written.is_err() => return begun.elapsed(),
                        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return begun.elapsed(),
                        Err(_) => {}
                    }
                }
            })
        };
        let mut threads = Vec::new();
        for _ in 0..20 {
            threads.push(slow(b"GET /ws HTTP/1.1\r\nHost: aula\r\n", b"X"));
            threads.push(slow(b"", b"G"));
            threads.push(slow(
                b"POST /api/v1/sessions HTTP/1.1\r\nHost: aula\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n{",
                b" ",
            ));
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
    while !attack.is_finished() {
        watch.others_are_served().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    attack.await.unwrap();
    watch.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_requests_are_refused() {
    let watch = Watch::on(Server::builder()).await;
    let addr = watch.people.server.addr();
    let attack = tokio::task::spawn_blocking(move || {
        let post = "POST /api/v1/sessions HTTP/1.1\r\nHost: aula\r\nContent-Type: application/json\r\n";
        let declared = |length: u64| format!("{post}Content-Length: {length}\r\n\r\n{{");
        assert!(matches!(status(addr, declared(u64::MAX).as_bytes()), Some(400 | 413 | 431)));
        for length in [20_000, 1 << 32] {
            let mut request = declared(length).into_bytes();
            request.extend(std::iter::repeat_n(b' ', 20_000));
            assert_eq!(status(addr, &request), Some(413), "{length}");
        }
        let mut chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        for _ in 0..30 {
            chunked.extend_from_slice(b"400\r\n");
            chunked.extend(std::iter::repeat_n(b' ', 1024));
            chunked.extend_from_slice(b"\r\n");
        }
        assert_eq!(status(addr, &chunked), Some(413));
        let long_path = format!("GET /{} HTTP/1.1\r\nHost: aula\r\n\r\n", "x".repeat(100_000));
        assert!(matches!(status(addr, long_path.as_bytes()), Some(414 | 431) | None));
        let header = format!("X-Long: {}\r\n", "x".repeat(1000));
        let many = format!("GET / HTTP/1.1\r\nHost: aula\r\n{}\r\n", header.repeat(1000));
        assert!(matches!(status(addr, many.as_bytes()), Some(431) | None));
        let nested = format!(r#"{{"username":{}{},"password":"x"}}"#, "[".repeat(7_000), "]".repeat(7_000));
        let request = format!("{post}Content-Length: {}\r\n\r\n{nested}", nested.len());
        assert_eq!(status(addr, request.as_bytes()), Some(400));
        let operator = r#"{"username":{"$ne":null},"password":{"$ne":null}}"#;
        let request = format!("{post}Content-Length: {}\r\n\r\n{operator}", operator.len());
        assert_eq!(status(addr, request.as_bytes()), Some(400));
        for nonsense in
            [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"\0\0\0\0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"]
        {
            assert!(matches!(status(addr, nonsense), Some(400 | 405 | 505) | None), "{nonsense:?}");
        }
        // A body where none belongs, and a request behind it that was smuggled in.
        let smuggled =
            "GET /healthz HTTP/1.1\r\nHost: aula\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert!(matches!(status(addr, smuggled.as_bytes()), Some(200 | 400) | None));
    });
    while !attack.is_finished() {
        watch.others_are_served().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    attack.await.unwrap();
    watch.nothing_is_left().await;
}
