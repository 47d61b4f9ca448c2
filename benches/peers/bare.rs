//! The limit that servers are compared with: one thread that writes one frame to each socket of a room, with one
//! system call each, and does nothing else.
//!
//! `GET /NAME` joins the room of that name; what a socket says is written to all of its room.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use aula::websocket::handshake::accept_key;
use aula::websocket::{Item, Opcode, Reader, Role, Violation, frame};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const READ_BUFFER: usize = 64 << 10;
/// What one socket may leave unread; then it is closed.
const MAX_UNWRITTEN: usize = 4 << 20;
const MAX_MESSAGE: usize = 64 << 10;

struct Connection {
    stream: TcpStream,
    /// `None`: it has not said which.
    room: Option<usize>,
    reader: Reader,
    /// What the socket did not take; empty as a rule.
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
}

/// Why a connection is to be closed.
enum End {
    Broken,
    Goodbye,
}

impl From<io::Error> for End {
    fn from(_error: io::Error) -> Self {
        Self::Broken
    }
}

impl From<Violation> for End {
    fn from(_violation: Violation) -> Self {
        Self::Broken
    }
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

    let mut server = Server { poll, listener, connections: Vec::new(), free: Vec::new(), rooms: Rooms::default() };
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
            let reader = Reader::new(Role::Server, MAX_MESSAGE);
            self.connections[number] = Some(Connection { stream, room: None, reader, unwritten: Vec::new() });
        }
    }

    fn close(&mut self, number: usize) {
        let Some(connection) = self.connections[number].take() else { return };
        if let Some(room) = connection.room {
            self.rooms.members[room].retain(|member| *member != number);
        }
        self.free.push(number);
    }

    fn serve(&mut self, number: usize, buffer: &mut [u8], is_writable: bool) -> Result<(), End> {
        loop {
            let Some(connection) = &mut self.connections[number] else { return Ok(()) };
            if is_writable && !connection.unwritten.is_empty() {
                let written = write(&mut connection.stream, &connection.unwritten)?;
                connection.unwritten.drain(..written);
            }
            let length = match connection.stream.read(buffer) {
                Ok(0) => return Err(End::Goodbye),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            match connection.room {
                None => self.join(number, &buffer[..length])?,
                Some(room) => self.relay(number, room, &mut buffer[..length])?,
            }
            // Less than asked for: the socket is empty, and what comes next is a new event (epoll(7)).
            if length < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Takes a handshake, which the load writes at once and waits for its answer.
    fn join(&mut self, number: usize, request: &[u8]) -> Result<(), End> {
        let Some(connection) = &mut self.connections[number] else { return Ok(()) };
        let request = request.strip_suffix(b"\r\n\r\n").and_then(|request| std::str::from_utf8(request).ok());
        let (name, key) = request.and_then(handshake).ok_or(End::Broken)?;
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept_key(key.as_bytes())
        );
        let room = self.rooms.of(name);
        connection.room = Some(room);
        self.rooms.members[room].push(number);
        Ok(connection.stream.write_all(answer.as_bytes())?)
    }

    fn relay(&mut self, number: usize, room: usize, bytes: &mut [u8]) -> Result<(), End> {
        let Some(connection) = &mut self.connections[number] else { return Ok(()) };
        // Out of the table, which its own frames need as well.
        let mut reader = std::mem::replace(&mut connection.reader, Reader::new(Role::Server, 0));
        reader.read(bytes, |item| {
            match item {
                Item::Text(text) => self.tell(room, &frame(Opcode::Text, text.as_bytes())),
                Item::Close(_) => return Err(End::Goodbye),
                Item::Binary(_) | Item::Ping(_) | Item::Pong(_) => {}
            }
            Ok(())
        })?;
        if let Some(connection) = &mut self.connections[number] {
            connection.reader = reader;
        }
        Ok(())
    }

    fn tell(&mut self, room: usize, frame: &[u8]) {
        let mut broken = Vec::new();
        for &member in &self.rooms.members[room] {
            let Some(connection) = &mut self.connections[member] else { continue };
            if connection.tell(frame).is_err() {
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
