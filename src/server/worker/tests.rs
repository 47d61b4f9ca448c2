//! The whole worker on the embedded backends, aborted and killed in the middle of its work and run again.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::*;
use crate::message::{Change, ChannelId, ChannelKind, Kind, Message, Millis, Seq, Username};
use crate::server::events::{BusError, Event};
use crate::server::queue::{
    ChangeTask, CreateTask, Origin, ReceiptsTask, SendTask, SqliteQueue, SqliteQueueOptions, Task, enqueue_confirmed,
};
use crate::server::search::{Fts5Search, Query};
use crate::server::sqlite::holder::Holder;
use crate::server::sqlite::testing::TempDatabase;
use crate::server::store::{Page, SqliteStore};

const SHARDS: u16 = 2;
const SENDS: usize = 240;
const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps all that was published; refuses some of it at first.
#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<Event>>,
    calls: std::sync::atomic::AtomicU64,
}

#[async_trait]
impl EventBus for Recorder {
    async fn publish(&self, events: Vec<Event>) -> Result<(), BusError> {
        let call = self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // An error may come after some of the events have gone out.
        let (until, outcome) = match call % 17 {
            16 => (events.len() / 2, Err(BusError("not now".into()))),
            _ => (events.len(), Ok(())),
        };
        self.events.lock().extend(events.into_iter().take(until));
        outcome
    }
}

/// A process with its workers.
struct Process {
    database: TempDatabase,
    stages: Stages,
    workers: JoinSet<()>,
    stop: CancellationToken,
}

fn lanes() -> impl Iterator<Item = Lane> {
    let of_db = (0..SHARDS).map(|shard| Lane { family: Family::DbTasks, shard });
    of_db.chain([Lane { family: Family::IndexTasks, shard: 0 }])
}

impl Process {
    async fn start(database: TempDatabase, bus: Arc<Recorder>, hand_over: bool) -> Self {
        let data_dir = database.directory().to_owned();
        let holder = Arc::new(Holder::register(&data_dir, "test").unwrap());
        let options = SqliteQueueOptions {
            data_dir,
            shards: SHARDS,
            max_depth: 100_000,
            lease: Duration::from_secs(60),
            hand_over,
        };
        let queue = SqliteQueue::open(database.database(), options, holder).await.unwrap();
        let index = Fts5Search::new(database.database(), PATIENCE, 100_000);
        index.index_the_missed().await.unwrap();
        let stages = Stages {
            queue: Arc::new(queue),
            store: Arc::new(SqliteStore::new(database.database(), std::time::Duration::from_secs(60))),
            index: Arc::new(index),
            bus,
            answers: None,
        };
        let mut process = Self { database, stages, workers: JoinSet::new(), stop: CancellationToken::new() };
        process.work();
        process
    }

    fn work(&mut self) {
        // Small, so that every bound is met.
        let options = WorkerOptions {
            prefetch: 16,
            max_members: 10,
            max_receipt_members: 5,
            dedup_window: 64,
            cached_channels: 2,
        };
        for lane in lanes() {
            self.workers.spawn(run(lane, self.stages.clone(), options.clone(), self.stop.clone()));
        }
    }

    /// At an arbitrary point of each of them.
    async fn abort(&mut self) {
        self.workers.abort_all();
        while self.workers.join_next().await.is_some() {}
    }

    async fn after_kill(mut self) -> TempDatabase {
        self.abort().await;
        // What was on its way to the disk has come there: a copy taken during a write is no file at all.
        self.database.database().write(|_| Ok(())).await.unwrap();
        self.database.after_kill()
    }

    async fn until_all_is_done(&self) {
        let done = async {
            while self.stages.queue.stats().await.unwrap().iter().any(|lane| lane.depth > 0) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, done).await.unwrap();
    }
}

fn user(name: &str) -> Username {
    Username::new(name).unwrap()
}

fn origin() -> Origin {
    Origin { session: Uuid::nil(), reference: None }
}

