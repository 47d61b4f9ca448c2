//! Events that were lost, and what the sessions get in their place.

use std::time::Duration;

use axum::extract::ws::Message as WsMessage;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::config::Config;
use crate::message::{Change, Message, Millis};
use crate::server::auth::testing;
use crate::server::events::{Event, EventSink as _};
use crate::server::gateway::Connected;
use crate::server::queue::{SqliteQueue, SqliteQueueOptions};
use crate::server::search::Fts5Search;
use crate::server::sqlite::holder::Holder;
use crate::server::sqlite::testing::TempDatabase;
use crate::server::store::testing::{Owned, change, message};
use crate::server::store::{ChannelBatch, SqliteStore, Store as _};
use crate::wire::Encoding;

const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway that no event reaches but those that a test hands it.
struct Deployment {
    gateway: Arc<Gateway>,
    store: SqliteStore,
    _database: TempDatabase,
    _accounts: TempDir,
}

fn user(name: &str) -> Username {
    Username::new(name).unwrap()
}

impl Deployment {
    async fn new() -> Self {
        let database = TempDatabase::new();
        let data_dir = database.directory().to_owned();
        let holder = Arc::new(Holder::register(&data_dir, "test").unwrap());
        let options = SqliteQueueOptions { data_dir, shards: 1, max_depth: 1000, lease: PATIENCE };
        let queue = SqliteQueue::open(database.database(), options, holder).await.unwrap();
        let store = SqliteStore::new(database.database(), PATIENCE);
        let search = Fts5Search::new(database.database(), PATIENCE, 100);
        let (auth, accounts) = testing::auth(|_| ());
        let (config, stored) = (Arc::new(Config::default()), Arc::new(store.clone()));
        let gateway = Gateway::new(config, auth, Arc::new(queue), stored, Arc::new(search), None);
        Self { gateway, store, _database: database, _accounts: accounts }
    }

    /// One more connection of somebody.
    async fn connect(&self, name: &str) -> Connected {
        let accounts = self.gateway.auth().accounts();
        accounts.create_user(&user(name), "no password", Millis::now()).await.unwrap();
        let (_token, identity) = self.gateway.auth().mint(&user(name), Duration::from_secs(600)).await.unwrap();
        let Ok(connected) = self.gateway.connect(identity, Encoding::Json).await else { panic!("{name} is refused") };
        connected
    }

    /// Stores entries, and nobody is told.
    async fn store(&self, channel: &mut Owned, entries: Vec<Message>) {
        let batch = channel.batch(entries);
        self.store.append(Arc::new(batch)).await.unwrap();
    }

    async fn group(&self, members: &[&str]) -> Owned {
        let members: Vec<_> = members.iter().map(|name| user(name)).collect();
        let mut channel = Owned::new();
        let batch = channel.creation(&members.iter().collect::<Vec<_>>());
        self.store.append(Arc::new(batch)).await.unwrap();
        channel
    }

    async fn raise(&self, channel: &Owned, delivered: Seq, read: Seq) {
        let batch = ChannelBatch {
            channel: channel.id,
            create: None,
            entries: Vec::new(),
            members: Vec::new(),
            departed: Vec::new(),
            delivered_by_all: delivered,
            read_by_all: read,
            refused: Vec::new(),
        };
        self.store.append(Arc::new(batch)).await.unwrap();
    }

    async fn repair(&self) {
        tokio::time::timeout(PATIENCE, self.gateway.repair()).await.unwrap();
    }
}

fn text(channel: &Owned, seq: Seq, sender: &str) -> Message {
    message(channel.id, seq, &user(sender))
}

fn added(channel: &Owned, seq: Seq, name: &str) -> Message {
    change(channel.id, seq, &user("ada"), Change::Added { members: vec![user(name)] })
}

fn removed(channel: &Owned, seq: Seq, name: &str) -> Message {
    change(channel.id, seq, &user("ada"), Change::Removed { members: vec![user(name)] })
}

