//! A gateway that no event reaches but those that a test hands it, on a store that a test can hold up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Connected, Gateway};
use crate::config::Config;
use crate::message::{Change, ChannelId, ChannelKind, Message, Millis, Role, Seq, Username};
use crate::server::auth::testing;
use crate::server::events::{Event, EventSink as _};
use crate::server::queue::{SqliteQueue, SqliteQueueOptions};
use crate::server::search::Fts5Search;
use crate::server::sqlite::holder::Holder;
use crate::server::sqlite::testing::TempDatabase;
use crate::server::store::testing::{Owned, change, message};
use crate::server::store::{ChannelBatch, ChannelState, Earlier, Membership, Page, SqliteStore, Store, StoreError};
use crate::websocket::{self, Item, Reader, Violation};
use crate::wire::Encoding;
use crate::wire::frame::Welcome;

pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Deployment {
    pub gateway: Arc<Gateway>,
    pub store: Arc<Held>,
    _database: TempDatabase,
    _accounts: TempDir,
}

pub fn user(name: &str) -> Username {
    Username::new(name).unwrap()
}

impl Deployment {
    pub async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub async fn with(config: Config) -> Self {
        let database = TempDatabase::new();
        let data_dir = database.directory().to_owned();
        let holder = Arc::new(Holder::register(&data_dir, "test").unwrap());
        let options = SqliteQueueOptions { data_dir, shards: 1, max_depth: 1000, lease: PATIENCE, hand_over: false };
        let queue = SqliteQueue::open(database.database(), options, holder).await.unwrap();
        let store = Arc::new(Held::new(SqliteStore::new(database.database(), PATIENCE)));
        let search = Fts5Search::new(database.database(), PATIENCE, 100);
        let (auth, accounts) = testing::auth(|_| ());
        let stored: Arc<dyn Store> = store.clone();
        let gateway = Gateway::new(Arc::new(config), auth, Arc::new(queue), stored, Arc::new(search), None);
        Self { gateway, store, _database: database, _accounts: accounts }
    }

    /// A connection of somebody who has none yet.
    pub async fn connect(&self, name: &str) -> Connected {
        self.connect_welcomed(name).await.0
    }

    /// The same, with what it is told first.
    pub async fn connect_welcomed(&self, name: &str) -> (Connected, Box<Welcome>) {
        let accounts = self.gateway.auth().accounts();
        accounts.create_user(&user(name), "no password", Millis::now()).await.unwrap();
        let (_token, identity) = self.gateway.auth().mint(&user(name), Duration::from_secs(600)).await.unwrap();
        let Ok(connected) = self.gateway.connect(identity, Encoding::Json).await else { panic!("{name} is refused") };
        connected
    }

    /// Stores entries, and nobody is told.
    pub async fn store(&self, channel: &mut Owned, entries: Vec<Message>) {
        let batch = channel.batch(entries);
        self.store.append(Arc::new(batch)).await.unwrap();
    }

    pub async fn group(&self, members: &[&str]) -> Owned {
        let members: Vec<_> = members.iter().map(|name| user(name)).collect();
        let mut channel = Owned::new();
        let batch = channel.creation(&members.iter().collect::<Vec<_>>());
        self.store.append(Arc::new(batch)).await.unwrap();
        channel
    }

