//! The load of pairs once more, untimed and by new people: what each client sends and sees is recorded, and judged.
//!
//! Apart from what is measured: to record takes the processors that the servers share.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aula::message::ChannelId;
use aula::ops::simulate::engine::clock;
use aula::oracle::frame::{Received, Send, Sent, Status};
use aula::oracle::record::ConnectionNo;
use aula::oracle::{Record, Recorder};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use uuid::Uuid;

use super::proof::{Judged, Reader, prove, read};
use super::{BODY_BYTES, WINDOW};

/// Of one client: what it sends, hears and reads in the few seconds that this lasts.
const MAX_EVENTS: usize = 2_000_000;
/// How often a client that hears nothing looks whether all is over.
const LOOK: Duration = Duration::from_millis(50);
/// Behind everybody's last `persisted`: what comes still is on its way already.
const REST: Duration = Duration::from_secs(1);

/// A person who takes part, at a gateway of their own.
pub struct Person {
    pub address: SocketAddr,
    pub name: String,
    pub token: String,
}

/// Has each two people who follow each other talk for `length`, with full windows, and waits up to `drain` for what is
/// on its way then. Panics unless all of it is accepted, persisted, received and in both members' histories, and every
/// promise was kept.
pub async fn judge(people: Vec<Person>, length: Duration, drain: Duration) -> Judged {
    let mut clients = Vec::new();
    for person in people {
        clients.push(Witness::connect(person).await);
    }
    for pair in clients.chunks_exact_mut(2) {
        let [first, second] = pair else { continue };
        let channel = first.create_direct(&second.person.name).await;
        first.channel = Some(channel);
        second.joined(channel).await;
    }
    let (end, busy) = (Instant::now() + length, Arc::new(AtomicUsize::new(clients.len())));
    let talks = clients.into_iter().map(|client| tokio::spawn(client.talk(end, end + drain, Arc::clone(&busy))));
    let mut records = Vec::new();
    let mut deliveries = 0;
    for talk in talks.collect::<Vec<_>>() {
        let (record, received) = talk.await.unwrap();
        records.push(record);
        deliveries += received;
    }
    let judged = prove(&Record::merge(records), deliveries);
    assert_eq!(judged.deliveries, 2 * judged.sends, "deliveries, and those expected");
    judged
}

struct Witness {
    person: Person,
    socket: WebSocketStream<TcpStream>,
    recorder: Recorder,
    connection: ConnectionNo,
    channel: Option<ChannelId>,
    references: u64,
    /// Sends that are not said to be persisted yet.
    under_way: HashSet<Uuid>,
    received: u64,
}

impl Witness {
    async fn connect(person: Person) -> Self {
        let mut recorder = Recorder::new(MAX_EVENTS);
        let user = recorder.user(&person.name);
        let connection = recorder.open(user, clock::now());
        let mut request = format!("ws://{}/ws", person.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "aula.v1.json".parse().unwrap());
        request.headers_mut().insert("authorization", format!("Bearer {}", person.token).parse().unwrap());
        let stream = TcpStream::connect(person.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        let (references, received) = (0, 0);
        let under_way = HashSet::with_capacity(WINDOW);
        let mut witness = Self { person, socket, recorder, connection, channel: None, references, under_way, received };
        witness.hear_until(|text| text.contains("\"welcome\"")).await;
        witness
    }

    async fn say(&mut self, request: &Value) {
        self.socket.send(Message::text(request.to_string())).await.unwrap();
    }

    fn reference(&mut self) -> u64 {
        self.references += 1;
        self.references
    }

    async fn create_direct(&mut self, other: &str) -> ChannelId {
        let reference = self.reference();
        self.say(&json!({"op": "create_channel", "ref": reference, "kind": "direct", "members": [other]})).await;
        let created: Value =
            serde_json::from_str(&self.hear_until(|text| text.contains("\"channel_created\"")).await).unwrap();
        ChannelId(created["channel"]["id"].as_str().unwrap().parse().unwrap())
    }

    async fn joined(&mut self, channel: ChannelId) {
        let id = channel.to_string();
        self.hear_until(|text| text.contains("\"channel_created\"") && text.contains(&id)).await;
        self.channel = Some(channel);
    }

    async fn hear_until(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        loop {
            let frame = self.socket.next().await.expect("the connection lasts").unwrap();
            let Message::Text(text) = frame else { continue };
            self.heard(&text);
            if is_it(&text) {
                return text.to_string();
            }
        }
    }

    fn heard(&mut self, text: &str) {
        let at = clock::now();
        let frame = match Received::from_json(text.as_bytes()) {
            Ok(frame) => frame,
            Err(problem) => return self.recorder.malformed(self.connection, at, &problem),
        };
        self.recorder.received(self.connection, at, &frame);
        match frame {
            Received::Status(Status::Persisted { client_id, .. }) => _ = self.under_way.remove(&client_id),
            // The entry that makes the channel is nobody's message.
            Received::Message(message) if message.seq > 1 => self.received += 1,
            Received::Error(error) => panic!("{} was told {error:?}", self.person.name),
            _ => {}
        }
    }

    async fn send(&mut self, channel: ChannelId, body: &str) {
        let (reference, client_id) = (self.reference(), Uuid::now_v7());
        let sent = Sent::Send(Send { reference, channel, client_id, body: body.into() });
        self.recorder.sent(self.connection, clock::now(), &sent);
        self.under_way.insert(client_id);
        self.say(&json!({"op": "send", "ref": reference, "channel": channel, "client_id": client_id, "body": body}))
            .await;
    }

    /// Keeps its window full until `end`; then until everybody has everything, or `limit`. Gives what it saw, and how
    /// many messages came.
    async fn talk(mut self, end: Instant, limit: Instant, busy: Arc<AtomicUsize>) -> (Record, u64) {
        let channel = self.channel.expect("a channel");
        let body = "x".repeat(BODY_BYTES);
        let (mut is_busy, mut over_at) = (true, None);
        loop {
            let now = Instant::now();
            assert!(now < limit, "{}: {} are not persisted", self.person.name, self.under_way.len());
            while now < end && self.under_way.len() < WINDOW {
                self.send(channel, &body).await;
            }
            if now >= end && self.under_way.is_empty() && std::mem::take(&mut is_busy) {
                busy.fetch_sub(1, Ordering::Relaxed);
            }
            if busy.load(Ordering::Relaxed) == 0 && now >= *over_at.get_or_insert(now + REST) {
                break;
            }
            match tokio::time::timeout(LOOK, self.socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => self.heard(&text),
                Ok(Some(Ok(_))) | Err(_) => {}
                Ok(ended) => panic!("{}: {ended:?}", self.person.name),
            }
        }
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let Person { address, name, token } = &self.person;
        read(&http, &Reader { address: *address, name, token }, channel, &mut self.recorder).await;
        self.recorder.close(self.connection, clock::now());
        (self.recorder.into_record().unwrap(), self.received)
    }
}
