use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use aula::config::Config;
use aula::message::{Change, ChannelId, ChannelKind, Kind, Message, Millis, Role, Username};
use aula::server::auth::secret::{SigningKeys, keys_file};
use aula::server::auth::sqlite::SqliteAccounts;
use aula::server::auth::{Accounts, Auth, AuthOptions, Creation};
use aula::server::sqlite::migrate::{Mode, ensure};
use aula::server::sqlite::{Database, FILE_NAME, Options};
use aula::server::store::{ChannelBatch, Member, NewChannel, SqliteStore, Store as _};
use futures_util::StreamExt as _;
use uuid::Uuid;

use crate::cast::{Cast, Room};

/// Longer than any benchmark.
const TOKEN_TTL: Duration = Duration::from_secs(3600);
/// Writes on their way to the same few transactions.
const TOGETHER: usize = 512;
/// Nobody logs in: a real hash for each would take minutes.
const NO_PASSWORD: &str = "!";

/// Makes accounts, tokens and channels in a data directory before its server starts.
pub fn prepare(data_dir: &Path, cast: &mut Cast) -> Command {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(fill(data_dir, cast));
    let mut command = Command::new(env!("CARGO_BIN_EXE_aula"));
    command
        .arg("--data-dir")
        .arg(data_dir)
        .args(["serve", "--listen", "127.0.0.1:0"])
        // What one person may send; everything else is as it comes.
        .env("AULA_SESSION_REQUESTS_PER_SECOND", "1000000")
        .env("AULA_SESSION_REQUEST_BURST", "1000000")
        .env("AULA_LOG_LEVEL", "warn");
    command
}

async fn fill(data_dir: &Path, cast: &mut Cast) {
    let config = Config { data_dir: data_dir.to_owned(), ..Config::default() };
    let path = data_dir.join(FILE_NAME);
    ensure(&path, Mode::ApplyPending).unwrap();
    let database = Database::open(&path, &Options::default()).unwrap();
    let accounts: Arc<dyn Accounts> = Arc::new(SqliteAccounts::new(database.clone()));
    let keys = SigningKeys::open(&keys_file(&config)).unwrap();
    let auth = &Auth::new(accounts, keys, AuthOptions::default());
    let tokens = cast.people.iter().map(|person| async {
        let name = Username::new(&person.name).unwrap();
        let created = auth.accounts().create_user(&name, NO_PASSWORD, Millis::now()).await.unwrap();
        assert_eq!(created, Creation::Created);
        auth.mint(&name, TOKEN_TTL).await.unwrap().0
    });
    let tokens: Vec<String> = futures_util::stream::iter(tokens).buffered(TOGETHER).collect().await;

    let store = &SqliteStore::new(database, config.queue.dedup_ttl);
    let channels = cast.rooms.iter().map(|room| async {
        let batch = channel(cast, room);
        let id = batch.channel;
        store.append(Arc::new(batch)).await.unwrap();
        id
    });
    let channels: Vec<ChannelId> = futures_util::stream::iter(channels).buffered(TOGETHER).collect().await;

    for (person, token) in cast.people.iter_mut().zip(tokens) {
        person.credential = token;
    }
    for (room, id) in cast.rooms.iter_mut().zip(channels) {
        room.name = id.to_string();
    }
}

/// A new group with its first entry, as its owner would store it.
fn channel(cast: &Cast, room: &Room) -> ChannelBatch {
    let channel = ChannelId::new_group();
    let names: Vec<Username> =
        room.members.clone().map(|member| Username::new(&cast.people[member as usize].name).unwrap()).collect();
    let member = |index| {
        let role = if index == 0 { Role::Owner } else { Role::Member };
        Member { role, joined_seq: 1, delivered: 0, read: 0 }
    };
    let members = names.iter().enumerate().map(|(index, name)| (name.clone(), member(index))).collect();
    let sender = names[0].clone();
    let created = Message {
        channel,
        seq: 1,
        id: Uuid::now_v7(),
        sender,
        client_id: Uuid::now_v7(),
        kind: Kind::System,
        body: Change::Created { members: names }.to_body(),
        at: Millis::now(),
    };
    ChannelBatch {
        channel,
        create: Some(NewChannel { kind: ChannelKind::Group, name: Some(room.name.clone()) }),
        entries: vec![Arc::new(created)],
        members,
        departed: Vec::new(),
        delivered_by_all: 0,
        read_by_all: 0,
        refused: Vec::new(),
    }
}