    pub async fn raise(&self, channel: &Owned, delivered: Seq, read: Seq) {
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

    /// What is said when the newest entry is stored and has added somebody.
    pub fn hears_joined(&self, channel: &Owned, name: &str) {
        let info = channel.state.info(channel.id);
        let joined_seq = info.last_seq;
        self.gateway.deliver(Event::Joined { channel: info, joined: vec![user(name)], joined_seq, origin: None });
    }
}

pub fn text(channel: &Owned, seq: Seq, sender: &str) -> Message {
    message(channel.id, seq, &user(sender))
}

pub fn added(channel: &Owned, seq: Seq, name: &str) -> Message {
    change(channel.id, seq, &user("ada"), Change::Added { members: vec![user(name)] })
}

pub fn removed(channel: &Owned, seq: Seq, name: &str) -> Message {
    change(channel.id, seq, &user("ada"), Change::Removed { members: vec![user(name)] })
}

/// What a session was sent since the last time, in short: what it is, and of which seq.
pub fn frames(connected: &Connected) -> Vec<String> {
    let (frames, closing) = connected.session.outbox.take();
    assert!(closing.is_none(), "it is being closed");
    let mut short = Vec::new();
    let mut reader = Reader::new(websocket::Role::Client, usize::MAX);
    let read = reader.read(&mut frames.concat(), |item| {
        let Item::Text(text) = item else { panic!("{item:?}") };
        let frame: Value = serde_json::from_str(text).unwrap();
        let op = if frame["op"] == "status" { &frame["status"] } else { &frame["op"] };
        let seq = [&frame["seq"], &frame["channel"]["last_seq"], &frame["last_seq"]];
        let seq = seq.into_iter().find(|seq| seq.is_u64()).unwrap_or(&json!(null)).clone();
        short.push(format!("{} {seq}", op.as_str().unwrap()));
        Ok::<_, Violation>(())
    });
    read.unwrap();
    short
}

pub fn hears_live(deployment: &Deployment, message: &Message) {
    deployment.gateway.deliver(Event::Message(Arc::new(message.clone())));
}

/// A store whose answers wait for the test, or don't come at all.
pub struct Held {
    store: SqliteStore,
    /// Whose next list is read, and then held until `go_on`.
    holds_list_of: Mutex<Option<Username>>,
    list_is_read: Notify,
    go_on: Notify,
    /// Whose channels can't be read.
    unreadable: Mutex<Option<Username>>,
    /// Pages of logs fail.
    pub fails: AtomicBool,
    /// Pages of logs that were read, that are read now, and at most at a time.
    pub pages: AtomicUsize,
    now: AtomicUsize,
    pub most: AtomicUsize,
    /// How long such a read takes.
    pub delay: Mutex<Duration>,
}

impl Held {
    fn new(store: SqliteStore) -> Self {
        Self {
            store,
            holds_list_of: Mutex::default(),
            list_is_read: Notify::new(),
            go_on: Notify::new(),
            unreadable: Mutex::default(),
            fails: AtomicBool::new(false),
            pages: AtomicUsize::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            delay: Mutex::default(),
        }
    }

    pub fn hold_next_list_of(&self, name: &str) {
        *self.holds_list_of.lock() = Some(user(name));
    }

    /// Until it is read.
    pub async fn list_is_read(&self) {
        self.list_is_read.notified().await;
    }

    pub fn give_list(&self) {
        self.go_on.notify_one();
    }

    pub fn break_lists_of(&self, name: Option<&str>) {
        *self.unreadable.lock() = name.map(user);
    }
}

#[async_trait]
impl Store for Held {
    async fn channel(&self, id: ChannelId) -> Result<Option<ChannelState>, StoreError> {
        self.store.channel(id).await
    }

    async fn append(&self, batch: Arc<ChannelBatch>) -> Result<(), StoreError> {
        self.store.append(batch).await
    }

    async fn find_sends(
        &self,
        id: ChannelId,
        sends: Vec<(Username, Uuid)>,
    ) -> Result<Vec<Option<Earlier>>, StoreError> {
        self.store.find_sends(id, sends).await
    }

    async fn messages(&self, id: ChannelId, page: Page, limit: usize) -> Result<Vec<Message>, StoreError> {
        self.pages.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let delay = *self.delay.lock();
        tokio::time::sleep(delay).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("as the test wants it".into()));
        }
        self.store.messages(id, page, limit).await
    }

    async fn role(&self, id: ChannelId, user: &Username) -> Result<Option<(ChannelKind, Role)>, StoreError> {
        self.store.role(id, user).await
    }

    async fn channels_of(&self, user: &Username, offset: usize, limit: usize) -> Result<Vec<Membership>, StoreError> {
        if self.unreadable.lock().as_ref() == Some(user) {
            return Err(StoreError::Unavailable("a row can't be read".into()));
        }
        let list = self.store.channels_of(user, offset, limit).await;
        let is_held = self.holds_list_of.lock().take_if(|held| held == user).is_some();
        if is_held {
            self.list_is_read.notify_one();
            self.go_on.notified().await;
        }
        list
    }

    async fn memberships(&self, user: &Username) -> Result<Vec<ChannelId>, StoreError> {
        self.store.memberships(user).await
    }

    async fn channel_counts(&self, users: Vec<Username>) -> Result<Vec<usize>, StoreError> {
        self.store.channel_counts(users).await
    }
}