/// What clients ask for, in order, with repeats; every third send is repeated later on.
fn tasks(channels: &[ChannelId]) -> Vec<Task> {
    let create = |channel: &ChannelId| {
        let members = ["ada", "bob", "cyd"].map(user).to_vec();
        let (id, kind, at) = (Uuid::new_v4(), ChannelKind::Group, Millis(0));
        Task::Create(CreateTask { channel: *channel, id, kind, name: None, members, at, origin: origin() })
    };
    let mut tasks: Vec<Task> = channels.iter().map(create).collect();
    for n in 0..SENDS {
        let channel = channels[n % channels.len()];
        let send = |number: usize, retry| {
            Task::Send(SendTask {
                channel: channels[number % channels.len()],
                id: Uuid::new_v4(),
                sender: user(["ada", "bob"][number % 2]),
                client_id: Uuid::from_u128(number as u128),
                kind: Kind::Text,
                body: format!("word {number}"),
                at: Millis(number as i64),
                retry,
            })
        };
        tasks.push(send(n, false));
        if n % 3 == 0 {
            tasks.push(send(n - n.min(9 * (n % 4)), true));
        }
        if n % 8 == 0 {
            let (id, at, by) = (Uuid::new_v4(), Millis(0), user("ada"));
            let (add, remove) = match n / 8 / channels.len() % 2 {
                0 => (Vec::new(), vec![user("cyd")]),
                _ => (vec![user("cyd"), user("dan")], Vec::new()),
            };
            tasks.push(Task::Change(ChangeTask { channel, id, by, add, remove, at, origin: origin() }));
        }
        if n % 5 == 0 {
            let marks = vec![(user("bob"), n as Seq / 8, n as Seq / 16), (user("ada"), n as Seq / 8, 0)];
            tasks.push(Task::Receipts(ReceiptsTask { channel, marks }));
        }
    }
    tasks
}

async fn enqueue(process: &Process, tasks: &[Task]) {
    for task in tasks {
        let lane = Lane { family: Family::DbTasks, shard: task.partition_key().unwrap().shard(SHARDS) };
        enqueue_confirmed(&*process.stages.queue, lane, task.encode().unwrap()).await.unwrap();
    }
}

/// Asks for all of them at once. Which of them were confirmed, in order, within `time`.
async fn ask_for(stages: &Stages, tasks: &[Task], time: Duration) -> Vec<bool> {
    let confirmed = Mutex::new(vec![false; tasks.len()]);
    let ask = async |(index, task): (usize, &Task)| {
        let lane = Lane { family: Family::DbTasks, shard: task.partition_key().unwrap().shard(SHARDS) };
        let outcome = enqueue_confirmed(&*stages.queue, lane, task.encode().unwrap()).await;
        confirmed.lock()[index] = outcome.is_ok();
    };
    let all = futures_util::future::join_all(tasks.iter().enumerate().map(ask));
    // The others get no answer.
    drop(tokio::time::timeout(time, all).await);
    confirmed.into_inner()
}

/// The same request again, as its client makes it.
fn again(task: &Task) -> Task {
    match task.clone() {
        Task::Send(send) => Task::Send(SendTask { id: Uuid::new_v4(), retry: true, ..send }),
        Task::Create(create) => Task::Create(CreateTask { id: Uuid::new_v4(), ..create }),
        Task::Change(change) => Task::Change(ChangeTask { id: Uuid::new_v4(), ..change }),
        other => other,
    }
}

async fn log(process: &Process, channel: ChannelId) -> Vec<Message> {
    process.stages.store.messages(channel, Page::After(0), 10_000).await.unwrap()
}

/// Each accepted send is in the log exactly once, in the order in which it was accepted first.
async fn check_logs(process: &Process, channels: &[ChannelId]) {
    for (index, channel) in channels.iter().enumerate() {
        let log = log(process, *channel).await;
        assert!(log.iter().map(|entry| entry.seq).eq(1..=log.len() as Seq), "dense");
        let sent: Vec<String> =
            log.iter().filter(|entry| entry.kind == Kind::Text).map(|entry| entry.body.clone()).collect();
        let expected: Vec<String> =
            (0..SENDS).filter(|n| n % channels.len() == index).map(|n| format!("word {n}")).collect();
        assert_eq!(sent, expected);

        let mut members = BTreeMap::new();
        for entry in &log {
            match Change::of(entry) {
                Some(Change::Created { members: joined } | Change::Added { members: joined }) => {
                    members.extend(joined.into_iter().map(|user| (user, entry.seq)));
                }
                Some(Change::Removed { members: left }) => members.retain(|user, _| !left.contains(user)),
                None => {}
            }
        }
        let state = process.stages.store.channel(*channel).await.unwrap().unwrap();
        let stored: BTreeMap<_, _> = state.members.into_iter().map(|(user, m)| (user, m.joined_seq)).collect();
        assert_eq!(stored, members);
    }
}

