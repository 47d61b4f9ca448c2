use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;

use rusqlite::Connection;

use super::lock::Lock;
use super::*;
use crate::server::migrate::State;

const NO_WAIT: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(30);

const ONE: &[File] = &[File { version: 1, name: "one", text: "CREATE TABLE one (x INTEGER);" }];
const TWO: &[File] = &[
    File { version: 1, name: "one", text: "CREATE TABLE one (x INTEGER);" },
    File { version: 2, name: "two", text: "CREATE TABLE two (x INTEGER); INSERT INTO two VALUES (1), (2);" },
];
const ONE_EDITED: &[File] = &[File { version: 1, name: "one", text: "CREATE TABLE one (y INTEGER);" }];
const ONLY_TWO: &[File] = &[File { version: 2, name: "two", text: TWO[1].text }];
const TWO_FAILS: &[File] = &[
    File { version: 1, name: "one", text: "CREATE TABLE one (x INTEGER);" },
    File { version: 2, name: "two", text: "CREATE TABLE two (x INTEGER); INSERT INTO nowhere VALUES (1);" },
];

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("data").join("aula.db")
    }

    fn up(&self, set: &'static [File]) -> Result<Vec<u32>, MigrateError> {
        let applied = apply::up(&self.database(), set, NO_WAIT, &mut |_| {})?;
        Ok(applied.into_iter().filter_map(|step| step.version).collect())
    }

    fn states(&self, set: &[File]) -> Vec<State> {
        let steps = compare(Target::Sqlite, set, &inspect(&self.database()).unwrap());
        steps.into_iter().map(|step| step.state).collect()
    }

    /// Every file below the folder with its bytes and modification time.
    fn bytes(&self) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let entry = entry.unwrap();
                let modified = entry.metadata().unwrap().modified().unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                    files.insert(entry.path(), (Vec::new(), modified));
                } else {
                    files.insert(entry.path(), (std::fs::read(entry.path()).unwrap(), modified));
                }
            }
        }
        files
    }

    fn table_names(&self) -> Vec<String> {
        let connection = Connection::open(self.database()).unwrap();
        let mut tables =
            connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").unwrap();
        tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_new_database_is_made_for_its_owner_only() {
    let place = Place::new();
    assert_eq!(place.states(ONE), [State::Pending]);
    assert!(place.bytes().is_empty(), "looking creates nothing");
    assert_eq!(place.up(ONE).unwrap(), [1]);
    assert_eq!(mode(place.database().parent().unwrap()), 0o700);
    assert_eq!(mode(&place.database()), 0o600);
    assert_eq!(mode(&place.database().with_file_name("migrate.lock")), 0o600);
    assert!(matches!(place.states(ONE)[..], [State::Applied { at }] if at.0 > 1_700_000_000_000));
}

#[test]
fn the_schema_of_this_binary_applies_and_is_what_a_server_opens() {
    let place = Place::new();
    let path = place.database();
    assert!(matches!(ensure(&path, Mode::Verify), Err(MigrateError::Pending { .. })));
    assert_eq!(plan(&path).unwrap().len(), MIGRATIONS.len());
    assert_eq!(ensure(&path, Mode::ApplyPending).unwrap().len(), MIGRATIONS.len());
    assert_eq!(ensure(&path, Mode::ApplyPending).unwrap(), []);
    assert_eq!(ensure(&path, Mode::Verify).unwrap(), []);
    assert_eq!(plan(&path).unwrap(), []);
    crate::server::sqlite::Database::open(&path, &Default::default()).unwrap();
}

#[test]
fn later_steps_are_added_to_earlier_ones() {
    let place = Place::new();
    place.up(ONE).unwrap();
    assert!(matches!(place.states(TWO)[..], [State::Applied { .. }, State::Pending]));
    assert_eq!(place.up(TWO).unwrap(), [2]);
    assert_eq!(place.up(TWO).unwrap(), [] as [u32; 0]);
}

#[test]
fn a_failing_step_leaves_no_trace_and_the_earlier_ones_stay() {
    let place = Place::new();
    let error = place.up(TWO_FAILS).unwrap_err();
    assert!(matches!(error, MigrateError::Step { version: 2, .. }), "{error:?}");
    assert!(matches!(place.states(TWO_FAILS)[..], [State::Applied { .. }, State::Pending]));
    assert_eq!(place.table_names(), ["one", "schema_migrations"]);
    assert_eq!(place.up(TWO).unwrap(), [2], "the corrected step applies");
}

#[test]
fn a_refusal_changes_not_one_byte() {
    for (applied, known, expected) in
        [(TWO, ONE, "is at version 2"), (ONE, ONE_EDITED, "with other contents"), (TWO, ONLY_TWO, "doesn't have it")]
    {
        let place = Place::new();
        place.up(applied).unwrap();
        std::fs::remove_file(place.database().with_file_name("migrate.lock")).unwrap();
        let before = place.bytes();
        let error = place.up(known).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(before, place.bytes());
    }
}

/// A server that was killed leaves its log, with or without the index; only the log may know of the newer schema.
#[test]
fn a_refusal_changes_not_one_byte_of_a_log_left_by_a_crash() {
    for with_index in [true, false] {
        let source = Place::new();
        let path = source.database();
        let mut copied = Vec::new();
        apply::up(&path, ONE, NO_WAIT, &mut |_| {}).unwrap();
        // Kept open, so that the second step stays in the log.
        let server = Connection::open(&path).unwrap();
        server.query_row("SELECT count(*) FROM one", [], |_| Ok(())).unwrap();
        source.up(TWO).unwrap();
        for name in ["aula.db", "aula.db-wal", "aula.db-shm"] {
            copied.push((name, std::fs::read(path.with_file_name(name)).unwrap()));
        }
        assert!(!copied[1].1.is_empty());
        drop(server);

        let crashed = Place::new();
        std::fs::create_dir(crashed.database().parent().unwrap()).unwrap();
        for (name, bytes) in copied {
            if with_index || name != "aula.db-shm" {
                std::fs::write(crashed.database().with_file_name(name), bytes).unwrap();
            }
        }
        let before = crashed.bytes();
        let error = crashed.up(ONE).unwrap_err();
        assert!(matches!(error, MigrateError::Newer { found: 2, known: 1, .. }), "{error:?}");
        assert!(matches!(crashed.states(TWO)[..], [State::Applied { .. }, State::Applied { .. }]));
        assert_eq!(before, crashed.bytes());
    }
}

#[test]
fn a_running_server_s_log_is_read_too() {
    let place = Place::new();
    place.up(ONE).unwrap();
    let server = Connection::open(place.database()).unwrap();
    server.execute_batch("INSERT INTO one VALUES (1)").unwrap();
    assert_eq!(place.up(TWO).unwrap(), [2]);
    assert!(matches!(place.states(TWO)[..], [State::Applied { .. }, State::Applied { .. }]));
    let rows: i64 = server.query_row("SELECT count(*) FROM two", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 2);
}

#[test]
fn files_that_are_not_ours_are_refused_unchanged() {
    for (make, expected) in [
        ((|path| std::fs::write(path, "name,age\nada,36\n").unwrap()) as fn(&Path), "not an SQLite database"),
        (
            |path| Connection::open(path).unwrap().execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap(),
            "not one of aula's",
        ),
        (|path| std::fs::create_dir(path).unwrap(), "can't read"),
    ] {
        let place = Place::new();
        std::fs::create_dir(place.database().parent().unwrap()).unwrap();
        make(&place.database());
        let before = place.bytes();
        let error = place.up(ONE).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(before, place.bytes());
    }
}

#[test]
fn an_empty_file_is_a_new_database() {
    let place = Place::new();
    std::fs::create_dir(place.database().parent().unwrap()).unwrap();
    std::fs::write(place.database(), "").unwrap();
    assert_eq!(place.up(ONE).unwrap(), [1]);
}

#[test]
fn names_that_mean_something_in_a_uri_are_only_names() {
    let place = Place::new();
    let path = place.folder.path().join("what? 100% #1 é").join("aula.db");
    apply::up(&path, ONE, NO_WAIT, &mut |_| {}).unwrap();
    assert_eq!(inspect(&path).unwrap().len(), 1);
}

#[test]
fn the_disk_s_troubles_read_the_same_from_every_call() {
    use std::io::{Error, ErrorKind};
    let path = Path::new("/data/aula.db");
    for (kind, expected) in
        [(ErrorKind::StorageFull, "disk is full"), (ErrorKind::ReadOnlyFilesystem, "can't be written")]
    {
        let error = MigrateError::io("create", path, Error::from(kind)).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let elsewhere = MigrateError::io("create", path, Error::from(ErrorKind::NotADirectory));
    assert_eq!(elsewhere.to_string(), "can't create /data/aula.db");
}

#[test]
fn ten_threads_apply_each_step_once() {
    let place = Place::new();
    let (path, start) = (place.database(), Barrier::new(10));
    let applied: Vec<Applied> = thread::scope(|scope| {
        let threads: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    apply::up(&path, TWO, LONG, &mut |_| {}).unwrap()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(applied.len(), 2, "{applied:?}");
    assert!(matches!(place.states(TWO)[..], [State::Applied { .. }, State::Applied { .. }]));
}

/// Not a test by itself: what the other processes of the tests below do, in a copy of this test program.
#[test]
fn child() {
    let Some(path) = std::env::var_os("CHILD_DATABASE").map(PathBuf::from) else { return };
    match std::env::var("CHILD_ROLE").unwrap().as_str() {
        "up" => {
            apply::up(&path, TWO, LONG, &mut |_| {}).unwrap();
        }
        "die in a step" => {
            apply::up(&path, ONE, LONG, &mut |_| {}).unwrap();
            let _lock = Lock::acquire(&path, LONG, |_| {}).unwrap();
            let connection = Connection::open(&path).unwrap();
            connection.execute_batch("BEGIN IMMEDIATE; CREATE TABLE two (x INTEGER)").unwrap();
            std::fs::write(path.with_file_name("in the middle"), "").unwrap();
            thread::sleep(LONG);
        }
        role => panic!("{role}?"),
    }
}

fn spawn(role: &str, database: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "server::sqlite::migrate::tests::child"])
        .env("CHILD_ROLE", role)
        .env("CHILD_DATABASE", database)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn ten_processes_apply_each_step_once() {
    let place = Place::new();
    let children: Vec<_> = (0..10).map(|_| spawn("up", &place.database())).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert!(matches!(place.states(TWO)[..], [State::Applied { .. }, State::Applied { .. }]));
    assert_eq!(place.table_names(), ["one", "schema_migrations", "two"]);
}

#[test]
fn a_killed_migrator_leaves_its_step_undone_and_the_lock_free() {
    let place = Place::new();
    let mut child = spawn("die in a step", &place.database());
    while !place.database().with_file_name("in the middle").exists() {
        assert_eq!(child.try_wait().unwrap(), None);
        thread::sleep(Duration::from_millis(5));
    }

    let LockState::Held(Some(holder)) = lock_state(&place.database()).unwrap() else { panic!("not held") };
    assert_eq!(holder.pid, child.id());
    let error = place.up(TWO).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", child.id())), "{error}");

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(lock_state(&place.database()).unwrap(), LockState::Free);
    assert_eq!(place.up(TWO).unwrap(), [2]);
}

/// Early in its life a database is an empty file, a journal, a file without its log, and so on.
#[test]
fn killed_at_any_moment_it_can_be_migrated_again() {
    for moment in 0..60 {
        let place = Place::new();
        let mut child = spawn("up", &place.database());
        thread::sleep(Duration::from_micros(500 * moment));
        child.kill().unwrap();
        child.wait().unwrap();
        let done = place.states(TWO).iter().filter(|state| matches!(state, State::Applied { .. })).count();
        assert_eq!(place.up(TWO).unwrap().len(), 2 - done, "killed at moment {moment}");
        assert_eq!(place.table_names(), ["one", "schema_migrations", "two"]);
    }
}

#[test]
fn one_who_waits_is_told_for_whom_and_goes_on_afterwards() {
    let place = Place::new();
    std::fs::create_dir(place.database().parent().unwrap()).unwrap();
    let lock = Lock::acquire(&place.database(), NO_WAIT, |_| {}).unwrap();
    let mut lock = Some(lock);
    let mut told = Vec::new();
    let applied = apply::up(&place.database(), ONE, LONG, &mut |step| {
        if let Progress::Waiting { holder } = step {
            told.push(holder.unwrap().pid);
            lock.take();
        }
    });
    assert_eq!(applied.unwrap().len(), 1);
    assert_eq!(told, [std::process::id()]);
    assert_eq!(lock_state(&place.database()).unwrap(), LockState::Free);
}
