//! A server without room: no real one can be made to be full on demand, so one in the test answers as Elasticsearch
//! does.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

/// What the server was sent, and how it answers.
#[derive(Default)]
struct Server {
    /// The ids of each request, in order.
    requests: Mutex<Vec<Vec<String>>>,
    /// How often each id has still to be refused, and with which status.
    refusals: Mutex<HashMap<String, (u32, u16)>>,
    /// The statuses of whole requests to come.
    whole: Mutex<Vec<u16>>,
}

async fn bulk(State(server): State<Arc<Server>>, body: String) -> impl IntoResponse {
    let actions = body.lines().step_by(2).map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ids: Vec<String> = actions.map(|action| action["index"]["_id"].as_str().unwrap().to_owned()).collect();
    server.requests.lock().push(ids.clone());
    if let Some(status) = server.whole.lock().pop() {
        let error = json!({"error": {"type": "es_rejected_execution_exception", "reason": "full"}, "status": status});
        return (StatusCode::from_u16(status).unwrap(), error.to_string());
    }
    let mut refusals = server.refusals.lock();
    let items: Vec<Value> = ids
        .iter()
        .map(|id| match refusals.get_mut(id) {
            Some((left, status)) if *left > 0 => {
                *left -= 1;
                json!({"index": {"status": *status, "error": {"type": "es_rejected_execution_exception"}}})
            }
            _ => json!({"index": {"status": 201}}),
        })
        .collect();
    (StatusCode::OK, json!({"errors": true, "items": items}).to_string())
}

/// With its messages already made.
async fn start() -> (Arc<Server>, Ada, Vec<Message>) {
    let server = Arc::new(Server::default());
    let router = Router::new()
        .route("/{alias}/_bulk", post(bulk))
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(&server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let ada = Ada::at(TestIndex::unmade(), connect(&config_at(port)).unwrap()).await;
    let messages = (2..6).map(|seq| ada.text(seq, "words")).collect();
    (server, ada, messages)
}

fn ids(messages: &[&Message]) -> Vec<String> {
    messages.iter().map(|message| message.id.to_string()).collect()
}

#[tokio::test]
async fn only_refused_entries_are_sent_again() {
    let (server, ada, messages) = start().await;
    server.refusals.lock().insert(messages[1].id.to_string(), (2, 429));
    server.refusals.lock().insert(messages[3].id.to_string(), (1, 429));
    ada.index.index(messages.clone()).await.unwrap();
    let all: Vec<&Message> = messages.iter().collect();
    let expected = [ids(&all), ids(&[&messages[1], &messages[3]]), ids(&[&messages[1]])];
    assert_eq!(*server.requests.lock(), expected);
}

#[tokio::test]
async fn a_refused_request_is_sent_again_whole() {
    let (server, ada, messages) = start().await;
    server.whole.lock().extend([429, 429]);
    ada.index.index(messages.clone()).await.unwrap();
    let all = ids(&messages.iter().collect::<Vec<_>>());
    assert_eq!(*server.requests.lock(), [all.clone(), all.clone(), all]);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_halved() {
    let (server, ada, messages) = start().await;
    server.whole.lock().push(413);
    ada.index.index(messages.clone()).await.unwrap();
    let all = ids(&messages.iter().collect::<Vec<_>>());
    assert_eq!(*server.requests.lock(), [all.clone(), all[..2].to_vec(), all[2..].to_vec()]);
}

#[tokio::test]
async fn a_single_entry_that_is_too_large_is_passed_over() {
    let (server, ada, messages) = start().await;
    server.whole.lock().push(413);
    ada.index.index(messages[..1].to_vec()).await.unwrap();
    assert_eq!(server.requests.lock().len(), 1);
}

#[tokio::test]
async fn what_else_goes_wrong_is_the_callers_to_repeat() {
    for (whole, entry) in [(Some(503), None), (Some(401), None), (None, Some(503)), (None, Some(404))] {
        let (server, ada, messages) = start().await;
        server.whole.lock().extend(whole);
        server.refusals.lock().extend(entry.map(|status| (messages[2].id.to_string(), (1, status))));
        let outcome = ada.index.index(messages.clone()).await;
        assert!(matches!(outcome, Err(SearchError::Unavailable(_))), "{whole:?} {entry:?} {outcome:?}");
        ada.index.index(messages).await.unwrap();
    }
}

#[tokio::test]
async fn bulks_are_bounded() {
    let (server, ada, _) = start().await;
    let many = (2..2203).map(|seq| ada.text(seq, "words")).collect();
    ada.index.index(many).await.unwrap();
    let mut sizes: Vec<usize> = server.requests.lock().drain(..).map(|ids| ids.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [201, 1000, 1000]);
    let large = (2..7).map(|seq| ada.text(seq, &"word ".repeat(200_000))).collect();
    ada.index.index(large).await.unwrap();
    let mut sizes: Vec<usize> = server.requests.lock().drain(..).map(|ids| ids.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 2, 2], "at most 4 MiB each");
}
