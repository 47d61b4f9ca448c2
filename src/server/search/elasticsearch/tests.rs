//! What only this index has: versions, bulks judged entry by entry, a server that is full or gone, one's alias.

mod full;
mod schema;
mod throughput;

use std::sync::Arc;
use std::time::{Duration, Instant};

use elasticsearch::http::Method;
use serde_json::json;
use uuid::Uuid;

use super::testing::{TestIndex, configured};
use super::*;
use crate::message::{ChannelKind, Millis, Role};
use crate::server::search::contract;
use crate::server::sqlite::testing::TempDatabase;
use crate::server::store::{ChannelBatch, Member, NewChannel, SqliteStore};

/// An index with ada in one channel.
struct Ada {
    test: TestIndex,
    index: ElasticsearchIndex,
    channel: ChannelId,
    /// Holds the membership.
    _database: TempDatabase,
}

impl Ada {
    async fn new() -> Self {
        let test = TestIndex::new().await;
        let client = test.client.clone();
        Self::at(test, client).await
    }

    async fn at(test: TestIndex, client: Elasticsearch) -> Self {
        let (database, channel) = (TempDatabase::new(), ChannelId::new_group());
        let store = Arc::new(SqliteStore::new(database.database(), Duration::from_secs(60)));
        let member = Member { role: Role::Owner, joined_seq: 1, delivered: 0, read: 0 };
        let created = ChannelBatch {
            channel,
            create: Some(NewChannel { kind: ChannelKind::Group, name: None }),
            entries: vec![Arc::new(Message { kind: Kind::System, ..message(channel, 1, "{}") })],
            members: vec![(reader(), member)],
            departed: Vec::new(),
            refused: Vec::new(),
            delivered_by_all: 0,
            read_by_all: 0,
        };
        store.append(Arc::new(created)).await.unwrap();
        let index = ElasticsearchIndex::new(client, test.alias.clone(), store, Duration::from_secs(10), 1000);
        Self { test, index, channel, _database: database }
    }

    fn text(&self, seq: u64, body: &str) -> Message {
        message(self.channel, seq, body)
    }

    /// Writes a version as an edit or a removal will.
    async fn write_version(&self, message: &Message, version: u64) {
        let documents = vec![Document::new(message, version).unwrap()];
        Bulk { client: &self.index.client, alias: &self.index.alias }.write(documents).await.unwrap();
    }

    async fn find(&self, text: &str) -> Vec<String> {
        self.test.refresh().await;
        let page = self.index.search(&reader(), query(text)).await.unwrap();
        page.hits.into_iter().map(|hit| hit.body).collect()
    }
}

fn reader() -> Username {
    Username::new("ada").unwrap()
}

fn query(text: &str) -> Query {
    Query { limit: 100, ..contract::query(text) }
}

fn message(channel: ChannelId, seq: u64, body: &str) -> Message {
    Message {
        channel,
        seq,
        id: Uuid::now_v7(),
        sender: reader(),
        client_id: Uuid::now_v7(),
        kind: Kind::Text,
        body: body.into(),
        at: Millis(seq as i64 * 1000),
    }
}

#[tokio::test]
async fn an_older_version_never_comes_back() {
    let ada = Ada::new().await;
    let sent = ada.text(2, "first words");
    ada.index.index(vec![sent.clone()]).await.unwrap();
    let edited = Message { body: "second thoughts".into(), ..sent.clone() };
    ada.write_version(&edited, 2).await;
    // Delivered again, from the queue as it was.
    ada.index.index(vec![sent.clone(), sent.clone()]).await.unwrap();
    assert_eq!(ada.find("first").await, Vec::<String>::new());
    assert_eq!(ada.find("second").await, ["second thoughts"]);

    // A removal, before and after the first version.
    let removed = Message { body: String::new(), ..sent.clone() };
    ada.write_version(&removed, 3).await;
    ada.write_version(&edited, 2).await;
    ada.index.index(vec![sent.clone()]).await.unwrap();
    assert_eq!(ada.find("second").await.len() + ada.find("first").await.len(), 0);
    let late = ada.text(3, "late words");
    ada.write_version(&Message { body: String::new(), ..late.clone() }, 2).await;
    ada.index.index(vec![late]).await.unwrap();
    assert_eq!(ada.find("late").await.len(), 0);
}

#[tokio::test]
async fn a_deleted_document_stays_deleted() {
    let ada = Ada::new().await;
    let sent = ada.text(2, "words");
    ada.index.index(vec![sent.clone()]).await.unwrap();
    let path = format!("/{}/_doc/{}?version=2&version_type=external", ada.test.alias, sent.id);
    ada.test.call(Method::Delete, &path, None).await;
    ada.index.index(vec![sent]).await.unwrap();
    assert_eq!(ada.find("words").await.len(), 0);
}

#[tokio::test]
async fn a_poisoned_entry_holds_up_nobody() {
    let ada = Ada::new().await;
    let mut messages: Vec<Message> = (2..2300).map(|seq| ada.text(seq, "words")).collect();
    // No date to the server.
    messages[700].at = Millis(i64::MIN);
    ada.index.index(messages.clone()).await.unwrap();
    ada.test.refresh().await;
    let page = ada.index.search(&reader(), Query { limit: 5000, ..query("words") }).await.unwrap();
    assert_eq!(page.hits.len(), messages.len() - 1);
    assert!(page.hits.iter().all(|hit| hit.id != messages[700].id));
}

