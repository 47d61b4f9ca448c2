//! The Cassandra of the tests: a real one, at the address in `AULA_TEST_CASSANDRA`.

use tokio::sync::OnceCell;
use uuid::Uuid;

use super::Cassandra;
use crate::config::{self, Config};
use crate::server::migrate::{CASSANDRA, cql};

/// Where the tests' Cassandra is, with a keyspace of this process.
pub(crate) fn configured() -> config::Cassandra {
    #[allow(clippy::disallowed_methods, reason = "tests are told by the environment where the servers are")]
    let address = std::env::var("AULA_TEST_CASSANDRA").expect(
        "AULA_TEST_CASSANDRA names no server: run the tests by scripts/test, or `eval \"$(scripts/services env)\"`",
    );
    let mut config = Config::default().cassandra;
    config.contact_points = vec![address];
    config.keyspace = format!("aula_test_{}", std::process::id());
    config
}

/// A session of the caller's own runtime, in a keyspace that all tests of this process share: ids and names in it must be the
/// test's own.
pub(crate) async fn connect() -> Cassandra {
    static MADE: OnceCell<()> = OnceCell::const_new();
    let config = configured();
    MADE.get_or_init(|| make_keyspace(&config)).await;
    Cassandra::connect(&config, true).await.unwrap()
}

/// A name that no other test has.
pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix}{}", &Uuid::new_v4().simple().to_string()[..12])
}

async fn make_keyspace(config: &config::Cassandra) {
    let cassandra = Cassandra::connect(config, false).await.unwrap();
    let replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}";
    // Left by an earlier process of this number.
    drop_keyspace(&cassandra, &config.keyspace).await;
    run(&cassandra, format!("CREATE KEYSPACE {} WITH replication = {replication}", config.keyspace)).await;
    cassandra.session.use_keyspace(&config.keyspace, false).await.unwrap();
    for file in CASSANDRA {
        for statement in cql::split(file.text).unwrap() {
            run(&cassandra, statement).await;
        }
    }
}

/// On a loaded machine that may take longer than a request may: it goes on nevertheless, and is asked for again.
pub(crate) async fn drop_keyspace(cassandra: &Cassandra, name: &str) {
    let statement = format!("DROP KEYSPACE IF EXISTS {name}");
    let mut attempts = 0;
    while let Err(error) = cassandra.session.query_unpaged(statement.as_str(), ()).await {
        attempts += 1;
        assert!(attempts < 5, "{statement}: {error}");
    }
}

async fn run(cassandra: &Cassandra, statement: String) {
    cassandra.session.query_unpaged(statement.clone(), ()).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}
