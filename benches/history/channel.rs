//! A channel of two members and so many messages, in a data directory that no server uses yet.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use aula::message::{Change, ChannelId, ChannelKind, Kind, Message, Millis, Role, Seq, Username};
use aula::ops::simulate::engine::clock;
use aula::oracle::Recorder;
use aula::oracle::frame::{Received, Send, Sent, Status};
use aula::server::sqlite::migrate::{Mode, ensure};
use aula::server::sqlite::{Database, FILE_NAME, Options};
use aula::server::store::{ChannelBatch, Member, NewChannel, SqliteStore, Store as _};
use uuid::Uuid;

use crate::load::BODY_BYTES;

pub const READER: &str = "reader";
pub const WRITER: &str = "writer";
/// Messages stored at a time.
const BATCH: Seq = 5_000;

/// Makes the file, and in it a channel whose last seq is `size`. What is stored is noted as sent, accepted and persisted, where
/// somebody wants to know.
pub async fn fill(data_dir: &Path, size: u64, mut noted: Option<&mut Recorder>) -> ChannelId {
    std::fs::create_dir_all(data_dir).unwrap();
    let path = data_dir.join(FILE_NAME);
    ensure(&path, Mode::ApplyPending).unwrap();
    let store = open(data_dir);
    let began = Instant::now();
    let channel = ChannelId::new_group();
    store.append(Arc::new(creation(channel))).await.unwrap();
    let body = "x".repeat(BODY_BYTES);
    let sender = Username::new(WRITER).unwrap();
    let mut head = 1;
    while head < size {
        let last = size.min(head + BATCH);
        let entry = |seq| {
            let (id, client_id) = (Uuid::now_v7(), Uuid::now_v7());
            let (sender, body, at) = (sender.clone(), body.clone(), Millis::now());
            Arc::new(Message { channel, seq, id, sender, client_id, kind: Kind::Text, body, at })
        };
        let entries: Vec<Arc<Message>> = (head + 1..=last).map(entry).collect();
        if let Some(recorder) = noted.as_deref_mut() {
            note(recorder, &entries);
        }
        store.append(Arc::new(ChannelBatch { entries, ..empty(channel) })).await.unwrap();
        head = last;
    }
    eprintln!("{size} messages stored in {:.1} s", began.elapsed().as_secs_f64());
    channel
}

pub fn open(data_dir: &Path) -> SqliteStore {
    let database = Database::open(&data_dir.join(FILE_NAME), &Options::default()).unwrap();
    SqliteStore::new(database, aula::config::Config::default().queue.dedup_ttl)
}

/// As if each batch had been sent on a connection of its own.
fn note(recorder: &mut Recorder, entries: &[Arc<Message>]) {
    let user = recorder.user(WRITER);
    let connection = recorder.open(user, clock::now());
    for entry in entries {
        let Message { channel, seq, client_id, ref body, .. } = **entry;
        let reference = seq;
        let sent = Sent::Send(Send { reference, channel, client_id, body: body.into() });
        recorder.sent(connection, clock::now(), &sent);
        recorder.received(connection, clock::now(), &Received::Accepted { reference });
        let persisted = Status::Persisted { channel, client_id, seq };
        recorder.received(connection, clock::now(), &Received::Status(persisted));
    }
    recorder.close(connection, clock::now());
}

fn creation(channel: ChannelId) -> ChannelBatch {
    let names = [WRITER, READER].map(|name| Username::new(name).unwrap());
    let created = Message {
        channel,
        seq: 1,
        id: Uuid::now_v7(),
        sender: names[0].clone(),
        client_id: Uuid::now_v7(),
        kind: Kind::System,
        body: Change::Created { members: names.to_vec() }.to_body(),
        at: Millis::now(),
    };
    let members = names.map(|name| (name, Member { role: Role::Owner, joined_seq: 1, delivered: 0, read: 0 }));
    ChannelBatch {
        create: Some(NewChannel { kind: ChannelKind::Group, name: Some("long".to_owned()) }),
        entries: vec![Arc::new(created)],
        members: members.to_vec(),
        ..empty(channel)
    }
}

fn empty(channel: ChannelId) -> ChannelBatch {
    ChannelBatch {
        channel,
        create: None,
        entries: Vec::new(),
        members: Vec::new(),
        departed: Vec::new(),
        delivered_by_all: 0,
        read_by_all: 0,
        refused: Vec::new(),
    }
}