/// What was published is what is stored; every send was told its seq, unless that died in memory; watermarks rose.
async fn check_events(process: &Process, channels: &[ChannelId], events: &[Event], all_was_said: bool) {
    let mut logs = HashMap::new();
    for channel in channels {
        logs.insert(*channel, log(process, *channel).await);
    }
    let mut told = HashMap::new();
    for event in events {
        match event {
            Event::Message(message) | Event::Stored(message) => {
                if matches!(event, Event::Stored(_)) {
                    told.insert((message.channel, message.seq), ());
                }
                assert_eq!(logs[&message.channel].get(message.seq as usize - 1), Some(&**message));
            }
            Event::Persisted { channel, seq, sender, client_id } => {
                let entry = &logs[channel][*seq as usize - 1];
                assert_eq!((&entry.sender, entry.client_id), (sender, *client_id));
                told.insert((*channel, *seq), ());
            }
            Event::Rejected { .. } | Event::Refused { .. } | Event::Typing { .. } | Event::Purged { .. } => {
                panic!("{event:?}")
            }
            Event::Watermarks { channel, delivered, read } => {
                assert!(delivered.max(read) <= &Some(logs[channel].len() as Seq));
            }
            Event::Joined { .. } | Event::MembersChanged { .. } => {}
        }
    }
    for (channel, log) in logs.iter().filter(|_| all_was_said) {
        for entry in log.iter().filter(|entry| entry.kind == Kind::Text) {
            assert!(told.contains_key(&(*channel, entry.seq)), "{} was never told", entry.body);
            let is_it = |event: &Event| matches!(event, Event::Message(message) | Event::Stored(message) if **message == *entry);
            assert!(events.iter().any(is_it));
        }
    }
}

