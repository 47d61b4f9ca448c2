//! Single steps of a message's way, each by itself: `cargo bench --bench micro`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

mod fanout;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use aula::message::{ChannelId, Kind, Message, Millis, Username};
use aula::server::sqlite::migrate::{Mode, ensure};
use aula::server::sqlite::{Admission, Database, FILE_NAME, Options};
use aula::websocket::{Item, Opcode, Reader, Role, Violation, frame, put_masked};
use aula::wire::codec::{to_json, to_msgpack};
use aula::wire::{Frame, Request, decode_json, decode_msgpack};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use uuid::Uuid;

const BODY: &str =
    "It has 100 bytes, as in the other benchmarks, and reads like something that a person could say: \u{1f44b}";
/// Of SQLite's writer, in one transaction.
const GROUPS: [u64; 3] = [1, 32, 1_000];

fn decode(criterion: &mut Criterion) {
    let send = json!({"op": "send", "ref": 41, "channel": ChannelId::new_group(), "client_id": Uuid::now_v7(), "kind": "text", "body": BODY});
    let as_json = send.to_string().into_bytes();
    let as_msgpack = rmp_serde::to_vec_named(&send).unwrap();
    for incoming in [decode_json(&as_json), decode_msgpack(&as_msgpack)] {
        assert!(matches!(incoming.unwrap().request, Ok(Request::Send(send)) if send.body == BODY));
    }

    let mut group = criterion.benchmark_group("decode a send");
    group.bench_function("JSON", |bencher| bencher.iter(|| decode_json(black_box(&as_json)).unwrap()));
    group.bench_function("MessagePack", |bencher| bencher.iter(|| decode_msgpack(black_box(&as_msgpack)).unwrap()));
    let mut masked = Vec::new();
    put_masked(&mut masked, Opcode::Text, &as_json, [1, 2, 3, 4]);
    let mut reader = Reader::new(Role::Server, 64 << 10);
    group.bench_function("the WebSocket frame alone", |bencher| {
        bencher.iter_batched_ref(
            || masked.clone(),
            |bytes| {
                let each = |item: Item<'_>| {
                    black_box(item);
                    Ok::<_, Violation>(())
                };
                reader.read(bytes, each).unwrap();
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let message = Frame::Message(Arc::new(Message {
        channel: ChannelId::new_group(),
        seq: 1_234_567,
        id: Uuid::now_v7(),
        sender: Username::new("ada").unwrap(),
        client_id: Uuid::now_v7(),
        kind: Kind::Text,
        body: BODY.to_owned(),
        at: Millis::now(),
    }));
    let mut group = criterion.benchmark_group("encode a message for a room");
    group.bench_function("JSON", |bencher| {
        bencher.iter(|| frame(Opcode::Text, to_json(black_box(&message)).unwrap().as_bytes()));
    });
    group.bench_function("MessagePack", |bencher| {
        bencher.iter(|| frame(Opcode::Binary, &to_msgpack(black_box(&message)).unwrap()));
    });
    group.finish();
}

/// From the first of some writes that are submitted together until the last has been synced to the disk.
fn group_commit(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    ensure(&path, Mode::ApplyPending).unwrap();
    let database = Database::open(&path, &Options::default()).unwrap();
    let mut group = criterion.benchmark_group("group commit of task rows");
    group.sample_size(20).measurement_time(Duration::from_secs(4));
    for writes in GROUPS {
        group.throughput(Throughput::Elements(writes));
        group.bench_with_input(BenchmarkId::from_parameter(writes), &writes, |bencher, &writes| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| commit(&database, writes)).sum());
        });
    }
    group.finish();
}

fn commit(database: &Database, writes: u64) -> Duration {
    let (done, outcomes) = channel();
    let began = Instant::now();
    for _ in 0..writes {
        let done = done.clone();
        let write = |connection: &rusqlite::Connection| {
            connection
                .prepare_cached("INSERT INTO tasks (family, shard, payload, enqueued_at) VALUES ('bench', 0, ?1, 0)")?
                .execute([BODY.as_bytes()])
        };
        database.submit(Admission::Internal, write, move |outcome| done.send(outcome).unwrap()).unwrap();
    }
    for _ in 0..writes {
        assert_eq!(outcomes.recv().unwrap(), Ok(1));
    }
    began.elapsed()
}

criterion_group!(steps, decode, encode, fanout::fan_out, group_commit);
criterion_main!(steps);
