//! Where the real servers are. There are two sets: one that all tests share, and one for tests that stop servers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

/// A set of servers, as `scripts/services env` names it.
#[derive(Clone, Debug)]
pub struct Servers {
    /// `host:port` of each node to find the others by.
    pub cassandra: Vec<String>,
    /// Who asks for a user speaks TLS, too.
    pub cassandra_user: Option<User>,
    /// How a keyspace is replicated (`datacenter:replicas`); none: one replica.
    pub replication: Option<&'static str>,
    pub elasticsearch: String,
    pub elasticsearch_user: Option<User>,
    /// With user and password; its virtual host is not used.
    pub rabbitmq: String,
    pub management: String,
    /// Of the servers that speak TLS: a folder with ca.pem, client.pem and client.key.
    pub certificates: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub password: String,
}

impl User {
    /// `name:password`
    fn parse(text: &str) -> Self {
        let (name, password) = text.split_once(':').expect("a user has a password");
        Self { name: name.to_owned(), password: password.to_owned() }
    }
}

impl Servers {
    /// Those that all tests use at the same time; panics with what to do if the environment doesn't name them.
    pub fn shared() -> Self {
        Self::named("AULA_TEST", "scripts/services")
    }

    fn named(prefix: &str, script: &str) -> Self {
        let var = |server: &str| {
            let name = format!("{prefix}_{server}");
            std::env::var(&name).unwrap_or_else(|_| {
                panic!("{name} names no server: run the tests by scripts/test, or `{script} up && eval \"$({script} env)\"`")
            })
        };
        let user = |server: &str| Some(User::parse(&std::env::var(format!("{prefix}_{server}_USER")).ok()?));
        Self {
            cassandra: vec![var("CASSANDRA")],
            cassandra_user: user("CASSANDRA"),
            replication: None,
            elasticsearch: var("ELASTICSEARCH"),
            elasticsearch_user: user("ELASTICSEARCH"),
            rabbitmq: var("RABBITMQ"),
            management: var("RABBITMQ_MANAGEMENT"),
            certificates: std::env::var_os(format!("{prefix}_CERTIFICATES")).map(PathBuf::from),
        }
    }
}

/// The set for tests that stop servers. Who holds it has it alone, within this process.
pub struct Breakable {
    pub servers: Servers,
    _alone: OwnedMutexGuard<()>,
}

const BREAKABLE_SCRIPT: &str = "scripts/services-for-faults";

impl Breakable {
    /// Waits for its turn, and until all three servers are up.
    pub async fn take() -> Self {
        static TURN: std::sync::LazyLock<Arc<Mutex<()>>> = std::sync::LazyLock::new(Arc::default);
        let servers = Servers::named("AULA_TEST_FAULTS", BREAKABLE_SCRIPT);
        // As in production: with users and TLS.
        assert!(servers.certificates.is_some() && servers.rabbitmq.starts_with("amqps:"), "{servers:?}");
        assert!(servers.cassandra_user.is_some() && servers.elasticsearch_user.is_some(), "{servers:?}");
        let alone = Arc::clone(&TURN).lock_owned().await;
        // One that failed before may have left something stopped.
        tokio::task::block_in_place(|| run(&["up"]));
        Self { servers, _alone: alone }
    }

    /// A cluster of three Cassandra nodes instead of the single one, for as long as the guard lives.
    pub async fn with_three_nodes(mut self) -> (Self, ThreeNodes) {
        tokio::task::block_in_place(|| run(&["reset", "cassandra-cluster"]));
        let var = "AULA_TEST_FAULTS_CASSANDRA_CLUSTER";
        let nodes = std::env::var(var).unwrap_or_else(|_| panic!("{var} names no nodes: see {BREAKABLE_SCRIPT} env"));
        self.servers.cassandra = nodes.split(',').map(str::to_owned).collect();
        self.servers.cassandra_user = None;
        self.servers.replication = Some("datacenter1:3");
        (self, ThreeNodes)
    }

    /// Ends a server by SIGKILL.
    pub fn kill(&self, server: &str) {
        run(&["kill", server]);
    }

    /// Ends a server in good order.
    pub fn stop(&self, server: &str) {
        run(&["stop", server]);
    }

    /// Starts it again, and waits until it is ready.
    pub fn start(&self, server: &str) {
        run(&["start", server]);
    }

    /// RabbitMQ's command line tool.
    pub fn rabbitmqctl(&self, arguments: &[&str]) {
        run(&[&["rabbitmqctl"], arguments].concat());
    }
}

/// Ends the three nodes with its life: they take the memory of all the others together.
pub struct ThreeNodes;

impl Drop for ThreeNodes {
    fn drop(&mut self) {
        run(&["down", "cassandra-cluster"]);
    }
}

fn run(arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join(BREAKABLE_SCRIPT)).args(arguments).current_dir(root).output();
    let output = output.unwrap_or_else(|error| panic!("{BREAKABLE_SCRIPT}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{BREAKABLE_SCRIPT} {}: {}\n{said}", arguments.join(" "), output.status);
}
