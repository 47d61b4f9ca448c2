//! Against a real Cassandra. Each test has a keyspace of its own, because making it is what is tested.

use std::sync::Arc;

use tokio::time::Instant;

use super::*;
use crate::server::cassandra::testing;

const NO_WAIT: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(120);
/// The shortest there can be: tests wait for its end.
const SHORT_LEASE: Duration = Duration::from_secs(3);

const A: File = File { version: 1, name: "a", text: "CREATE TABLE IF NOT EXISTS a (x int PRIMARY KEY);" };
const A_EDITED: File = File { text: "CREATE TABLE IF NOT EXISTS a (y int PRIMARY KEY);", ..A };
const B: File = File {
    version: 2,
    name: "b",
    text: "-- Adds to one and makes another.\nALTER TABLE a ADD y text;\n\
           CREATE TABLE IF NOT EXISTS b (x int PRIMARY KEY);\n",
};
const B_FAILS: File = File {
    text: "ALTER TABLE a ADD y text;\nCREATE TABLE IF NOT EXISTS b (x no_such_type PRIMARY KEY);\n\
           CREATE TABLE IF NOT EXISTS c (x int PRIMARY KEY);\n",
    ..B
};
const ADDED: File = File { version: 3, name: "added", text: "-- kind: expand\nINSERT INTO a (x) VALUES (1);" };
const ENDED: File = File { version: 4, name: "ended", text: "-- kind: contract\n" };

/// A keyspace that may not exist yet; gone when this is dropped.
struct Place {
    config: Config,
}

impl Place {
    fn new() -> Self {
        let mut config = Config { cassandra: testing::configured(), ..Config::default() };
        config.cassandra.keyspace = testing::unique("aula_migrate_");
        Self { config }
    }

    /// With a connection of its own, as another process would have.
    async fn migrator(&self, files: &'static [File], lease: Duration) -> Migrator {
        let cassandra = Cassandra::connect(&self.config.cassandra, false).await.unwrap();
        let journal = Journal::new(cassandra, &self.config.cassandra).unwrap();
        Migrator { schemas: vec![cassandra_schema(&journal, files)], journal, lease }
    }

    async fn states(&self, files: &'static [File]) -> Vec<&'static str> {
        let steps = self.migrator(files, LEASE).await.status().await.unwrap();
        steps.iter().map(|step| step.state.word()).collect()
    }

    async fn up(&self, files: &'static [File]) -> Result<Vec<u32>, MigrateError> {
        let applied = self.migrator(files, LEASE).await.up(LONG, &mut |_| {}).await?;
        Ok(applied.into_iter().filter_map(|step| step.version).collect())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let config = self.config.cassandra.clone();
        // Dropping can't wait for the runtime of the test.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let cassandra = Cassandra::connect(&config, false).await.unwrap();
                testing::drop_keyspace(&cassandra, &config.keyspace).await;
            });
        });
        removal.join().unwrap();
    }
}

#[tokio::test]
async fn from_nothing_to_up_to_date() {
    let place = Place::new();
    let migrator = place.migrator(CASSANDRA, LEASE).await;
    let all = CASSANDRA.len();
    assert_eq!(place.states(CASSANDRA).await, vec!["pending"; all]);
    assert_eq!(migrator.holder().await.unwrap(), None);
    assert_eq!(migrator.unlock(true).await.unwrap(), Unlocked::Free);
    let plan = migrator.plan().await.unwrap();
    assert!(plan[0].statements[0].starts_with("CREATE KEYSPACE IF NOT EXISTS aula_migrate_"), "{plan:?}");
    assert_eq!(plan.len(), 1 + all);
    let error = migrator.verify().await.unwrap_err();
    assert!(error.to_string().contains("behind this binary: cassandra 0001_messages"), "{error}");
    assert_eq!(migrator.plan().await.unwrap(), plan, "looking creates nothing");

    let mut told = Vec::new();
    let applied = migrator.up(NO_WAIT, &mut |progress| told.push(progress)).await.unwrap();
    assert_eq!(applied.len(), all);
    assert_eq!(told.len(), 2 * all, "{told:?}");
    assert_eq!(place.states(CASSANDRA).await, vec!["applied"; all]);
    migrator.verify().await.unwrap();
    assert_eq!(migrator.plan().await.unwrap(), []);
    assert_eq!(migrator.up(NO_WAIT, &mut |_| {}).await.unwrap(), []);
    assert_eq!(migrator.holder().await.unwrap(), None);
    // A process at work is in the keyspace.
    Cassandra::connect(&place.config.cassandra, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_at_once_apply_each_step_once() {
    let place = Arc::new(Place::new());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let place = Arc::clone(&place);
        tasks.spawn(async move { place.up(&[A, B, ADDED]).await.unwrap() });
    }
    let applied: Vec<u32> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(applied, [1, 2, 3]);
    assert_eq!(place.states(&[A, B, ADDED]).await, ["applied"; 3]);
}

#[tokio::test]
async fn after_a_failure_it_goes_on_where_it_stopped() {
    let place = Place::new();
    let error = place.up(&[A, B_FAILS]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cassandra: 0002_b failed at `CREATE TABLE IF NOT EXISTS b (x no_such_type PRIMARY KEY)`"
    );
    assert!(error.hint().unwrap().contains("run `aula migrate` again"), "{error:?}");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("no_such_type"), "{error:?}");
    assert_eq!(place.states(&[A, B_FAILS]).await, ["applied", "pending"]);
    assert_eq!(place.migrator(&[A], LEASE).await.holder().await.unwrap(), None, "the lock was given back");
    // The column is there already.
    let plan = place.migrator(&[A, B], LEASE).await.plan().await.unwrap();
    assert_eq!(plan[0].statements, [format!("USE {}", place.config.cassandra.keyspace)]);
    assert_eq!(plan[1].statements, ["CREATE TABLE IF NOT EXISTS b (x int PRIMARY KEY)"]);
    assert_eq!(place.up(&[A, B]).await.unwrap(), [2]);

    // What contradicts the files is refused, whoever asks.
    for (files, states, expected) in [
        (&[A_EDITED, B] as &[File], ["changed", "applied"], "with other contents"),
        (&[B], ["missing", "applied"], "doesn't have it"),
    ] {
        assert_eq!(place.states(files).await, states);
        let error = place.up(files).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        let migrator = place.migrator(files, LEASE).await;
        assert!(matches!(migrator.verify().await, Err(MigrateError::Misfit { .. })));
        assert!(matches!(migrator.plan().await, Err(MigrateError::Misfit { .. })));
    }

    // An older binary works with what was added, and refuses what ended something.
    assert_eq!(place.up(&[A, B, ADDED]).await.unwrap(), [3]);
    let older = place.migrator(&[A, B], LEASE).await;
    older.verify().await.unwrap();
    assert_eq!(older.up(NO_WAIT, &mut |_| {}).await.unwrap(), []);
    assert_eq!(place.up(&[A, B, ADDED, ENDED]).await.unwrap(), [4]);
    let error = older.verify().await.unwrap_err();
    assert!(error.to_string().contains("is at version 4, this binary knows versions up to 2"), "{error}");
    assert!(error.hint().unwrap().contains("this binary is older than the schema"));
    assert_eq!(place.states(&[A, B]).await, ["applied", "applied", "newer", "newer"]);
}

