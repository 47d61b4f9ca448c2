//! A WebSocket client that records all it sends and receives, for the test's own questions and for the oracle.
#![allow(dead_code, reason = "a harness: each test uses its part of it")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aula::message::ChannelId;
use aula::oracle::Recorder;
use aula::oracle::frame::{Message as Shown, Received, Sent};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::clock;

const LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Msgpack,
}

impl Encoding {
    pub const BOTH: [Self; 2] = [Self::Json, Self::Msgpack];

    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "aula.v1.json",
            Self::Msgpack => "aula.v1.msgpack",
        }
    }

    pub fn encode(self, value: &Value) -> Message {
        match self {
            Self::Json => Message::text(value.to_string()),
            Self::Msgpack => Message::binary(rmp_serde::to_vec_named(value).unwrap()),
        }
    }

    /// Text frames carry JSON and binary frames MessagePack; anything else is the server's fault.
    fn decode(self, message: &Message) -> Result<Value, String> {
        match (self, message) {
            (Self::Json, Message::Text(text)) => {
                serde_json::from_str(text.as_str()).map_err(|error| format!("{error} in {text}"))
            }
            (Self::Msgpack, Message::Binary(bytes)) => {
                rmp_serde::from_slice(bytes).map_err(|error| format!("{error} in {bytes:02x?}"))
            }
            (encoding, other) => Err(format!("{encoding:?} was agreed, but came {other:?}")),
        }
    }
}

