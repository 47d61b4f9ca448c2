//! From a message's event to the sockets of a room: encoded once, handed to each outbox. Beside it a bare loop that
//! only writes the same bytes, with one system call a socket.
//!
//! The gateway is a real one, with as many connected sessions as the room has members; their sockets are TCP connections
//! to this process, which reads them between the measurements.

use std::hint::black_box;
use std::io::Read as _;
use std::net::TcpListener as Listener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aula::config::Config;
use aula::message::{Change, ChannelId, ChannelKind, Kind, Message, Millis, Role, Seq, Username};
use aula::ops::simulate::resources::descriptors;
use aula::server::backends::{Backends, Part};
use aula::server::events::{Event, EventSink as _};
use aula::server::gateway::{Connected, Gateway, encode};
use aula::server::store::{ChannelBatch, Member, NewChannel};
use aula::wire::frame::Welcome;
use aula::wire::{Encoding, Frame};
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::BODY;

/// Members of a room, and messages in one go. The frames of a small room are handed over by the thread that has them;
/// those of a large one by a task, and what is said while that waits goes out together, up to 64 at a time.
const ROOMS: [(usize, usize); 3] = [(10, 1), (1_000, 1), (1_000, 64)];
/// A large room's rounds begin so far apart at least; after this, the next one begins at once.
const REST: Duration = Duration::from_millis(20);
/// Accounts on their way to the same few transactions.
const TOGETHER: usize = 256;

pub fn fan_out(criterion: &mut Criterion) {
    // Each member takes two.
    descriptors();
    for (members, messages) in ROOMS {
        let mut room = Room::new(members);
        let mut group = criterion.benchmark_group(format!("fan-out to {members}, {messages} at a time"));
        let deliveries = (members * messages) as u64;
        group.sample_size(20).measurement_time(Duration::from_secs(3)).throughput(Throughput::Elements(deliveries));
        group.bench_function("a bare loop of writes", |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| room.write_bare(messages)).sum());
        });
        group.bench_function("encode, hand to outboxes", |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| room.deliver(messages)).sum());
        });
        group.finish();
    }
}

/// A room whose members are all connected.
struct Room {
    runtime: Runtime,
    gateway: Arc<Gateway>,
    channel: ChannelId,
    head: Seq,
    sender: Username,
    members: Vec<Connected>,
    /// The members' sockets, as the sessions have them and as the clients do.
    sockets: Vec<(Arc<TcpStream>, std::net::TcpStream)>,
    frame: Bytes,
    // Removed at last.
    _folder: TempDir,
}

impl Room {
    fn new(count: usize) -> Self {
        // One thread: what a delivery begins is done before the next thing is.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data_dir: folder.path().to_owned(), ..Config::default() };
        let names: Vec<Username> = (0..count).map(|n| Username::new(&format!("member-{n}")).unwrap()).collect();
        let channel = ChannelId::new_group();
        let (gateway, connected) = runtime.block_on(connect(config, channel, &names));
        let open = |(member, welcome): (Connected, _)| (runtime.block_on(socket(&member, welcome)), member);
        let (sockets, members) = connected.into_iter().map(open).unzip();
        let frame = encode(&Frame::Message(Arc::new(text(channel, 2, &names[0]))), Encoding::Json);
        let sender = names[0].clone();
        let mut room = Self { runtime, gateway, channel, head: 1, sender, members, sockets, frame, _folder: folder };
        room.read_all(1);
        room
    }

    /// As events of the channel's owner; the time until the last member's socket has been written to.
    fn deliver(&mut self, messages: usize) -> Duration {
        self.rest();
        let next = self.head + 1..=self.head + messages as Seq;
        self.head = *next.end();
        let events = next.map(|seq| Event::Message(Arc::new(text(self.channel, seq, &self.sender))));
        let events: Vec<Event> = events.collect();
        let (gateway, members) = (&self.gateway, &self.members);
        let took = self.runtime.block_on(async {
            let began = Instant::now();
            events.into_iter().for_each(|event| gateway.deliver(event));
            // A large room's round is a task, which has its turn before this one comes back.
            tokio::task::yield_now().await;
            let took = began.elapsed();
            assert!(members.iter().all(|member| member.session.outbox.is_empty()));
            took
        });
        self.read_all(messages);
        took
    }

