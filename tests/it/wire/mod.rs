//! Real clients against a real server, in both encodings: each op, each error code, each close code, each limit.

mod channels;
mod closes;
mod codes;
mod drain;
mod handshake;
mod history;
mod joining;
mod limits;
mod liveness;
mod membership;
mod receipts;
mod search;
mod sends;
mod welcome;

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Auth, Client, Encoding};
use crate::people::People;

/// Long enough for what must not come to come.
pub const QUIET: Duration = Duration::from_millis(300);

/// A name of its own for each encoding, on one server.
pub fn named(name: &str, encoding: Encoding) -> String {
    let suffix = match encoding {
        Encoding::Json => "-j",
        Encoding::Msgpack => "-m",
    };
    format!("{name}{suffix}")
}

/// ada, bob and cleo, once for each encoding.
pub async fn three(builder: crate::server::Builder) -> People {
    let names: Vec<String> =
        Encoding::BOTH.iter().flat_map(|encoding| ["ada", "bob", "cleo"].map(|name| named(name, *encoding))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    People::on(builder, &names).await
}

impl People {
    /// The one of `three` for this encoding.
    pub async fn one(&self, name: &str, encoding: Encoding) -> Client {
        self.client(&named(name, encoding), encoding).await
    }

    /// A connection that is not authenticated yet.
    pub async fn stranger(&self, encoding: Encoding) -> Client {
        Client::try_connect(self.server.addr(), "stranger", Auth::None, encoding).await.unwrap()
    }
}

/// Checks that a reply is an error with this code and repeats a `ref`; returns it.
pub fn refused(reply: Value, code: &str) -> Value {
    assert_eq!(reply["op"], "error", "{reply}");
    assert_eq!(reply["code"], code, "{reply}");
    assert!(reply["ref"].is_u64() && reply["message"].as_str().is_some_and(|text| !text.is_empty()), "{reply}");
    let waits = reply["retry_after_ms"].as_u64();
    match code {
        "rate_limited" | "overloaded" => assert!(reply["retry"] == true && waits.is_some(), "{reply}"),
        "unavailable" => {}
        _ => assert!(reply["retry"] == false && waits.is_none(), "{reply}"),
    }
    reply
}

/// The seqs of a history reply.
pub fn seqs(reply: &Value) -> Vec<u64> {
    assert_eq!(reply["op"], "ok", "{reply}");
    reply["messages"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()).collect()
}

/// Asserts that no frame like this comes, nor has come since the mark.
pub async fn nothing(client: &Client, mark: usize, unwanted: impl Fn(&Value) -> bool) {
    tokio::time::sleep(QUIET).await;
    let mut cursor = mark;
    let found = client.received_since(&mut cursor).into_iter().find(|frame| unwanted(frame));
    assert!(found.is_none(), "{} received {}", client.username, found.unwrap());
}

pub fn in_channel(op: &str, channel: &str) -> Value {
    json!({"op": op, "channel": channel})
}