/// How the connection says who it is.
#[derive(Clone, Copy, Debug)]
pub enum Auth<'a> {
    FirstFrame(&'a str),
    Bearer(&'a str),
    /// Nothing yet: the test sends what it likes.
    None,
}

/// One frame of the wire, in the order of the connection.
#[derive(Clone, Debug)]
pub struct Frame {
    /// `clock::now()`: before the first byte was written, or after the last was read.
    pub at: u64,
    pub sent: bool,
    pub value: Arc<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseReason {
    pub code: Option<u16>,
    pub reason: String,
    /// The socket's error, where it ended without a close frame.
    pub error: Option<String>,
}

#[derive(Debug)]
pub enum ConnectError {
    /// The handshake was answered with this HTTP status.
    Refused(u16),
    Failed(String),
}

/// More events than any test has.
const MAX_EVENTS: usize = 20_000_000;

/// A recorder with room for any test.
pub fn recorder() -> Recorder {
    Recorder::new(MAX_EVENTS)
}

/// The connection ended, so nothing can be sent.
#[derive(Debug)]
pub struct Closed;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Shared {
    frames: Mutex<Vec<Frame>>,
    /// Told whenever a frame was recorded, and when the connection ended (then true).
    changed: watch::Sender<bool>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    close: Mutex<Option<CloseReason>>,
    /// When that was; 0 while it is open.
    closed_at: AtomicU64,
}

impl Shared {
    fn record(&self, sent: bool, value: Value) -> Arc<Value> {
        let value = Arc::new(value);
        let mut frames = self.frames.lock();
        frames.push(Frame { at: clock::now(), sent, value: Arc::clone(&value) });
        drop(frames);
        self.changed.send_modify(|_| ());
        value
    }
}

pub struct Client {
    pub username: String,
    pub encoding: Encoding,
    opened_at: u64,
    sink: tokio::sync::Mutex<SplitSink<Socket, Message>>,
    shared: Arc<Shared>,
    next_ref: AtomicU64,
    reader: tokio::task::JoinHandle<()>,
}

impl Client {
    /// Connects and waits for `welcome`; panics if either fails.
    pub async fn connect(addr: SocketAddr, username: &str, token: &str, encoding: Encoding) -> Self {
        let client = Self::try_connect(addr, username, Auth::FirstFrame(token), encoding).await;
        let client = client.unwrap_or_else(|error| panic!("{username} can't connect: {error:?}"));
        client.welcome().await;
        client
    }

    /// The handshake and, where asked for, the `auth` frame; doesn't wait for `welcome`.
    pub async fn try_connect(
        addr: SocketAddr,
        username: &str,
        auth: Auth<'_>,
        encoding: Encoding,
    ) -> Result<Self, ConnectError> {
        let mut headers = vec![("sec-websocket-protocol", encoding.subprotocol().to_owned())];
        if let Auth::Bearer(token) = auth {
            headers.push(("authorization", format!("Bearer {token}")));
        }
        let client = Self::open(addr, username, &headers, encoding).await?;
        if let Auth::FirstFrame(token) = auth {
            let sent = client.post(json!({"op": "auth", "token": token})).await;
            sent.map_err(|Closed| ConnectError::Failed("closed before auth".to_owned()))?;
        }
        Ok(client)
    }

    /// The handshake with just these headers (`origin`, another subprotocol, …).
    pub async fn open(
        addr: SocketAddr,
        username: &str,
        headers: &[(&'static str, String)],
        encoding: Encoding,
    ) -> Result<Self, ConnectError> {
        let mut request = format!("ws://{addr}/ws").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let opened_at = clock::now();
        let connecting = tokio_tungstenite::connect_async_with_config(request, None, true);
        let socket = match tokio::time::timeout(LIMIT, connecting).await {
            Ok(Ok((socket, _))) => socket,
            Ok(Err(tungstenite::Error::Http(response))) => {
                return Err(ConnectError::Refused(response.status().as_u16()));
            }
            Ok(Err(error)) => return Err(ConnectError::Failed(error.to_string())),
            Err(_) => return Err(ConnectError::Failed(format!("no handshake within {LIMIT:?}"))),
        };
        let (sink, stream) = socket.split();
        let shared = Arc::new(Shared {
            frames: Mutex::default(),
            changed: watch::Sender::new(false),
            waiting: Mutex::default(),
            close: Mutex::default(),
            closed_at: AtomicU64::new(0),
        });
        let reader = tokio::spawn(read(stream, encoding, Arc::clone(&shared)));
        Ok(Self {
            username: username.to_owned(),
            encoding,
            opened_at,
            sink: tokio::sync::Mutex::new(sink),
            shared,
            next_ref: AtomicU64::new(1),
            reader,
        })
    }

    // ---- sending

    /// Sends a request without waiting for its reply; returns the `ref` it was given.
    pub async fn post(&self, request: Value) -> Result<u64, Closed> {
        let reference = self.next_ref.fetch_add(1, Ordering::Relaxed);
        self.post_as(request, reference).await?;
        Ok(reference)
    }

    async fn post_as(&self, mut request: Value, reference: u64) -> Result<(), Closed> {
        request["ref"] = json!(reference);
        // Held from the record to the write: the record's order is the wire's, and "begun" is before the first byte.
        let mut sink = self.sink.lock().await;
        let request = self.shared.record(true, request);
        let message = self.encoding.encode(&request);
        match tokio::time::timeout(LIMIT, sink.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Closed),
        }
    }

    /// Sends a request and waits for its reply; panics after ten seconds, or if the connection ends first.
    pub async fn request(&self, request: Value) -> Value {
        let who = format!("{}'s {}", self.username, request["op"]);
        match self.try_request(request).await {
            Some(reply) => reply,
            None => panic!("{who} got no reply within {LIMIT:?}; closed: {:?}", self.close_reason()),
        }
    }

    /// As `request`, but none if the connection ended or the time was up.
    pub async fn try_request(&self, request: Value) -> Option<Value> {
        self.request_within(request, LIMIT).await
    }

    /// As `try_request`, with another limit.
    pub async fn request_within(&self, request: Value, limit: Duration) -> Option<Value> {
        let reference = self.next_ref.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        self.shared.waiting.lock().insert(reference, tell);
        // The reader drops the waiting ones when it ends; after that, nobody would.
        let ended = *self.shared.changed.borrow();
        if ended || self.post_as(request, reference).await.is_err() {
            self.shared.waiting.lock().remove(&reference);
            return None;
        }
        tokio::time::timeout(limit, told).await.ok()?.ok()
    }

    /// Any message at all: text that isn't JSON, bytes, pings, `Message::Frame` fragments.
    pub async fn send_raw(&self, message: Message) -> Result<(), Closed> {
        let mut sink = self.sink.lock().await;
        match tokio::time::timeout(LIMIT, sink.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Closed),
        }
    }

    // ---- the operations

    /// Sends a text under a fresh `client_id`; returns that and the reply.
    pub async fn send(&self, channel: &str, body: &str) -> (String, Value) {
        let client_id = uuid::Uuid::now_v7().to_string();
        let reply = self.send_with(channel, body, &client_id, false).await;
        (client_id, reply)
    }

    pub async fn send_with(&self, channel: &str, body: &str, client_id: &str, retry: bool) -> Value {
        self.request(send_request(channel, body, client_id, retry)).await
    }

    /// Sends a text and waits until it is persisted; returns its seq.
    pub async fn send_persisted(&self, channel: &str, body: &str) -> u64 {
        let (client_id, reply) = self.send(channel, body).await;
        assert_eq!(reply["status"], "accepted", "{reply}");
        let status = self.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == client_id).await;
        status["seq"].as_u64().expect("a persisted status has a seq")
    }

    /// The direct channel with another user; waits for `channel_created` and returns the id.
    pub async fn create_direct(&self, with: &str) -> String {
        self.create(json!({"op": "create_channel", "kind": "direct", "members": [with]})).await
    }

    pub async fn create_group(&self, name: &str, members: &[&str]) -> String {
        self.create(json!({"op": "create_channel", "kind": "group", "name": name, "members": members})).await
    }

    async fn create(&self, request: Value) -> String {
        let reply = self.request(request).await;
        assert_eq!(reply["op"], "ok", "{reply}");
        let reference = reply["ref"].clone();
        let created = self.wait_for(|frame| frame["op"] == "channel_created" && frame["ref"] == reference).await;
        let id = created["channel"]["id"].as_str().expect("channel_created has a channel with an id");
        if let Some(promised) = reply["channel"].as_str() {
            assert_eq!(promised, id, "the reply and the event name the same channel");
        }
        id.to_owned()
    }

    /// All entries after `seq`, paged through `history`.
    pub async fn history_after(&self, channel: &str, mut seq: u64) -> Vec<Value> {
        let mut entries = Vec::new();
        loop {
            let request = json!({"op": "history", "channel": channel, "after": seq, "limit": 100});
            let reply = self.request(request).await;
            assert_eq!(reply["op"], "ok", "history of {channel}: {reply}");
            let page = reply["messages"].as_array().expect("a history reply has messages").clone();
            let last = page.last().map(|entry| entry["seq"].as_u64().expect("an entry has a seq"));
            entries.extend(page);
            match last {
                Some(last) if reply["more"] == true => {
                    assert!(last > seq, "a page of history makes no progress after {seq}");
                    seq = last;
                }
                None if reply["more"] == true => panic!("an empty page of history promises more"),
                _ => return entries,
            }
        }
    }

    pub async fn history_all(&self, channel: &str) -> Vec<Value> {
        self.history_after(channel, 0).await
    }

    pub async fn resume(&self, channels: &[(&str, u64)]) -> Value {
        self.request(resume_request(channels.iter().copied())).await
    }

    // ---- reading

    pub async fn welcome(&self) -> Value {
        self.wait_for(|frame| frame["op"] == "welcome").await
    }

    /// The first received frame, past ones included, that fulfils `wanted`; panics after ten seconds.
    pub async fn wait_for(&self, wanted: impl FnMut(&Value) -> bool) -> Value {
        self.wait_for_after(0, wanted).await
    }

    /// As `wait_for`, from a mark on.
    pub async fn wait_for_after(&self, mark: usize, wanted: impl FnMut(&Value) -> bool) -> Value {
        self.wait_within(LIMIT, mark, wanted).await
    }

    /// As `wait_for_after`; panics after `limit`.
    pub async fn wait_within(&self, limit: Duration, mark: usize, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let mut cursor = mark;
        let search = async {
            while let Some(frames) = self.next_frames(&mut cursor).await {
                if let Some(found) = frames.iter().find(|frame| wanted(frame)) {
                    return Some(Value::clone(found));
                }
            }
            None
        };
        match tokio::time::timeout(limit, search).await {
            Ok(Some(found)) => found,
            Ok(None) => {
                panic!("{} was closed while waiting: {:?}\n{}", self.username, self.close_reason(), self.tail())
            }
            Err(_) => panic!("{} waited {limit:?} in vain\n{}", self.username, self.tail()),
        }
    }

    /// Where `wait_for_after` and `next_frames` go on from to see only what comes later.
    pub fn mark(&self) -> usize {
        self.shared.frames.lock().len()
    }

    /// The frames received since the cursor, waiting for one; none when the connection ended and all were seen.
    pub async fn next_frames(&self, cursor: &mut usize) -> Option<Vec<Arc<Value>>> {
        let mut changed = self.shared.changed.subscribe();
        loop {
            let ended = *changed.borrow_and_update();
            let frames = self.received_since(cursor);
            if !frames.is_empty() {
                return Some(frames);
            }
            if ended || changed.changed().await.is_err() {
                return None;
            }
        }
    }

    /// The frames received since the cursor, without waiting.
    pub fn received_since(&self, cursor: &mut usize) -> Vec<Arc<Value>> {
        let frames = self.shared.frames.lock();
        let new = frames[*cursor..].iter().filter(|frame| !frame.sent).map(|frame| Arc::clone(&frame.value)).collect();
        *cursor = frames.len();
        new
    }

    /// All frames received so far.
    pub fn received(&self) -> Vec<Arc<Value>> {
        self.received_since(&mut 0)
    }

    fn tail(&self) -> String {
        let frames = self.shared.frames.lock();
        let tail = frames.iter().rev().take(10).rev();
        tail.map(|frame| format!("  {} {}\n", if frame.sent { "→" } else { "←" }, frame.value)).collect()
    }

    // ---- the end

    /// Says goodbye and waits for the end.
    pub async fn close(&self) {
        let _ = self.send_raw(Message::Close(None)).await;
        let _ = tokio::time::timeout(LIMIT, self.ended()).await;
    }

    /// Waits (ten seconds) until the server closes the connection; panics if it doesn't.
    pub async fn wait_closed(&self) -> CloseReason {
        let ended = tokio::time::timeout(LIMIT, self.ended()).await;
        assert!(ended.is_ok(), "{} is still connected after {LIMIT:?}\n{}", self.username, self.tail());
        self.close_reason().unwrap()
    }

    async fn ended(&self) {
        let mut changed = self.shared.changed.subscribe();
        let _ = changed.wait_for(|ended| *ended).await;
    }

    /// Why the connection ended; none while it is open.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared.close.lock().clone()
    }

    /// Gives the oracle all that was sent and received on this connection so far.
    pub fn record(&self, recorder: &mut Recorder) {
        let user = recorder.user(&self.username);
        let connection = recorder.open(user, self.opened_at);
        for Frame { at, sent, value } in self.shared.frames.lock().iter() {
            let understood = if *sent {
                Sent::from_value(value).map(|frame| recorder.sent(connection, *at, &frame))
            } else {
                Received::from_value(value).map(|frame| recorder.received(connection, *at, &frame))
            };
            if let Err(problem) = understood {
                recorder.malformed(connection, *at, &format!("{problem}: {value}"));
            }
        }
        let closed_at = match self.shared.closed_at.load(Ordering::Relaxed) {
            0 => clock::now(),
            closed_at => closed_at,
        };
        recorder.close(connection, closed_at);
    }

    /// Reads a channel's whole history, for the oracle.
    pub async fn record_history(&self, channel: &str, recorder: &mut Recorder) {
        let entries = self.history_all(channel).await;
        let entries: Vec<Shown<'_>> = entries.iter().map(|entry| Shown::from_value(entry).unwrap()).collect();
        let reader = recorder.user(&self.username);
        recorder.history(reader, ChannelId(channel.parse().unwrap()), 1, &entries).unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

pub fn send_request(channel: &str, body: &str, client_id: &str, retry: bool) -> Value {
    let mut request = json!({"op": "send", "channel": channel, "client_id": client_id, "kind": "text", "body": body});
    if retry {
        request["retry"] = json!(true);
    }
    request
}

pub fn resume_request<'a>(channels: impl IntoIterator<Item = (&'a str, u64)>) -> Value {
    let channels: serde_json::Map<String, Value> =
        channels.into_iter().map(|(id, seq)| (id.to_owned(), json!(seq))).collect();
    json!({"op": "resume", "channels": channels})
}