    /// One system call for each message and socket.
    fn write_bare(&mut self, messages: usize) -> Duration {
        self.rest();
        let took = self.runtime.block_on(async {
            let began = Instant::now();
            for _ in 0..messages {
                for (socket, _) in &self.sockets {
                    assert_eq!(socket.try_write(black_box(&self.frame)).unwrap(), self.frame.len());
                }
            }
            began.elapsed()
        });
        self.read_all(messages);
        took
    }

    fn rest(&self) {
        if self.members.len() > 64 {
            std::thread::sleep(REST);
        }
    }

    /// Each client has so many frames, and nothing else.
    fn read_all(&mut self, messages: usize) {
        let mut buffer = vec![0; 64 << 10];
        // Numbers in them differ in length.
        let least = messages * (self.frame.len() - 16);
        for (_, client) in &mut self.sockets {
            let mut length = 0;
            while length < least {
                length += client.read(&mut buffer).unwrap();
            }
        }
    }
}

/// A gateway, and a session of each member of a group.
async fn connect(
    config: Config,
    channel: ChannelId,
    names: &[Username],
) -> (Arc<Gateway>, Vec<(Connected, Box<Welcome>)>) {
    let backends = Backends::open(&config, Part::Whole).await.unwrap();
    let auth = backends.auth(&config, false).unwrap();
    backends.store.append(Arc::new(creation(channel, names))).await.unwrap();
    let gateway = Gateway::new(Arc::new(config), auth, backends.queue, backends.store, backends.search, None);
    let (auth, entered) = (gateway.auth(), &gateway);
    let members = names.iter().map(|name| async move {
        auth.accounts().create_user(name, "nobody logs in", Millis::now()).await.unwrap();
        let (_token, identity) = auth.mint(name, Duration::from_secs(3600)).await.unwrap();
        entered.connect(identity, Encoding::Json).await.map_err(|error| error.message)
    });
    let members = stream::iter(members).buffered(TOGETHER).try_collect().await.unwrap();
    (gateway, members)
}

/// Opens a session's way to a socket, as its connection does, and gives both ends.
async fn socket(connected: &Connected, welcome: Box<Welcome>) -> (Arc<TcpStream>, std::net::TcpStream) {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    server.set_nodelay(true).unwrap();
    let server = Arc::new(TcpStream::from_std(server).unwrap());
    server.writable().await.unwrap();
    let welcome = encode(&Frame::Welcome(welcome), Encoding::Json);
    let outbox = &connected.session.outbox;
    outbox.open(Arc::clone(&server), welcome);
    assert!(outbox.flush(1).unwrap());
    (server, client)
}

fn text(channel: ChannelId, seq: Seq, sender: &Username) -> Message {
    Message {
        channel,
        seq,
        id: Uuid::now_v7(),
        sender: sender.clone(),
        client_id: Uuid::now_v7(),
        kind: Kind::Text,
        body: BODY.to_owned(),
        at: Millis::now(),
    }
}

fn creation(channel: ChannelId, names: &[Username]) -> ChannelBatch {
    let body = Change::Created { members: names.to_vec() }.to_body();
    let created = Message { kind: Kind::System, body, ..text(channel, 1, &names[0]) };
    let member = Member { role: Role::Owner, joined_seq: 1, delivered: 0, read: 0 };
    ChannelBatch {
        channel,
        create: Some(NewChannel { kind: ChannelKind::Group, name: Some("a room".to_owned()) }),
        entries: vec![Arc::new(created)],
        members: names.iter().map(|name| (name.clone(), member.clone())).collect(),
        departed: Vec::new(),
        delivered_by_all: 0,
        read_by_all: 0,
        refused: Vec::new(),
    }
}
