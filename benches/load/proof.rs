//! What clients saw, judged by aula's oracle.

use std::net::SocketAddr;

use aula::message::ChannelId;
use aula::oracle::frame::Message;
use aula::oracle::{Recorder, Unjudged, check};
use serde_json::Value;

/// Entries of a page, the most there are.
const PAGE: usize = 100;
/// Violations that are told.
const TOLD: usize = 10;

/// What the oracle has judged.
#[derive(Debug, Clone, Copy)]
pub struct Judged {
    pub sends: u64,
    pub deliveries: u64,
}

/// Somebody who may read a channel.
pub struct Reader<'a> {
    pub address: SocketAddr,
    pub name: &'a str,
    pub token: &'a str,
}

/// Adds what a member reads of a channel over HTTP, from its first entry to its last.
pub async fn read(http: &reqwest::Client, reader: &Reader<'_>, channel: ChannelId, recorder: &mut Recorder) {
    let mut pages: Vec<Value> = Vec::new();
    let mut after = 0;
    loop {
        let url = format!("http://{}/api/v1/channels/{channel}/messages?after={after}&limit={PAGE}", reader.address);
        let answer = http.get(url).bearer_auth(reader.token).send().await.unwrap();
        assert!(answer.status().is_success(), "{} reads {channel}: {}", reader.name, answer.status());
        let page: Value = answer.json().await.unwrap();
        let last = page["messages"].as_array().and_then(|messages| messages.last()?["seq"].as_u64());
        let more = page["more"] == true && last.is_some();
        after = last.unwrap_or(after);
        pages.push(page);
        if !more {
            break;
        }
    }
    let messages = pages.iter().flat_map(|page| page["messages"].as_array().into_iter().flatten());
    let messages: Vec<Message<'_>> = messages.map(|message| Message::from_value(message).unwrap()).collect();
    let user = recorder.user(reader.name);
    recorder.history(user, channel, 1, &messages).unwrap();
}

/// Panics unless every promise was kept, everything could be judged, and all that was sent was accepted and is there.
pub fn prove(record: &aula::oracle::Record, deliveries: u64) -> Judged {
    let verdict = check(record);
    let violations: Vec<String> = verdict.violations.iter().take(TOLD).map(ToString::to_string).collect();
    assert!(verdict.is_clean(), "the oracle says {:?}: {violations:#?}", verdict.broken);
    assert_eq!(verdict.scope.fault(), None, "nothing is proved");
    assert_eq!(verdict.scope.unjudged, Unjudged::default(), "not all could be judged");
    let counts = verdict.counts;
    assert!(counts.attempts > 0, "nothing was sent");
    assert_eq!((counts.acknowledged, counts.ok), (counts.attempts, counts.attempts), "{counts:?}");
    Judged { sends: counts.attempts, deliveries }
}
