//! A chat client for the terminal, small enough to read before writing a real one.
//!
//! ```text
//! cargo run --example chat -- ada --with bob
//! cargo run --example chat -- ada --group gardening --with bob --with cleo
//! ```
//!
//! Four rules keep it from losing or doubling anything; each is marked below:
//!   1. A message gets a `client_id` before its first attempt, and keeps it for all of them.
//!   2. It is sent again, with `retry: true`, after each reconnect until the server says `persisted`.
//!   3. The last seq without a hole before it is remembered, and handed in as `resume` when the socket is back.
//!   4. What has been seen is told as a watermark ("all up to this seq"), not message by message.

mod terminal;

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use terminal::Terminal;
use tokio::sync::mpsc::Receiver;
use tokio_tungstenite::tungstenite::{Message as Frame, client::IntoClientRequest, http::HeaderValue};

/// The `ref` of `create_channel`; that of a `send` is its place in `Chat::mine`.
const CREATE: u64 = u32::MAX as u64;

#[derive(Default, Parser)]
struct Options {
    name: String,
    /// The other one, or the members of a new group
    #[arg(long)]
    with: Vec<String>,
    /// A group by its name, made if you are in none of that name
    #[arg(long, required_unless_present = "with")]
    group: Option<String>,
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    server: String,
    /// Asked for if it isn't given
    #[arg(long, env = "CHAT_PASSWORD")]
    password: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    if options.password.is_none() {
        options.password = Some(rpassword::prompt_password(format!("Password of {}: ", options.name))?);
    }
    let mut typed = Terminal::lines();
    let mut chat = Chat { options, ..Chat::default() };
    loop {
        match chat.connection(&mut typed).await {
            Ok(()) => return Ok(()),
            // Never let in: trying again would not help.
            Err(error) if chat.channel.is_none() => return Err(error),
            Err(error) if error.is::<reqwest::Error>() => {} // It is still away.
            Err(error) => chat.terminal.line(&format!("-- {error}; connecting again")),
        };
        let until = tokio::time::Instant::now() + chat.pause;
        chat.pause = (chat.pause * 2).clamp(Duration::from_millis(200), Duration::from_secs(5));
        while let Ok(Some(line)) = tokio::time::timeout_at(until, typed.recv()).await {
            chat.typed(Some(line));
        }
        tokio::time::sleep_until(until).await;
    }
}

/// A message that was typed here, and how far it has come.
#[derive(Default)]
struct Mine {
    client_id: String,
    body: String,
    seq: Option<u64>,
    /// The server could not take it just now.
    again: bool,
    mark: &'static str,
    row: usize,
}

#[derive(Default)]
struct Chat {
    options: Options,
    channel: Option<String>,
    last_seq: u64,
    read_seq: u64,
    mine: Vec<Mine>,
    outgoing: Vec<Value>,
    leaving: bool,
    pause: Duration,
    terminal: Terminal,
}

impl Chat {
    /// An access token. A program that runs for long keeps the refresh token instead of the password.
    async fn sign_in(&self) -> anyhow::Result<String> {
        let Options { server, name, password, .. } = &self.options;
        let credentials = json!({"username": name, "password": password});
        let http = reqwest::Client::new();
        let post = async |path: &str| http.post(format!("{server}/api/v1/{path}")).json(&credentials).send().await;
        if self.channel.is_none() {
            // A name that is taken is refused: then it is ours, or the password is wrong.
            post("users").await?;
        }
        let answer: Value = post("sessions").await?.json().await?;
        let token = answer["access_token"].as_str().map(str::to_owned);
        token.with_context(|| text(&answer["detail"]).to_owned())
    }