/// As when a node lists tables that it has not taken into use.
#[tokio::test]
async fn tables_that_cannot_be_used_yet_are_waited_for() {
    let place = Place::new();
    let migrator = place.migrator(&[A], LEASE).await;
    let journal = &migrator.journal;
    let on_wait = &mut |_| {};
    let lock = Lease::acquire(journal, LEASE, NO_WAIT, on_wait);
    let steps = journal.record(Target::Cassandra, &A, 7);
    let made = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        journal.bootstrap().await
    };
    let (lock, recorded, made) = tokio::join!(lock, steps, made);
    made.unwrap();
    recorded.unwrap();
    lock.unwrap().release().await;
    assert_eq!(place.states(&[A]).await, ["applied"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_passes_on_when_its_holder_is_gone_or_was_put_out() {
    let place = Place::new();
    place.up(&[A]).await.unwrap();
    let migrator = Arc::new(place.migrator(&[A, B], SHORT_LEASE).await);
    let journal = &migrator.journal;
    let take = async |wait| Lease::acquire(journal, SHORT_LEASE, wait, &mut |_| {}).await;

    // Held, and renewed beyond one lease.
    let held = take(NO_WAIT).await.unwrap();
    let begun = Instant::now();
    let mut told = Vec::new();
    let waited = Lease::acquire(journal, SHORT_LEASE, SHORT_LEASE * 2, &mut |holder| told.extend(holder)).await;
    let Err(MigrateError::Locked { holder: Some(holder), .. }) = waited else { panic!("taken by two") };
    assert!(begun.elapsed() >= SHORT_LEASE * 2);
    assert_eq!((holder.pid, told.len()), (std::process::id(), 1));
    assert_eq!(migrator.unlock(false).await.unwrap(), Unlocked::Refused(migrator.holder().await.unwrap().unwrap()));
    let error = migrator.up(NO_WAIT, &mut |_| {}).await.unwrap_err().to_string();
    assert!(error.contains(&format!("process {} on ", holder.pid)) && error.contains("is migrating"), "{error}");

    // Its holder dies: nobody renews it any more.
    drop(held);
    let stale = loop {
        let holder = migrator.holder().await.unwrap();
        if holder.as_ref().is_none_or(|holder| !holder.fresh) {
            break holder;
        }
    };
    match migrator.unlock(false).await.unwrap() {
        Unlocked::Removed(removed) => assert_eq!(removed.id, stale.unwrap().id),
        // Expired in the meantime.
        other => assert_eq!(other, Unlocked::Free),
    }
    drop(take(NO_WAIT).await.unwrap());
    let held = take(SHORT_LEASE * 2).await.unwrap();

    // Put out: it notices, and what it was at is dropped.
    assert!(matches!(migrator.unlock(true).await.unwrap(), Unlocked::Removed(_)));
    let next = take(NO_WAIT).await.unwrap();
    let error = held.guard(std::future::pending::<()>()).await.unwrap_err();
    assert!(error.to_string().contains("the migration lock was lost to process"), "{error}");
    assert!(held.renew().await.is_err());
    // The late holder can't take away what is another's now.
    held.release().await;
    next.renew().await.unwrap();
    next.release().await;
    assert_eq!(migrator.holder().await.unwrap(), None);

    // Lost between two steps: nothing more is applied.
    let robber = Arc::clone(&migrator);
    let mut rob = move |progress| {
        if matches!(progress, Progress::Applying { .. }) {
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async { robber.unlock(true).await.unwrap() })
            });
        }
    };
    let error = migrator.up(NO_WAIT, &mut rob).await.unwrap_err();
    assert!(matches!(error, MigrateError::LockLost { .. }), "{error:?}");
    assert_eq!(place.states(&[A, B]).await, ["applied", "pending"]);
    assert!(!journal.has_table("b").await.unwrap());
    assert_eq!(place.up(&[A, B]).await.unwrap(), [2]);
}