/// What a session was sent since the last time, in short: what it is, and of which seq.
fn frames(connected: &Connected) -> Vec<String> {
    let mut frames = Vec::new();
    assert!(connected.session.outbox.take(&mut frames).is_none(), "it is being closed");
    let short = |frame: WsMessage| {
        let WsMessage::Text(text) = frame else { panic!("{frame:?}") };
        let frame: Value = serde_json::from_str(&text).unwrap();
        let op = if frame["op"] == "status" { &frame["status"] } else { &frame["op"] };
        let seq = [&frame["seq"], &frame["channel"]["last_seq"], &frame["last_seq"]];
        let seq = seq.into_iter().find(|seq| seq.is_u64()).unwrap_or(&json!(null)).clone();
        format!("{} {seq}", op.as_str().unwrap())
    };
    frames.into_iter().map(short).collect()
}

fn hears_live(deployment: &Deployment, message: &Message) {
    deployment.gateway.deliver(Event::Message(Arc::new(message.clone())));
}

#[tokio::test]
async fn what_was_missed_comes_once_and_in_order() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada", "bob"]).await;
    let [ada, bob, cyd] =
        [deployment.connect("ada").await, deployment.connect("bob").await, deployment.connect("cyd").await];
    let entries = vec![
        text(&channel, 2, "bob"),
        text(&channel, 3, "ada"),
        added(&channel, 4, "cyd"),
        text(&channel, 5, "bob"),
        text(&channel, 6, "ada"),
    ];
    deployment.store(&mut channel, entries).await;
    deployment.raise(&channel, 4, 2).await;
    deployment.repair().await;

    let entries = ["message 2", "message 3", "message 4", "message 5", "message 6"];
    let statuses = ["delivered 4", "read 2"];
    let all = |persisted: [&'static str; 2]| [&entries[..], &persisted, &statuses].concat();
    assert_eq!(frames(&ada), all(["persisted 3", "persisted 6"]));
    assert_eq!(frames(&bob), all(["persisted 2", "persisted 5"]));
    // From the present end on.
    assert_eq!(frames(&cyd), ["channel_created 6"]);
    assert!(deployment.gateway.rooms.get(channel.id).unwrap().known().is_some());

    for _ in 0..2 {
        deployment.repair().await;
    }
    let seventh = text(&channel, 7, "ada");
    hears_live(&deployment, &seventh);
    hears_live(&deployment, &seventh);
    for session in [&ada, &bob, &cyd] {
        assert_eq!(frames(session), ["message 7"]);
    }
    // It is not stored yet: nothing else is said of it, and nothing is taken back.
    deployment.repair().await;
    deployment.store(&mut channel, vec![seventh]).await;
    deployment.repair().await;
    assert_eq!(frames(&ada), ["persisted 7"]);
    assert!(frames(&bob).is_empty() && frames(&cyd).is_empty());
}

#[tokio::test]
async fn who_was_removed_sees_that_and_nothing_after() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada", "bob", "cyd"]).await;
    // Nobody else of it is here.
    let mut alone = deployment.group(&["zoe", "cyd"]).await;
    let [ada, cyd] = [deployment.connect("ada").await, deployment.connect("cyd").await];
    let entries = vec![text(&channel, 2, "bob"), removed(&channel, 3, "cyd"), text(&channel, 4, "bob")];
    deployment.store(&mut channel, entries).await;
    let entries = vec![removed(&alone, 2, "cyd"), text(&alone, 3, "zoe")];
    deployment.store(&mut alone, entries).await;
    for _ in 0..2 {
        deployment.repair().await;
    }
    assert_eq!(frames(&ada), ["message 2", "message 3", "message 4"]);
    let mut seen = frames(&cyd);
    // The two channels in any order, each in its own.
    seen.sort();
    assert_eq!(seen, ["message 2", "message 2", "message 3"]);
    assert!(cyd.session.rooms().is_empty());
    for (channel, seq) in [(&channel, 5), (&alone, 4)] {
        hears_live(&deployment, &text(channel, seq, "bob"));
    }
    assert_eq!(frames(&ada), ["message 5"]);
    assert!(frames(&cyd).is_empty());
    // Rooms are kept for nobody who is gone.
    assert!(deployment.gateway.rooms.get(alone.id).unwrap().idle_since().is_some());
    assert!(deployment.gateway.rooms.get(channel.id).unwrap().known().is_some());
}