async fn check_search(process: &Process) {
    let all_is_found = async {
        while found(process).await < SENDS {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_is_found).await.expect("all is indexed");
    assert_eq!(found(process).await, SENDS, "and once");
}

async fn found(process: &Process) -> usize {
    let text = "word".to_owned();
    let query = Query {
        text,
        channel: None,
        from: None,
        before: None,
        after: None,
        limit: 10_000,
        cursor: None,
        facets: false,
    };
    let page = process.stages.index.search(&user("bob"), query).await.unwrap();
    assert_eq!(page.hits.len() as u64, page.total);
    page.hits.len()
}

async fn check(process: &Process, channels: &[ChannelId], recorder: &Recorder, all_was_said: bool) {
    process.until_all_is_done().await;
    check_logs(process, channels).await;
    let events = recorder.events.lock().clone();
    check_events(process, channels, &events, all_was_said).await;
    check_search(process).await;
    let stats = process.stages.queue.stats().await.unwrap();
    assert!(stats.iter().all(|lane| lane.dead_letters == 0), "{stats:?}");
}

fn channels() -> Vec<ChannelId> {
    (0..5).map(|_| ChannelId::new_group()).collect()
}

#[tokio::test]
async fn all_tasks_are_worked_on() {
    let (channels, recorder) = (channels(), Arc::new(Recorder::default()));
    let mut process = Process::start(TempDatabase::new(), Arc::clone(&recorder), false).await;
    enqueue(&process, &tasks(&channels)).await;
    check(&process, &channels, &recorder, true).await;
    // Asked to stop, they all end by themselves.
    process.stop.cancel();
    let ended = async { while process.workers.join_next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_may_be_aborted_at_any_point() {
    let (channels, recorder) = (channels(), Arc::new(Recorder::default()));
    let mut process = Process::start(TempDatabase::new(), Arc::clone(&recorder), false).await;
    let tasks = tasks(&channels);
    for (round, some) in tasks.chunks(12).enumerate() {
        enqueue(&process, some).await;
        tokio::time::sleep(Duration::from_micros(round as u64 * 700 % 9_000)).await;
        process.abort().await;
        process.work();
    }
    check(&process, &channels, &recorder, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_may_be_killed_at_any_point() {
    let (channels, recorder) = (channels(), Arc::new(Recorder::default()));
    let mut process = Process::start(TempDatabase::new(), Arc::clone(&recorder), false).await;
    let tasks = tasks(&channels);
    for (round, some) in tasks.chunks(25).enumerate() {
        enqueue(&process, some).await;
        tokio::time::sleep(Duration::from_micros(round as u64 * 1300 % 17_000)).await;
        process = Process::start(process.after_kill().await, Arc::clone(&recorder), false).await;
    }
    check(&process, &channels, &recorder, true).await;
}

#[tokio::test]
async fn what_is_handed_over_is_worked_on_at_once_and_to_the_end() {
    let (channels, recorder) = (channels(), Arc::new(Recorder::default()));
    let mut process = Process::start(TempDatabase::new(), Arc::clone(&recorder), true).await;
    let tasks = tasks(&channels);
    let (some, rest) = tasks.split_at(tasks.len() - 10);
    assert!(ask_for(&process.stages, some, PATIENCE).await.into_iter().all(|confirmed| confirmed));
    process.until_all_is_done().await;
    // Asked to stop, they work on what nobody else could.
    let stages = process.stages.clone();
    let asked = async { ask_for(&stages, rest, PATIENCE).await };
    let stopped = async {
        tokio::task::yield_now().await;
        process.stop.cancel();
        while process.workers.join_next().await.is_some() {}
    };
    let (confirmed, ()) = tokio::join!(asked, stopped);
    assert!(confirmed.into_iter().all(|confirmed| confirmed));
    process.stop = CancellationToken::new();
    process.work();
    check(&process, &channels, &recorder, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_handed_over_and_confirmed_survives_a_kill() {
    let (channels, recorder) = (channels(), Arc::new(Recorder::default()));
    let mut process = Process::start(TempDatabase::new(), Arc::clone(&recorder), true).await;
    let mut left = tasks(&channels);
    let mut kills = 0;
    while !left.is_empty() {
        let time = Duration::from_micros(3_000 + kills * 1_300 % 23_000);
        let asked = left.len().min(25);
        let confirmed = ask_for(&process.stages, &left[..asked], time).await;
        process = Process::start(process.after_kill().await, Arc::clone(&recorder), true).await;
        kills += 1;
        assert!(kills < 1_000, "nothing is ever confirmed");
        // What has no answer is asked for again, the oldest first, before anything new.
        let unanswered = (0..asked).filter(|index| !confirmed[*index]).map(|index| again(&left[index]));
        left = unanswered.chain(left[asked..].iter().cloned()).collect();
    }
    check(&process, &channels, &recorder, false).await;
}

#[tokio::test]
async fn what_is_no_task_goes_to_the_dead_letters() {
    let (channels, recorder) = (channels(), Arc::new(Recorder::default()));
    let process = Process::start(TempDatabase::new(), Arc::clone(&recorder), false).await;
    let tasks = tasks(&channels);
    for lane in lanes() {
        for bytes in [&b""[..], &[9, 9], &[1, 0xc1]] {
            enqueue_confirmed(&*process.stages.queue, lane, bytes.to_vec().into()).await.unwrap();
        }
    }
    // A task of another family, too.
    let index = Lane { family: Family::IndexTasks, shard: 0 };
    enqueue_confirmed(&*process.stages.queue, index, tasks[0].encode().unwrap()).await.unwrap();
    enqueue(&process, &tasks).await;
    process.until_all_is_done().await;
    check_logs(&process, &channels).await;
    check_search(&process).await;
    let dead: Vec<u64> =
        process.stages.queue.stats().await.unwrap().into_iter().map(|lane| lane.dead_letters).collect();
    assert_eq!(dead, [3, 3, 4]);
}
