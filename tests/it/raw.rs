//! A WebSocket spoken by hand (RFC 6455 §5.2), for frames that no library would send: unmasked ones, lying
//! lengths, fragments of one byte.
#![allow(dead_code, reason = "a harness: each test uses its part of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
const MASK: [u8; 4] = [0x5a, 0xc3, 0x17, 0x88];

pub struct RawSocket {
    pub stream: TcpStream,
}

/// A frame as it is to be written, right or wrong.
#[derive(Clone, Debug)]
pub struct RawFrame<'a> {
    pub fin: bool,
    /// 0 continuation, 1 text, 2 binary, 8 close, 9 ping, 10 pong.
    pub opcode: u8,
    pub masked: bool,
    /// The length to declare; none: the payload's own.
    pub declared: Option<u64>,
    pub payload: &'a [u8],
}

impl RawSocket {
    /// The handshake with extra header lines; panics with the answer unless it is 101.
    pub fn connect(addr: SocketAddr, headers: &[(&str, &str)]) -> Self {
        let mut stream = TcpStream::connect_timeout(&addr, LIMIT).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = format!(
            "GET /ws HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") && answer.len() < 16 * 1024 {
            let read = stream.read(&mut byte).unwrap();
            assert_eq!(read, 1, "the handshake ended after {:?}", String::from_utf8_lossy(&answer));
            answer.push(byte[0]);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        Self { stream }
    }

    /// An error means that the server has closed the connection.
    pub fn write(&mut self, frame: &RawFrame<'_>) -> std::io::Result<()> {
        self.stream.write_all(&frame.bytes())
    }

    pub fn write_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame as (opcode, payload); none at the connection's end.
    pub fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).ok()?;
        let length = match head[1] & 0x7f {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).ok()?;
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.stream.read_exact(&mut length).ok()?;
                u64::from_be_bytes(length)
            }
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).ok()?;
        Some((head[0] & 0x0f, payload))
    }

    /// Reads to the end: the close frame's code and reason, if one came.
    pub fn read_close(&mut self) -> Option<(u16, String)> {
        loop {
            let (opcode, payload) = self.read()?;
            if opcode == 8 && payload.len() >= 2 {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                return Some((code, String::from_utf8_lossy(&payload[2..]).into_owned()));
            }
        }
    }
}

impl RawFrame<'_> {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.fin) << 7 | self.opcode];
        let mask_bit = u8::from(self.masked) << 7;
        let length = self.declared.unwrap_or(self.payload.len() as u64);
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ ..=125), _) => bytes.push(mask_bit | short),
            (_, Ok(medium)) => {
                bytes.push(mask_bit | 126);
                bytes.extend(medium.to_be_bytes());
            }
            _ => {
                bytes.push(mask_bit | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        if self.masked {
            bytes.extend(MASK);
            bytes.extend(self.payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        } else {
            bytes.extend(self.payload);
        }
        bytes
    }
}