#[tokio::test]
async fn an_index_of_another_version_is_no_poison() {
    let test = TestIndex::unmade();
    let mapping = json!({"mappings": {"dynamic": "strict", "properties": {"channel": {"type": "keyword"}}},
        "aliases": {(test.alias.as_str()): {}}});
    test.call(Method::Put, &format!("/{}-000001", test.alias), Some(mapping)).await;
    let client = test.client.clone();
    let ada = Ada::at(test, client).await;
    let outcome = ada.index.index(vec![ada.text(2, "words")]).await;
    assert!(matches!(outcome, Err(SearchError::Unavailable(_))), "{outcome:?}");
}

#[tokio::test]
async fn without_the_alias_nothing_is_made() {
    let test = TestIndex::unmade();
    let client = test.client.clone();
    let ada = Ada::at(test, client).await;
    let outcome = ada.index.index(vec![ada.text(2, "words")]).await;
    assert!(matches!(outcome, Err(SearchError::Unavailable(_))), "{outcome:?}");
    let outcome = ada.index.search(&reader(), query("words")).await;
    assert!(matches!(outcome, Err(SearchError::Unavailable(_))), "{outcome:?}");
    assert_eq!(
        super::schema::plan(&ada.test.alias),
        super::schema::pending(&ada.test.client, &ada.test.alias).await.unwrap()
    );
}

#[tokio::test]
async fn a_server_that_is_down_is_said_to_be_at_once() {
    // Bound and closed again: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = connect(&config_at(port)).unwrap();
    let ada = Ada::at(TestIndex::unmade(), nobody).await;
    let began = Instant::now();
    let indexed = ada.index.index(vec![ada.text(2, "words")]).await;
    let searched = ada.index.search(&reader(), query("words")).await;
    for outcome in [indexed.map(|()| unreachable!()), searched] {
        assert!(matches!(outcome, Err::<SearchPage, _>(SearchError::Unavailable(_))), "{outcome:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = connect(&config_at(silent.local_addr().unwrap().port())).unwrap();
    let ada = Ada::at(TestIndex::unmade(), client).await;
    let index = ElasticsearchIndex { timeout: Duration::from_millis(100), ..ada.index.clone() };
    assert_eq!(index.search(&reader(), query("words")).await, Err(SearchError::TooSlow));
}

/// Words of Elasticsearch's own languages are words.
#[tokio::test]
async fn a_query_is_text() {
    let ada = Ada::new().await;
    let bodies = ["cats", "dogs", "a body with cats", "exists", "match all"];
    let messages = (2..).zip(bodies).map(|(seq, body)| ada.text(seq, body)).collect();
    ada.index.index(messages).await.unwrap();
    let attempts: [(&str, &[&str]); 12] = [
        ("body:*", &["a body with cats"]),
        ("body:cats", &[]),
        ("words:cats", &[]),
        ("_exists_:cats", &[]),
        ("exists", &["exists"]),
        ("/ca.s/", &[]),
        ("ca?s", &[]),
        ("*ats", &[]),
        ("c*s", &[]),
        ("cats~ dogs~2", &[]),
        ("[a TO z]", &[]),
        (r#"{"match_all":{}}"#, &["match all"]),
    ];
    for (text, expected) in attempts {
        assert_eq!(ada.find(text).await, expected, "{text}");
    }
    for text in ["*:*", "*", "(*)", "\"*\""] {
        let outcome = ada.index.search(&reader(), query(text)).await;
        assert!(matches!(outcome, Err(SearchError::Invalid(_))), "{text} {outcome:?}");
    }
}

#[tokio::test]
async fn long_words_and_phrases_with_an_ending() {
    let ada = Ada::new().await;
    let long = "x".repeat(700);
    let bodies = [format!("{long} end"), "foo-bars".into(), "foo bart".into(), "foo x bar".into()];
    let messages = (2..).zip(&bodies).map(|(seq, body)| ada.text(seq, body)).collect();
    ada.index.index(messages).await.unwrap();
    assert_eq!(ada.find(&long).await, bodies[..1]);
    assert_eq!(ada.find(&format!("{}*", &long[..300])).await, bodies[..1]);
    assert_eq!(ada.find(&long[..300]).await.len(), 0);
    assert_eq!(ada.find("foo-bar*").await, ["foo bart", "foo-bars"]);
    assert_eq!(ada.find("foo-bars").await, ["foo-bars"]);
}

/// Fields of Elasticsearch have limits that a message has not.
#[tokio::test]
async fn the_longest_messages_are_found() {
    let ada = Ada::new().await;
    let one_word = "y".repeat(200_000);
    let many_words: String = (0..100_000).map(|n| format!("w{n} ")).collect();
    let bodies = [one_word, many_words];
    ada.index.index((2..).zip(&bodies).map(|(seq, body)| ada.text(seq, body)).collect()).await.unwrap();
    assert_eq!(ada.find(&"y".repeat(127)).await, bodies[..1]);
    assert_eq!(ada.find("w99999").await, bodies[1..]);
}

/// A cursor that was made up leads nowhere, and breaks nothing.
#[tokio::test]
async fn any_place_is_a_place() {
    let ada = Ada::new().await;
    ada.index.index(vec![ada.text(2, "words")]).await.unwrap();
    ada.test.refresh().await;
    for (at, hits) in [(i64::MIN, 0), (-1, 0), (0, 0), (i64::MAX, 1)] {
        let cursor = Cursor { at: Millis(at), channel: ChannelId::new_group(), seq: i64::MAX as u64 };
        let page = Query { cursor: Some(cursor.encode()), ..query("words") };
        let page = ada.index.search(&reader(), page).await.unwrap();
        assert_eq!((page.hits.len(), page.total), (hits, 1), "{at}");
    }
}

fn config_at(port: u16) -> crate::config::Elasticsearch {
    crate::config::Elasticsearch { url: format!("http://127.0.0.1:{port}"), ..configured() }
}
