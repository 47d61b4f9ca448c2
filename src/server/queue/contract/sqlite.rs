use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::super::{SqliteQueue, SqliteQueueOptions};
use super::*;
use crate::server::sqlite::holder::Holder;
use crate::server::sqlite::testing::TempDatabase;

pub struct Sqlite {
    /// Consumers of killed processes: they may not even give their lanes back, so they are kept.
    graveyard: Arc<Mutex<Vec<Box<dyn Consumer>>>>,
    database: TempDatabase,
}

pub struct SqliteProcess {
    queue: SqliteQueue,
    lock_file: std::path::PathBuf,
    graveyard: Arc<Mutex<Vec<Box<dyn Consumer>>>>,
}

const LEASE: Duration = Duration::from_millis(600);

#[async_trait]
impl Backend for Sqlite {
    type Process = SqliteProcess;

    const EXCESS: usize = 0;
    const TELLS_AGE: bool = true;

    async fn fresh() -> Self {
        Self { graveyard: Arc::default(), database: TempDatabase::new() }
    }

    async fn open(&self, settings: Settings) -> Result<SqliteProcess, QueueError> {
        let data_dir = self.database.directory().to_owned();
        let holder = Arc::new(Holder::register(&data_dir, "test").unwrap());
        let lock_file = data_dir.join("run").join(format!("{}.lock", holder.name()));
        let Settings { shards, max_depth } = settings;
        // Long for those tests in which a killed process must not be waited for.
        let lease = Duration::from_secs(3600);
        let options = SqliteQueueOptions { data_dir, shards, max_depth, lease, hand_over: false };
        let queue = SqliteQueue::open(self.database.open_again(), options, holder).await?;
        Ok(SqliteProcess { queue, lock_file, graveyard: Arc::clone(&self.graveyard) })
    }

    async fn after_kill(self) -> Self {
        Self { graveyard: Arc::default(), database: self.database.after_kill() }
    }
}

#[async_trait]
impl Process for SqliteProcess {
    fn queue(&self) -> Arc<dyn TaskQueue> {
        Arc::new(self.queue.clone())
    }

    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::new(self.queue.clone())
    }

    async fn kill(self, consumers: Vec<Box<dyn Consumer>>) {
        // To others, a process without its lock is dead; its rows stay as they are.
        std::fs::remove_file(&self.lock_file).unwrap();
        self.graveyard.lock().extend(consumers);
    }
}

/// A process with a runtime of its own: when nobody drives that, the process is alive and silent.
struct Stoppable {
    runtime: Runtime,
    queue: SqliteQueue,
}

impl Stoppable {
    fn start(database: &TempDatabase) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let data_dir = database.directory().to_owned();
        let holder = Arc::new(Holder::register(&data_dir, "test").unwrap());
        let options = SqliteQueueOptions { data_dir, shards: 1, max_depth: 100, lease: LEASE, hand_over: false };
        let queue = runtime.block_on(SqliteQueue::open(database.open_again(), options, holder)).unwrap();
        Self { runtime, queue }
    }

    fn drive(&self, time: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(time).await });
    }

    fn consume(&self, patience: Duration) -> Option<Box<dyn Consumer>> {
        let wait = async { timeout(patience, self.queue.consume(LANE, 2)).await };
        self.runtime.block_on(wait).ok().map(Result::unwrap)
    }
}

#[test]
fn a_lane_stays_with_a_process_that_renews_its_lease() {
    let database = TempDatabase::new();
    let (first, second) = (Stoppable::start(&database), Stoppable::start(&database));
    let consumer = first.consume(PATIENCE).unwrap();
    // Drives the first beside the second.
    let first = std::thread::spawn(move || {
        first.drive(LEASE * 3);
        drop(consumer);
    });
    assert!(second.consume(LEASE * 2).is_none());
    assert!(second.consume(PATIENCE).is_some());
    first.join().unwrap();
}

#[test]
fn a_lane_is_taken_from_a_process_that_has_gone_silent() {
    let database = TempDatabase::new();
    let (silent, next) = (Stoppable::start(&database), Stoppable::start(&database));
    let mut old = silent.consume(PATIENCE).unwrap();
    silent.runtime.block_on(async {
        enqueue_all(&silent.queue, LANE, numbered(0..3)).await;
        expect(&mut *old, numbered(0..2)).await;
    });

    assert!(next.consume(LEASE / 3).is_none(), "it may still renew it");
    let mut new = next.consume(PATIENCE).unwrap();
    next.runtime.block_on(async {
        let redelivered = expect(&mut *new, numbered(0..2)).await;
        assert!(redelivered.iter().all(|delivery| delivery.redelivered));
    });

    // The old one wakes up. Its prefetch is used up: it must be told all the same.
    silent.runtime.block_on(async {
        let lost = timeout(PATIENCE, old.next_batch(1)).await.unwrap();
        assert_eq!(lost.unwrap_err(), QueueError::LaneLost(LANE));
        old.acknowledge(&[1, 2]);
        assert_eq!(old.dead_letter(1, "late").await, Err(QueueError::LaneLost(LANE)));
        drop(old);
        let stats = stats_of(&silent.queue, LANE).await;
        assert_eq!((stats.depth, stats.dead_letters), (3, 0), "a lost lane is not its own to acknowledge");
        assert!(stats.consumer.is_some(), "nor to give back");
    });

    // And may have the lane again when its turn comes, while an old consumer of it still lies about.
    assert!(silent.consume(LEASE / 2).is_none());
    next.runtime.block_on(async {
        new.acknowledge(&[1, 2]);
        expect(&mut *new, numbered(2..3)).await;
        drop(new);
        until_depth(&next.queue, LANE, 1).await;
    });
    let mut again = silent.consume(PATIENCE).unwrap();
    silent.runtime.block_on(expect(&mut *again, numbered(2..3)));
}

#[test]
fn a_consumer_that_lost_its_lane_does_not_take_it_from_a_later_one() {
    let database = TempDatabase::new();
    let (first, second) = (Stoppable::start(&database), Stoppable::start(&database));
    let old = first.consume(PATIENCE).unwrap();
    drop(second.consume(PATIENCE).unwrap());
    let new = first.consume(PATIENCE).unwrap();
    drop(old);
    // Long enough for a lease that is no longer renewed to end.
    first.drive(LEASE * 2);
    assert!(second.consume(LEASE / 3).is_none(), "the first process has the lane");
    drop(new);
    assert!(second.consume(PATIENCE).is_some());
}

#[tokio::test]
async fn a_probe_writes_even_when_nobody_else_does() {
    let backend = Sqlite::fresh().await;
    let process = backend.open(Settings { shards: 1, max_depth: 10 }).await.unwrap();
    let log = backend.database.directory().join("aula.db-wal");
    let mut size = std::fs::metadata(&log).unwrap().len();
    for _ in 0..3 {
        process.queue.probe().await.unwrap();
        let now = std::fs::metadata(&log).unwrap().len();
        assert!(now > size, "nothing was written that could have failed");
        size = now;
    }
}

/// Here a process that starts with another number routes what waits anew.
#[tokio::test]
async fn another_number_of_shards_takes_the_tasks_along() {
    super::producers::another_number_of_shards_takes_the_tasks_along::<Sqlite>().await;
}

#[tokio::test]
async fn another_number_of_shards_beside_a_living_process_is_refused() {
    super::producers::another_number_of_shards_beside_a_living_process_is_refused::<Sqlite>().await;
}