/// Several users of each room are repaired at the same time, of whom one was sent away and brought back.
#[tokio::test]
async fn who_was_removed_and_added_again_is_in_it() {
    let deployment = Deployment::new().await;
    let mut channels = Vec::new();
    for _ in 0..4 {
        channels.push(deployment.group(&["ada", "bob", "cyd", "dan"]).await);
    }
    let mut sessions = Vec::new();
    for name in ["ada", "bob", "cyd", "dan"] {
        sessions.push(deployment.connect(name).await);
    }
    for (channel, name) in channels.iter_mut().zip(["ada", "bob", "cyd", "dan"]) {
        let entries = vec![removed(channel, 2, name), text(channel, 3, "bob"), added(channel, 4, name)];
        deployment.store(channel, entries).await;
    }
    deployment.repair().await;
    for (session, name) in sessions.iter().zip(["ada", "bob", "cyd", "dan"]) {
        assert_eq!(session.session.rooms().len(), 4, "{name}");
        let seen = frames(session);
        let count = |what: &str| seen.iter().filter(|frame| *frame == what).count();
        // The removed one is told of its end, and of its new beginning; the others of everything.
        assert_eq!([count("message 2"), count("message 4"), count("channel_created 4")], [4, 3, 1], "{name}: {seen:?}");
    }
    for channel in &channels {
        hears_live(&deployment, &text(channel, 5, "bob"));
    }
    for session in &sessions {
        assert_eq!(frames(session), ["message 5"; 4]);
    }
}

/// The list for its welcome was read before it was added.
#[tokio::test]
async fn a_session_that_is_connecting_gets_what_it_was_added_to() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada"]).await;
    let connected = deployment.connect("cyd").await;
    let session = Arc::new(Session::new(
        connected.session.identity.clone(),
        Encoding::Json,
        &deployment.gateway.config().session,
    ));
    assert!(deployment.gateway.sessions.add(&session, 10));
    let entries = vec![added(&channel, 2, "cyd"), text(&channel, 3, "ada")];
    deployment.store(&mut channel, entries).await;
    deployment.repair().await;
    assert_eq!(frames(&connected), ["channel_created 3"]);
    let joined = session.next_joined().unwrap();
    assert_eq!(joined.len(), 1);
    for (info, joined_seq) in joined {
        deployment.gateway.enter(&session, &info, joined_seq, None);
    }
    assert!(session.next_joined().is_none());
    hears_live(&deployment, &text(&channel, 4, "ada"));
    let guard =
        Connected { gateway: Arc::clone(&deployment.gateway), session, welcome: Frame::Pong { reference: None } };
    assert_eq!(frames(&guard), ["channel_created 3", "message 4"]);
}

#[tokio::test]
async fn a_gateway_that_is_told_so_repairs_by_itself() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada", "bob"]).await;
    let ada = deployment.connect("ada").await;
    let repairing = tokio::spawn(Arc::clone(&deployment.gateway).repair_when_asked());
    let _repairing = AbortOnDropHandle::new(repairing);
    let mut seen = Vec::new();
    for seq in 2..=6 {
        let entries = vec![text(&channel, seq, "bob")];
        deployment.store(&mut channel, entries).await;
        for _ in 0..seq {
            deployment.gateway.missed();
        }
        let comes = async {
            while seen.len() < seq as usize - 1 {
                seen.extend(frames(&ada));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, comes).await.unwrap();
    }
    assert_eq!(seen, ["message 2", "message 3", "message 4", "message 5", "message 6"]);
}
