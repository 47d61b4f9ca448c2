//! The limit that servers are compared with: one thread that writes one frame to each socket of a room, with one
//! system call each, and does nothing else.
//!
//! `GET /NAME` joins the room of that name; what a socket says is written to all of its room. It speaks as much of
//! RFC 6455 as the load needs: unfragmented messages of up to 64 KiB.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const READ_BUFFER: usize = 64 << 10;
/// What one socket may leave unread; then it is closed.
const MAX_UNWRITTEN: usize = 4 << 20;
const MAX_REQUEST: usize = 8 << 10;

struct Connection {
    stream: TcpStream,
    /// `None`: it has not said which.
    room: Option<usize>,
    /// What is cut, and what the socket did not take; empty as a rule.
    unread: Vec<u8>,
    unwritten: Vec<u8>,
}

#[derive(Default)]
struct Rooms {
    by_name: HashMap<String, usize>,
    members: Vec<Vec<usize>>,
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    rooms: Rooms,
    /// The frame on its way to a room.
    frame: Vec<u8>,
}

/// Says on stdout where it listens, and serves until stdin ends.
pub fn serve() {
    let poll = Poll::new().unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut listener = TcpListener::bind(address).unwrap();
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
    let waker = Waker::new(poll.registry(), WAKER).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    std::thread::spawn(move || {
        // An error is an end as well.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        over.store(true, Ordering::Relaxed);
        waker.wake().unwrap();
    });
    println!("listening on http://{}", listener.local_addr().unwrap());

    let (connections, free, frame) = (Vec::new(), Vec::new(), Vec::new());
    let mut server = Server { poll, listener, connections, free, rooms: Rooms::default(), frame };
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; READ_BUFFER];
    while !is_over.load(Ordering::Relaxed) {
        match server.poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            outcome => outcome.unwrap(),
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept(),
                WAKER => {}
                Token(number) => {
                    if server.serve(number, &mut buffer, event.is_writable()).is_err() {
                        server.close(number);
                    }
                }
            }
        }
    }
}

impl Server {
    fn accept(&mut self) {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _from)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It was gone before it was taken.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => panic!("a connection can't be accepted: {error}"),
            };
            stream.set_nodelay(true).unwrap();
            let number = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(number), both).unwrap();
            self.connections[number] =
                Some(Connection { stream, room: None, unread: Vec::new(), unwritten: Vec::new() });
        }
    }

    fn close(&mut self, number: usize) {
        let Some(connection) = self.connections[number].take() else { return };
        if let Some(room) = connection.room {
            self.rooms.members[room].retain(|member| *member != number);
        }
        self.free.push(number);
    }

    /// Errors: the connection is to be closed.
    fn serve(&mut self, number: usize, buffer: &mut [u8], is_writable: bool) -> io::Result<()> {
        let Some(connection) = &mut self.connections[number] else { return Ok(()) };
        if is_writable && !connection.unwritten.is_empty() {
            let written = write(&mut connection.stream, &connection.unwritten)?;
            connection.unwritten.drain(..written);
        }
        loop {
            let Some(connection) = &mut self.connections[number] else { return Ok(()) };
            let length = match connection.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if connection.unread.is_empty() {
                let used = self.take_in(number, &mut buffer[..length])?;
                if let (true, Some(connection)) = (used < length, &mut self.connections[number]) {
                    connection.unread.extend_from_slice(&buffer[used..length]);
                }
            } else {
                let mut joined = std::mem::take(&mut connection.unread);
                joined.extend_from_slice(&buffer[..length]);
                let used = self.take_in(number, &mut joined)?;
                joined.drain(..used);
                if let (false, Some(connection)) = (joined.is_empty(), &mut self.connections[number]) {
                    connection.unread = joined;
                }
            }
            // Less than asked for: the socket is empty, and what comes next is a new event (epoll(7)).
            if length < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Serves what is whole in `bytes`, and says how much that was.
    fn take_in(&mut self, number: usize, bytes: &mut [u8]) -> io::Result<usize> {
        let mut used = 0;
        let Some(connection) = &mut self.connections[number] else { return Ok(bytes.len()) };
        if connection.room.is_none() {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
                return if bytes.len() < MAX_REQUEST { Ok(0) } else { Err(io::ErrorKind::InvalidData.into()) };
            };
            let request = std::str::from_utf8(&bytes[..end]).map_err(|_| io::ErrorKind::InvalidData)?;
            let (name, key) = handshake(request).ok_or(io::ErrorKind::InvalidData)?;
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                derive_accept_key(key.as_bytes())
            );
            let room = self.rooms.of(name);
            connection.room = Some(room);
            self.rooms.members[room].push(number);
            connection.stream.write_all(answer.as_bytes())?;
            used = end + 4;
        }
        while let Some((opcode, payload)) = next_frame(&mut bytes[used..])? {
            let (begin, end) = (used + payload.start, used + payload.end);
            used = end;
            match opcode {
                1 => self.tell_room(number, &bytes[begin..end]),
                8 => return Err(io::ErrorKind::ConnectionAborted.into()),
                _ => {}
            }
        }
        Ok(used)
    }

    fn tell_room(&mut self, number: usize, payload: &[u8]) {
        let Some(room) = self.connections[number].as_ref().and_then(|connection| connection.room) else { return };
        self.frame.clear();
        self.frame.push(0x81);
        if payload.len() < 126 {
            self.frame.push(payload.len() as u8);
        } else {
            self.frame.push(126);
            self.frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        self.frame.extend_from_slice(payload);
        let mut broken = Vec::new();
        for &member in &self.rooms.members[room] {
            let Some(connection) = &mut self.connections[member] else { continue };
            if connection.tell(&self.frame).is_err() {
                broken.push(member);
            }
        }
        for member in broken {
            self.close(member);
        }
    }
}

