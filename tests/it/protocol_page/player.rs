//! Plays the page against a server of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::PAGE;
use super::blocks::{self, Block, What};
use super::shape::Bindings;
use crate::client::{Auth, Client, Encoding};
use crate::http::{Http, PASSWORD};
use crate::people::People;
use crate::server::Server;

const LIMIT: Duration = Duration::from_secs(5);
/// The search index follows the log a moment later, so a search is repeated.
const AGAIN: Duration = Duration::from_millis(200);

struct Connection {
    client: Client,
    /// Frames that no block has shown yet.
    unshown: Vec<Arc<Value>>,
    cursor: usize,
    last_sent: Value,
}

struct Player {
    people: People,
    encoding: Encoding,
    connections: HashMap<String, Connection>,
    bindings: Bindings,
    /// The answer to the last HTTP request.
    response: Option<(u16, Value)>,
}

pub async fn play(encoding: Encoding) {
    let builder = Server::builder().env("AULA_CHANNELS_RESUME_LIMIT", 1);
    // ada signs up on the page; the others are there.
    let people = People::on(builder, &["bob", "cleo"]).await;
    let mut player =
        Player { people, encoding, connections: HashMap::new(), bindings: Bindings::default(), response: None };
    for name in ["bob", "cleo"] {
        player.connect(name, true).await;
    }
    for block in blocks::of(PAGE) {
        player.block(&block).await;
    }
    let status = tokio::task::block_in_place(|| player.people.server.wait(Duration::from_secs(20)));
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", player.people.server.stderr());
}

impl Player {
    async fn block(&mut self, block: &Block<'_>) {
        match block.what {
            What::Client(name) => self.send(name, &block.json).await,
            What::Server(name) => self.expect(name, block).await,
            What::Closed(name) => self.expect_close(name, block).await,
            What::Request { method, path } => self.request(method, path, block).await,
            What::Response { status } => self.expect_response(status, block),
            What::Stop => self.people.server.sigterm(),
            What::Run(command) => {
                let command = self.bindings.fill_text(command);
                let words: Vec<&str> = command.split(' ').collect();
                let (status, _, err) = self.people.server.aula(words.strip_prefix(&["aula"]).unwrap());
                assert_eq!(status.code(), Some(0), "line {}: {err}", block.line);
            }
            What::Shape(_) => {}
        }
    }

    async fn connect(&mut self, name: &str, authenticated: bool) {
        let addr = self.people.server.addr();
        let auth = if authenticated { Auth::FirstFrame(self.people.token(name)) } else { Auth::None };
        let client = Client::try_connect(addr, name, auth, self.encoding).await.unwrap();
        if authenticated {
            client.welcome().await;
        }
        let connection = Connection { client, unshown: Vec::new(), cursor: 0, last_sent: Value::Null };
        self.connections.insert(name.to_owned(), connection);
    }

    async fn send(&mut self, name: &str, example: &Value) {
        if !self.connections.contains_key(name) {
            self.connect(name, false).await;
        }
        let frame = self.bindings.fill(example);
        let connection = self.connections.get_mut(name).unwrap();
        connection.client.send_raw(self.encoding.encode(&frame)).await.unwrap();
        connection.last_sent = frame;
    }

    async fn expect(&mut self, name: &str, block: &Block<'_>) {
        let connection =
            self.connections.get_mut(name).unwrap_or_else(|| panic!("line {}: who is {name}?", block.line));
        let deadline = Instant::now() + LIMIT;
        let mut again = Instant::now() + AGAIN;
        loop {
            connection.unshown.extend(connection.client.received_since(&mut connection.cursor));
            let mut differences = Vec::new();
            for (index, frame) in connection.unshown.iter().enumerate() {
                let mut bindings = self.bindings.clone();
                match bindings.matches(&block.json, frame) {
                    Ok(()) => {
                        self.bindings = bindings;
                        connection.unshown.remove(index);
                        return;
                    }
                    Err(why) if frame["op"] == block.json["op"] => differences.push(format!("{frame}\n    {why}")),
                    Err(_) => {}
                }
            }
            assert!(
                Instant::now() < deadline,
                "line {}: {name} doesn't receive\n  {}\nbut\n  {}",
                block.line,
                block.json,
                differences.join("\n  ")
            );
            if block.json["op"] == "search_results" && Instant::now() > again {
                connection.client.send_raw(self.encoding.encode(&connection.last_sent)).await.unwrap();
                again = Instant::now() + AGAIN;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn expect_close(&mut self, name: &str, block: &Block<'_>) {
        let close = self.connections[name].client.wait_closed().await;
        assert_eq!(json!({"code": close.code, "reason": close.reason}), block.json, "line {}", block.line);
    }

    async fn request(&mut self, method: &str, path: &str, block: &Block<'_>) {
        let http = Http::new(self.people.server.addr());
        let path = self.bindings.fill_text(path);
        let bearer = block.headers.iter().find(|(name, _)| *name == "Authorization");
        let bearer = bearer.map(|(_, value)| self.bindings.fill_text(value.strip_prefix("Bearer ").unwrap()));
        let body = match &block.json {
            Value::Null => None,
            body => Some(self.bindings.fill(body)),
        };
        if let Some(password) = body.as_ref().and_then(|body| body["password"].as_str()) {
            assert_eq!(password, PASSWORD, "line {}", block.line);
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.response = Some(http.call(method, &path, bearer.as_deref(), body.as_ref()).await);
    }

    fn expect_response(&mut self, status: u16, block: &Block<'_>) {
        let (was, body) = self.response.take().unwrap_or_else(|| panic!("line {}: to what?", block.line));
        assert_eq!(was, status, "line {}: {body}", block.line);
        let matched = self.bindings.matches(&block.json, &body);
        matched.unwrap_or_else(|why| panic!("line {}: {why}\n  {body}", block.line));
    }
}
