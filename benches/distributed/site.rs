use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use serde_json::{Value, json};

use crate::load::process;

pub const SHARDS: u16 = 2;

/// A keyspace, a virtual host and an alias of real servers, and the processes on them.
pub struct Site {
    pub name: String,
    pub cassandra: String,
    pub elasticsearch: String,
    rabbitmq: String,
    management: String,
    folder: tempfile::TempDir,
    http: reqwest::Client,
}

impl Site {
    pub async fn make() -> Self {
        let site = Self {
            name: format!("aula_bench_{}", std::process::id()),
            cassandra: variable("AULA_TEST_CASSANDRA"),
            elasticsearch: variable("AULA_TEST_ELASTICSEARCH"),
            rabbitmq: variable("AULA_TEST_RABBITMQ"),
            management: variable("AULA_TEST_RABBITMQ_MANAGEMENT"),
            folder: tempfile::tempdir().unwrap(),
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap(),
        };
        site.manage(Method::PUT, &format!("vhosts/{}", site.name), json!({})).await;
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        site.manage(Method::PUT, &format!("permissions/{}/guest", site.name), all).await;
        let configuration = json!({
            "store": {"backend": "cassandra"},
            "queue": {"backend": "rabbitmq", "shards": SHARDS},
            "search": {"backend": "elasticsearch"},
            "session": {"requests_per_second": 1_000_000, "request_burst": 1_000_000},
            "auth": {"keys_file": site.folder.path().join("keys.json"), "logins_per_minute": 100_000},
            "log": {"level": "warn"},
            "cassandra": {"contact_points": [site.cassandra], "keyspace": site.name},
            "rabbitmq": {"url": site.amqp_url(), "management_url": site.management},
            "elasticsearch": {"url": site.elasticsearch, "alias": site.alias()},
        });
        std::fs::write(site.config(), configuration.to_string()).unwrap();
        let migrated = site.aula("none").arg("migrate").output().unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        site
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("aula.yaml")
    }

    pub fn alias(&self) -> String {
        self.name.replace('_', "-")
    }

    pub fn amqp_url(&self) -> String {
        format!("{}/{}", self.rabbitmq.rsplit_once('/').unwrap().0, self.name)
    }

    pub async fn session(&self) -> Session {
        let session = SessionBuilder::new().known_node(&self.cassandra).build().await.unwrap();
        session.use_keyspace(&self.name, false).await.unwrap();
        session
    }

    async fn manage(&self, method: Method, path: &str, body: Value) {
        let request = self.http.request(method, format!("{}/api/{path}", self.management));
        let response = request.basic_auth("guest", Some("guest")).json(&body).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
    }

    pub async fn elastic(&self, method: Method, path: &str, body: String) -> Value {
        let request = self.http.request(method, format!("{}/{path}", self.elasticsearch));
        let response = request.header("content-type", "application/x-ndjson").body(body).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        serde_json::from_str(&response.text().await.unwrap()).unwrap()
    }

    /// The index behind the alias.
    pub async fn index(&self) -> String {
        let found = self.elastic(Method::GET, &format!("{}/_alias", self.alias()), String::new()).await;
        found.as_object().unwrap().keys().next().unwrap().clone()
    }

    /// Documents indexed in it so far, findable yet or not.
    pub async fn indexed(&self, index: &str) -> u64 {
        let stats = self.elastic(Method::GET, &format!("{index}/_stats/indexing"), String::new()).await;
        stats["_all"]["primaries"]["indexing"]["index_total"].as_u64().unwrap()
    }

    fn aula(&self, data_dir: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aula"));
        command.arg("--config").arg(self.config()).arg("--data-dir").arg(self.folder.path().join(data_dir));
        command
    }

    pub fn gateway(&self, number: usize) -> Gateway {
        let mut command = self.aula(&format!("gateway-{number}"));
        let mut process = Process::spawn(command.args(["serve", "--no-worker", "--listen", "127.0.0.1:0"]));
        let line = process.line();
        let address = line.strip_prefix("listening on http://").expect("the server's line").parse().unwrap();
        Gateway { process, address }
    }

    /// Stands by or works when this returns.
    pub fn worker(&self, queues: &[&str]) -> Process {
        let mut command = self.aula("worker");
        command.args(["worker", "--listen", "127.0.0.1:0"]);
        for queue in queues {
            command.args(["--queue", queue]);
        }
        let mut process = Process::spawn(&mut command);
        process.line();
        process
    }

    /// Builds the index anew from the store: how many entries, and in how long.
    pub fn reindex(&self) -> (u64, Duration) {
        let reindex = |words: &[&str]| {
            let ended =
                self.aula("reindex").args(["--quiet", "--output", "json", "reindex"]).args(words).output().unwrap();
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            serde_json::from_slice::<Value>(&ended.stdout).unwrap()
        };
        let began = Instant::now();
        let report = reindex(&[]);
        let took = began.elapsed();
        reindex(&["--drop-former"]);
        (report["entries"].as_u64().unwrap(), took)
    }

    /// A new user's access token.
    pub async fn sign_up(&self, gateway: SocketAddr, name: &str) -> String {
        let body = json!({"username": name, "password": "correct horse battery staple"});
        for path in ["users", "sessions"] {
            let response = self.http.post(format!("http://{gateway}/api/v1/{path}")).json(&body).send().await.unwrap();
            let reply: Value = response.json().await.unwrap();
            if let Some(token) = reply["access_token"].as_str() {
                return token.to_owned();
            }
        }
        panic!("{name} got no token");
    }

    /// Text messages in the store.
    pub async fn stored(&self) -> u64 {
        let session = self.session().await;
        let query = "SELECT count(*) FROM messages_by_channel WHERE kind = 'text' ALLOW FILTERING";
        let rows = session.query_unpaged(query, ()).await.unwrap().into_rows_result().unwrap();
        rows.single_row::<(i64,)>().unwrap().0 as u64
    }

    pub async fn remove(&self) {
        self.manage(Method::DELETE, &format!("vhosts/{}", self.name), json!({})).await;
        let index = self.index().await;
        self.elastic(Method::DELETE, &index, String::new()).await;
        self.elastic(Method::DELETE, &format!("_index_template/{}", self.alias()), String::new()).await;
        let session = self.session().await;
        session.query_unpaged(format!("DROP KEYSPACE {}", self.name), ()).await.unwrap();
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} names no server: run `scripts/bench distributed`, or `eval \"$(scripts/services env)\"`")
    })
}

pub struct Gateway {
    pub process: Process,
    pub address: SocketAddr,
}

/// Killed with its value.
pub struct Process {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the process ended");
        line.trim().to_owned()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Duration {
        process::cpu(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
