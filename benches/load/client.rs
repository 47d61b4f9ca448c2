use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use uuid::Uuid;

/// Frames read and not yet looked at.
const BUFFER: usize = 4096;

type Socket = WebSocketStream<TcpStream>;

/// A client that does as little as it can: its cost is on the same processors.
pub struct Client {
    sink: Arc<tokio::sync::Mutex<SplitSink<Socket, Message>>>,
    listener: Arc<Mutex<Option<mpsc::Sender<Event>>>>,
    setup: mpsc::Receiver<String>,
    pub channel: String,
}

pub enum Event {
    Persisted,
    Received { scheduled_us: u64 },
}

#[derive(Deserialize)]
struct Head<'a> {
    op: &'a str,
    status: Option<&'a str>,
    #[serde(borrow)]
    body: Option<Cow<'a, str>>,
    sender: Option<&'a str>,
}

#[derive(Clone)]
pub struct Sender {
    sink: Arc<tokio::sync::Mutex<SplitSink<Socket, Message>>>,
    channel: String,
}

impl Sender {
    pub async fn send(&self, body: &str) {
        let client_id = Uuid::now_v7();
        let frame =
            format!(r#"{{"op":"send","channel":"{}","client_id":"{client_id}","body":"{body}"}}"#, self.channel);
        self.sink.lock().await.send(Message::text(frame)).await.unwrap();
    }
}

impl Client {
    pub async fn connect(address: SocketAddr, token: &str) -> Self {
        let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "aula.v1.json".parse().unwrap());
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        let (sink, stream) = socket.split();
        let listener = Arc::new(Mutex::new(None));
        let (to_setup, mut setup) = mpsc::channel(BUFFER);
        tokio::spawn(read(stream, Arc::clone(&listener), to_setup));
        let me = setup.recv().await.unwrap();
        assert!(me.contains("\"welcome\""), "{me}");
        Self { sink: Arc::new(tokio::sync::Mutex::new(sink)), listener, setup, channel: String::new() }
    }

    /// From now on events go here.
    pub fn listen(&self) -> mpsc::Receiver<Event> {
        let (to, from) = mpsc::channel(BUFFER);
        *self.listener.lock() = Some(to);
        from
    }

    pub fn sender(&self) -> Sender {
        Sender { sink: Arc::clone(&self.sink), channel: self.channel.clone() }
    }

    pub async fn create_direct(&mut self, other: &str) -> String {
        let request = json!({"op":"create_channel","ref":1,"kind":"direct","members":[other]}).to_string();
        self.sink.lock().await.send(Message::text(request)).await.unwrap();
        loop {
            let frame: serde_json::Value = serde_json::from_str(&self.setup.recv().await.unwrap()).unwrap();
            assert_ne!(frame["op"], "error", "{frame}");
            if frame["op"] == "channel_created" {
                return frame["channel"]["id"].as_str().unwrap().to_owned();
            }
        }
    }

    pub async fn joined(&mut self, channel: &str) {
        while !self.setup.recv().await.unwrap().contains(channel) {}
    }
}

async fn read(
    mut stream: SplitStream<Socket>,
    listener: Arc<Mutex<Option<mpsc::Sender<Event>>>>,
    setup: mpsc::Sender<String>,
) {
    // Echoes of one's own messages are told apart by their bodies' turn: only the other side's count.
    let mut own: VecDeque<String> = VecDeque::with_capacity(1);
    while let Some(Ok(frame)) = stream.next().await {
        let Message::Text(text) = frame else { continue };
        let head: Head<'_> = serde_json::from_str(&text).unwrap();
        let to = listener.lock().clone();
        let Some(to) = to else {
            if head.op == "welcome" {
                let welcome: serde_json::Value = serde_json::from_str(&text).unwrap();
                own.push_back(welcome["username"].as_str().unwrap().to_owned());
            }
            // Nobody sets up any more: then the frame is of no interest.
            let _ = setup.send(text.to_string()).await;
            continue;
        };
        let event = match (head.op, head.status) {
            ("status", Some("persisted")) => Event::Persisted,
            ("message", _) if head.sender != own.front().map(String::as_str) => {
                let scheduled = head.body.and_then(|body| body.get(..12)?.trim().parse().ok());
                let Some(scheduled_us) = scheduled else { continue };
                Event::Received { scheduled_us }
            }
            ("error", _) => panic!("{text}"),
            _ => continue,
        };
        // The round is over.
        let _ = to.send(event).await;
    }
}