    /// One connection, from its handshake to its end. `Ok`: the user has left.
    async fn connection(&mut self, typed: &mut Receiver<String>) -> anyhow::Result<()> {
        let token = self.sign_in().await?;
        let url = format!("{}/ws", self.options.server.replacen("http", "ws", 1));
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("aula.v1.json"));
        let (mut socket, _response) = tokio_tungstenite::connect_async(request).await?;
        // Rule 3. On the first connection there is nothing to resume yet.
        let resume: serde_json::Map<_, _> = self.channel.iter().map(|id| (id.clone(), self.last_seq.into())).collect();
        self.outgoing = vec![json!({"op": "auth", "token": token, "resume": resume})];
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            for frame in self.outgoing.drain(..) {
                socket.send(Frame::text(frame.to_string())).await?;
            }
            if self.leaving && self.channel.is_some() && self.mine.iter().all(is_settled) {
                return Ok(socket.close(None).await?);
            }
            tokio::select! {
                frame = socket.next() => match frame.context("the connection broke")?? {
                    Frame::Text(json) => self.received(&serde_json::from_str(&json)?),
                    Frame::Close(Some(close)) => bail!("closed by the server: {}", close.reason),
                    _ => {} // Pings are answered by the library.
                },
                line = typed.recv(), if !self.leaving => self.typed(line),
                _ = ticks.tick() => self.tick(),
            }
        }
    }

    fn received(&mut self, frame: &Value) {
        let seq = frame["seq"].as_u64().unwrap_or(0);
        let is_ours = self.channel.is_some() && self.channel.as_deref() == frame["channel"].as_str();
        let place = match frame["ref"].as_u64() {
            Some(reference) => Some(reference as usize).filter(|place| *place < self.mine.len()),
            None => self.mine.iter().position(|mine| frame["client_id"] == mine.client_id.as_str()),
        };
        match (text(&frame["op"]), place) {
            ("welcome", _) => self.welcomed(frame),
            ("channel_created", _) if frame["ref"] == CREATE => self.enter(&frame["channel"]),
            // What is here already comes again when a resume overlaps.
            ("message", _) if !is_ours || seq <= self.last_seq => {}
            ("message", place) => {
                self.last_seq = seq;
                match place {
                    Some(place) => self.mine[place].seq = Some(seq),
                    None if frame["kind"] == "system" => self.terminal.line(&format!("-- {}", text(&frame["body"]))),
                    None => self.terminal.line(&format!("{}: {}", text(&frame["sender"]), text(&frame["body"]))),
                }
                // Rule 4. `read` comes with the next tick, one for all that arrived until then.
                self.outgoing.push(json!({"op": "delivered", "channel": self.channel, "seq": seq}));
            }
            ("ok", Some(place)) => self.mark(place, "✅"),
            ("status", place) => match (text(&frame["status"]), place) {
                ("persisted", Some(place)) => {
                    self.mine[place].seq = Some(seq);
                    self.mark(place, "✔");
                }
                ("rejected", Some(place)) => self.mark(place, "✗"),
                ("delivered", _) if is_ours => self.mark_up_to(seq, "✔✔"),
                ("read", _) if is_ours => self.mark_up_to(seq, "✔✔ read"),
                _ => {}
            },
            ("error", place) => {
                self.terminal.line(&format!("-- {}: {}", text(&frame["code"]), text(&frame["message"])));
                match place {
                    Some(place) if frame["retry"] == true => self.mine[place].again = true,
                    Some(place) => self.mark(place, "✗"),
                    None => {}
                }
            }
            // More was missed than is sent again: `history` has it.
            ("gap", _) if is_ours => self.last_seq = frame["last_seq"].as_u64().unwrap_or(self.last_seq),
            ("reconnect", _) => self.pause = Duration::from_millis(frame["after_ms"].as_u64().unwrap_or(200)),
            _ => {} // A newer server may say more.
        }
    }

    fn welcomed(&mut self, welcome: &Value) {
        self.pause = Duration::default();
        self.terminal.line(&format!("-- connected to {} as {}", text(&welcome["server"]), self.options.name));
        let Options { group, with, .. } = &self.options;
        let is_wanted = |channel: &&Value| match &self.channel {
            Some(id) => channel["id"] == id.as_str(),
            None => group.as_ref().is_some_and(|name| channel["name"] == name.as_str()),
        };
        match welcome["channels"].as_array().and_then(|channels| channels.iter().find(is_wanted)) {
            Some(channel) => self.enter(channel),
            // Two users have one direct channel: who asks for it again is told which.
            None => {
                let kind = if group.is_some() { "group" } else { "direct" };
                let create =
                    json!({"op": "create_channel", "ref": CREATE, "kind": kind, "name": group, "members": with});
                self.outgoing.push(create);
            }
        }
    }

    fn enter(&mut self, channel: &Value) {
        if self.channel.is_none() {
            // The newest twenty, and all that follows.
            self.channel = channel["id"].as_str().map(str::to_owned);
            self.last_seq = channel["last_seq"].as_u64().unwrap_or(0).saturating_sub(20);
            self.outgoing.push(json!({"op": "resume", "channels": {text(&channel["id"]): self.last_seq}}));
        }
        // Rule 2. Nobody knows how far the earlier attempts came, but the server finds out.
        for place in self.places(|mine| !is_settled(mine)) {
            self.send(place, true);
        }
        self.mark_up_to(channel["delivered_by_all"].as_u64().unwrap_or(0), "✔✔");
        self.mark_up_to(channel["read_by_all"].as_u64().unwrap_or(0), "✔✔ read");
    }

    fn typed(&mut self, line: Option<String>) {
        let Some(body) = line else { return self.leaving = true };
        let row = self.terminal.typed();
        if !body.trim().is_empty() {
            // Rule 1. A version 7 id says when it was made, by which a retry that comes too late is known.
            let client_id = uuid::Uuid::now_v7().to_string();
            self.mine.push(Mine { client_id, body, row, ..Mine::default() });
            self.mark(self.mine.len() - 1, "…");
            self.send(self.mine.len() - 1, false);
        }
    }

    fn send(&mut self, place: usize, retry: bool) {
        let (mine, channel) = (&mut self.mine[place], &self.channel);
        mine.again = false;
        let (id, body) = (&mine.client_id, &mine.body);
        let send =
            json!({"op": "send", "channel": channel, "client_id": id, "body": body, "retry": retry, "ref": place});
        self.outgoing.extend(channel.is_some().then_some(send));
    }

    fn tick(&mut self) {
        for place in self.places(|mine| mine.again) {
            self.send(place, true);
        }
        if self.channel.is_some() && self.last_seq > self.read_seq {
            // What is on the terminal counts as read.
            self.read_seq = self.last_seq;
            self.outgoing.push(json!({"op": "read", "channel": self.channel, "seq": self.read_seq}));
        }
    }

    fn mark_up_to(&mut self, seq: u64, mark: &'static str) {
        for place in self.places(|mine| mine.seq.is_some_and(|its| its <= seq)) {
            self.mark(place, mark);
        }
    }

    fn places(&self, which: impl Fn(&Mine) -> bool) -> Vec<usize> {
        (0..self.mine.len()).filter(|place| which(&self.mine[*place])).collect()
    }

    /// Says how far a message has come; marks only ever rise.
    fn mark(&mut self, place: usize, mark: &'static str) {
        const ORDER: [&str; 7] = ["", "…", "✅", "✔", "✔✔", "✔✔ read", "✗"];
        let rank = |mark| ORDER.iter().position(|known| *known == mark);
        let mine = &mut self.mine[place];
        if rank(mark) <= rank(mine.mark) {
            return;
        }
        mine.mark = mark;
        self.terminal.write_over(mine.row, &format!("{}: {}  {mark}", self.options.name, mine.body));
    }
}

/// Whether there is no more need to send it.
fn is_settled(mine: &Mine) -> bool {
    !matches!(mine.mark, "…" | "✅")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
