use std::net::TcpStream;
use std::time::{Duration, Instant};

use aula::message::{ChannelId, Seq};
use aula::ops::simulate::engine::clock;
use aula::oracle::Recorder;
use aula::oracle::frame::{Received, Sent};
use aula::server::store::{Page, SqliteStore, Store as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes, WebSocket, client};

use crate::channel::{READER, fill, open};
use crate::load::process;
use crate::load::proof::{self, Judged, Reader};
use crate::load::server::Server;

/// Pages of a sample, one after the other.
const PAGES: usize = 200;
/// Entries of a page: what a client gets that doesn't say how many.
const ENTRIES: usize = 50;

/// Which page is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The newest entries.
    Last,
    /// Each time another one, somewhere between the first and the last quarter.
    Middle,
}

/// What a page cost, in microseconds.
pub struct Sample {
    /// The server's CPU time for a request.
    pub server_cpu: f64,
    /// From the request to the whole answer.
    pub p50: f64,
    pub p99: f64,
    /// CPU time of the store alone, called in the benchmark's own process.
    pub store_cpu: f64,
}

/// Channels of up to so many messages are read to their end for the oracle; of a longer one it would take minutes, and
/// pages are the same.
const JUDGED: u64 = 100_000;

/// A channel of so many messages in a data directory of its own.
pub struct Filled {
    size: u64,
    channel: ChannelId,
    noted: Option<Recorder>,
    runtime: Runtime,
    folder: TempDir,
}

/// A server on it, and a member who is connected.
pub struct Site {
    pub size: u64,
    channel: ChannelId,
    noted: Option<Recorder>,
    token: String,
    runtime: Runtime,
    store: SqliteStore,
    socket: WebSocket<TcpStream>,
    reference: u64,
    server: Server,
    // Removed when its server has ended.
    _folder: TempDir,
}

impl Place {
    pub const BOTH: [Self; 2] = [Self::Last, Self::Middle];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Middle => "middle",
        }
    }

    /// The seq behind the page; none if there is none.
    fn before(self, size: u64) -> Option<Seq> {
        match self {
            Self::Last => None,
            Self::Middle => Some(fastrand::u64(size / 4..size / 4 * 3)),
        }
    }
}

impl Filled {
    pub fn make(size: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut noted = (size <= JUDGED).then(|| Recorder::new(usize::MAX));
        let channel = runtime.block_on(fill(folder.path(), size, noted.as_mut()));
        Self { size, channel, noted, runtime, folder }
    }
}

impl Site {
    /// To be asked now and then: a client that is silent for a minute is sent away.
    pub fn open(filled: Filled) -> Self {
        let Filled { size, channel, noted, runtime, folder } = filled;
        let data_dir = folder.path();
        let server = Server::start(data_dir, &[]);
        let mut request = format!("ws://{}/ws", server.address()).into_client_request().unwrap();
        let token = server.mint(READER);
        request.headers_mut().insert("sec-websocket-protocol", "aula.v1.json".parse().unwrap());
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut socket, _) = client(request, stream).unwrap();
        let welcome = socket.read().unwrap().into_text().unwrap();
        assert!(welcome.contains(&channel.to_string()), "{welcome}");
        let store = open(data_dir);
        Self { size, channel, noted, token, runtime, store, socket, reference: 0, server, _folder: folder }
    }

    /// Reads pages once more, and the channel to its end, and has the oracle judge what they show: the entries that were
    /// stored, each once, in their order, and the same in all pages. None for a channel that is too long for that.
    /// Panics if a promise was broken.
    pub fn judge(&mut self) -> Option<Judged> {
        let mut recorder = self.noted.take()?;
        let user = recorder.user(READER);
        let connection = recorder.open(user, clock::now());
        let mut shown = 0;
        for page in 0..PAGES {
            let before = Place::BOTH[page % 2].before(self.size);
            let (_, text) = self.ask(before);
            if before.is_none() {
                let newest = Sent::Newest { reference: self.reference, channel: self.channel };
                recorder.sent(connection, clock::now(), &newest);
            }
            recorder.received(connection, clock::now(), &Received::from_json(text.as_bytes()).unwrap());
            shown += ENTRIES as u64;
        }
        recorder.close(connection, clock::now());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let reader = Reader { address: self.server.address(), name: READER, token: &self.token };
        self.runtime.block_on(proof::read(&http, &reader, self.channel, &mut recorder));
        Some(proof::prove(&recorder.into_record().unwrap(), shown))
    }

    pub fn measure(&mut self, place: Place) -> Sample {
        let mut latencies: Vec<Duration> = Vec::with_capacity(PAGES);
        let before = self.server.cpu();
        for _ in 0..PAGES {
            latencies.push(self.ask(place.before(self.size)).0);
        }
        let server_cpu = self.server.cpu() - before;
        let own = std::process::id();
        let before = process::cpu(own);
        for _ in 0..PAGES {
            self.read(place.before(self.size));
        }
        let store_cpu = process::cpu(own) - before;
        latencies.sort();
        let each = |sum: Duration| sum.as_secs_f64() * 1e6 / PAGES as f64;
        let quantile = |quantile: f64| latencies[(PAGES as f64 * quantile) as usize].as_secs_f64() * 1e6;
        Sample { server_cpu: each(server_cpu), p50: quantile(0.5), p99: quantile(0.99), store_cpu: each(store_cpu) }
    }

    /// As a client does. How long it took, and the answer.
    fn ask(&mut self, before: Option<Seq>) -> (Duration, Utf8Bytes) {
        self.reference += 1;
        let mut request =
            json!({"op": "history", "ref": self.reference, "channel": self.channel.to_string(), "limit": ENTRIES});
        if let Some(before) = before {
            request["before"] = before.into();
        }
        let request = Message::text(request.to_string());
        let began = Instant::now();
        self.socket.send(request).unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else { continue };
            let took = began.elapsed();
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["ref"] == self.reference {
                let messages = answer["messages"].as_array().unwrap_or_else(|| panic!("{answer}"));
                let last = messages.last().and_then(|last| last["seq"].as_u64());
                assert_eq!((messages.len(), last), (ENTRIES, Some(before.map_or(self.size, |before| before - 1))));
                return (took, text);
            }
        }
    }

    /// As the gateway does.
    fn read(&self, before: Option<Seq>) {
        let page = Page::Before(before.unwrap_or(Seq::MAX));
        let found = self.runtime.block_on(self.store.messages(self.channel, page, ENTRIES)).unwrap();
        assert_eq!(found.len(), ENTRIES);
    }
}