pub fn is_status(frame: &Value, status: &str) -> bool {
    frame["op"] == "status" && frame["status"] == status
}

async fn read(mut stream: SplitStream<Socket>, encoding: Encoding, shared: Arc<Shared>) {
    let mut reason = CloseReason::default();
    while let Some(message) = stream.next().await {
        let message = match message {
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            Ok(Message::Close(frame)) => {
                if let Some(frame) = frame {
                    reason.code = Some(frame.code.into());
                    reason.reason = frame.reason.to_string();
                }
                continue;
            }
            Ok(message) => message,
            Err(error) => {
                reason.error = Some(error.to_string());
                break;
            }
        };
        match encoding.decode(&message) {
            Ok(value) => {
                let reference = value["ref"].as_u64().filter(|_| is_reply(&value));
                let waiting = reference.and_then(|reference| shared.waiting.lock().remove(&reference));
                let value = shared.record(false, value);
                if let Some(waiting) = waiting {
                    // The one who asked may have given up.
                    let _ = waiting.send(Value::clone(&value));
                }
            }
            Err(problem) => {
                shared.record(false, json!({"op": MALFORMED, "problem": problem}));
            }
        }
    }
    shared.closed_at.store(clock::now(), Ordering::Relaxed);
    *shared.close.lock() = Some(reason);
    shared.changed.send_replace(true);
    shared.waiting.lock().clear();
}

/// The op under which a frame that can't be decoded is recorded; the oracle reports it.
pub const MALFORMED: &str = "(malformed)";

/// `channel_created` carries a `ref` too, but comes after the reply.
fn is_reply(frame: &Value) -> bool {
    matches!(frame["op"].as_str(), Some("ok" | "error" | "search_results" | "pong" | "welcome"))
}