impl Connection {
    /// Errors: it is broken, or reads too slowly.
    fn tell(&mut self, frame: &[u8]) -> io::Result<()> {
        let written = if self.unwritten.is_empty() { write(&mut self.stream, frame)? } else { 0 };
        if written < frame.len() {
            if self.unwritten.len() > MAX_UNWRITTEN {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.unwritten.extend_from_slice(&frame[written..]);
        }
        Ok(())
    }
}

impl Rooms {
    fn of(&mut self, name: &str) -> usize {
        if let Some(&room) = self.by_name.get(name) {
            return room;
        }
        self.members.push(Vec::new());
        let room = self.members.len() - 1;
        self.by_name.insert(name.to_owned(), room);
        room
    }
}

/// One system call: how much of it the socket took.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        outcome => outcome,
    }
}

/// The room and the key that a request names.
fn handshake(request: &str) -> Option<(&str, &str)> {
    let mut lines = request.lines();
    let name = lines.next()?.strip_prefix("GET /")?.strip_suffix(" HTTP/1.1")?;
    let mut headers = lines.filter_map(|line| line.split_once(": "));
    let (_, key) = headers.find(|(header, _)| header.eq_ignore_ascii_case("sec-websocket-key"))?;
    Some((name, key))
}

/// The opcode of the masked frame at the beginning of `bytes`, and where its payload is, unmasked; `None` if it isn't
/// whole.
fn next_frame(bytes: &mut [u8]) -> io::Result<Option<(u8, std::ops::Range<usize>)>> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let (header, length) = match (second & 0x7f, bytes.get(2..4)) {
        (127, _) => return Err(io::ErrorKind::InvalidData.into()),
        (126, Some(length)) => (4, usize::from(u16::from_be_bytes([length[0], length[1]]))),
        (126, None) => return Ok(None),
        (length, _) => (2, usize::from(length)),
    };
    let begin = header + 4;
    if bytes.len() < begin + length {
        return Ok(None);
    }
    let (head, rest) = bytes.split_at_mut(begin);
    for (byte, mask) in rest[..length].iter_mut().zip(head[header..].iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Some((first & 0x0f, begin..begin + length)))
}
