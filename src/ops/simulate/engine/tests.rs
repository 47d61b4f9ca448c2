//! The loop against servers of a few lines.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::*;

/// Connects a client, sends what it is told, and writes down what happens.
struct Diary {
    target: SocketAddr,
    says: Vec<String>,
    events: Vec<String>,
    frames: usize,
    reconnects: usize,
}

impl Diary {
    fn run(target: SocketAddr, says: &[&str], frames: usize) -> Self {
        let says = says.iter().map(|text| text.to_string()).collect();
        let diary = Self { target, says, events: Vec::new(), frames, reconnects: 0 };
        Engine::new(diary, Options::new(1).with_loopback_sources(2)).unwrap().run().unwrap()
    }

    fn request() -> Vec<u8> {
        Upgrade { host: "h:1", path: "/ws?x=1", subprotocol: Some("p"), bearer: Some("t") }.request(7)
    }
}

impl Script for Diary {
    type Timer = &'static str;

    fn start(&mut self, net: &mut Net<Self::Timer>, at: u64) {
        net.set_timer(at + 5_000_000_000, "too late");
        net.connect(0, self.target, Self::request());
    }

    fn opened(&mut self, net: &mut Net<Self::Timer>, client: ClientNo, _at: u64) {
        self.events.push("opened".to_owned());
        for text in std::mem::take(&mut self.says) {
            net.send(client, Data::Text(&text)).unwrap();
        }
    }

    fn message(&mut self, net: &mut Net<Self::Timer>, client: ClientNo, data: Data<'_>, _at: u64) {
        self.events.push(match data {
            Data::Text(text) => text.to_owned(),
            Data::Binary(bytes) => format!("{} bytes", bytes.len()),
        });
        self.frames -= 1;
        if self.frames == 0 {
            net.close(client);
            net.stop();
        }
    }

    fn timer(&mut self, net: &mut Net<Self::Timer>, timer: &'static str, _at: u64) {
        self.events.push(timer.to_owned());
        net.stop();
    }

    fn closed(&mut self, net: &mut Net<Self::Timer>, client: ClientNo, why: Ended, _at: u64) {
        self.events.push(why.kind().to_owned());
        if self.reconnects == 0 {
            return net.stop();
        }
        self.reconnects -= 1;
        net.connect(client, self.target, Self::request());
    }
}

/// Accepts one connection, reads its request and does as told; returns what it was asked.
fn server(work: impl FnOnce(&mut TcpStream) + Send + 'static) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        work(&mut stream);
        String::from_utf8(request).unwrap()
    });
    (address, thread)
}

const AGREED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

fn long(length: usize) -> Vec<u8> {
    let mut frame = vec![0x82, 127];
    frame.extend_from_slice(&(length as u64).to_be_bytes());
    frame.resize(frame.len() + length, 7);
    frame
}

#[test]
fn frames_arrive_whole_however_they_are_cut() {
    let (address, server) = server(|stream| {
        let bytes = [AGREED, b"\x81\x02hi", b"\x89\x01!", &long(200_000), b"\x82\x03end"].concat();
        let cuts = [AGREED.len() + 1, AGREED.len() + 3, AGREED.len() + 9, 70_000, bytes.len()];
        let mut begin = 0;
        for end in cuts {
            stream.write_all(&bytes[begin..end]).unwrap();
            thread::sleep(std::time::Duration::from_millis(5));
            begin = end;
        }
        // The pong, masked.
        let mut pong = [0; 7];
        stream.read_exact(&mut pong).unwrap();
        assert_eq!((pong[0], pong[1], pong[6] ^ pong[2]), (0x8a, 0x81, b'!'));
    });
    let diary = Diary::run(address, &[], 3);
    assert_eq!(diary.events, ["opened", "hi", "200000 bytes", "3 bytes"]);
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /ws?x=1 HTTP/1.1\r\nHost: h:1\r\n"), "{request}");
    assert!(request.contains("Sec-WebSocket-Protocol: p\r\nAuthorization: Bearer t\r\n"), "{request}");
}

#[test]
fn what_a_full_socket_does_not_take_follows_later() {
    let text = "x".repeat(2 << 20);
    let (address, server) = server(|stream| {
        stream.write_all(AGREED).unwrap();
        thread::sleep(std::time::Duration::from_millis(50));
        let mut sent = vec![0; (2 << 20) + 14];
        stream.read_exact(&mut sent).unwrap();
        let mask = [sent[10], sent[11], sent[12], sent[13]];
        assert!(sent[14..].iter().enumerate().all(|(index, byte)| byte ^ mask[index % 4] == b'x'));
        stream.write_all(b"\x81\x02ok").unwrap();
    });
    let diary = Diary::run(address, &[&text], 1);
    assert_eq!(diary.events, ["opened", "ok"]);
    server.join().unwrap();
}

#[test]
fn every_end_is_told_with_its_kind() {
    let ends: [(&[u8], &str); 5] = [
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "unauthorized"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "overloaded"),
        (b"HTTP/1.1 101 x\r\n\r\n\x88\x02\x03\xf0", "closed"),
        (b"HTTP/1.1 101 x\r\n\r\n\x83\x00", "protocol"),
        (b"", "closed"),
    ];
    for (bytes, kind) in ends {
        let (address, server) = server(move |stream| stream.write_all(bytes).unwrap());
        let diary = Diary::run(address, &[], 1);
        assert_eq!(diary.events.last().map(String::as_str), Some(kind), "{:?}", String::from_utf8_lossy(bytes));
        server.join().unwrap();
    }
}

#[test]
fn nobody_at_the_address_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(Diary::run(address, &[], 1).events, ["refused"]);
}
