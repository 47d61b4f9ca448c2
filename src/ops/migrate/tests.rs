//! The commands on a distributed deployment, against real servers: a keyspace, an alias and a virtual host of the
//! test's own.

mod plan;
mod topology;

use std::cell::RefCell;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::tests::aula;
use super::*;
use crate::server::cassandra::{Cassandra, testing};
use crate::server::migrate::cql;
use crate::server::rabbitmq::testing::Vhost;

struct Deployment {
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    cassandra: crate::config::Cassandra,
    alias: String,
    vhost: Option<Vhost>,
    /// In the place of what the test's configuration has otherwise: section, key, value.
    settings: RefCell<Vec<(&'static str, &'static str, Value)>>,
}

impl Deployment {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut cassandra = testing::configured();
        cassandra.keyspace = testing::unique("aula_ops_");
        // Of the test's own connections, which change schemas on a machine that is busy.
        cassandra.request_timeout = Duration::from_secs(30);
        let alias = testing::unique("aula-ops-");
        let vhost = Some(runtime.block_on(Vhost::make()));
        Self { folder: tempfile::tempdir().unwrap(), runtime, cassandra, alias, vhost, settings: RefCell::default() }
    }

    fn configure(&self, shards: u16) -> PathBuf {
        let rabbitmq = self.vhost.as_ref().unwrap().config();
        let mut config = json!({
            "store": {"backend": "cassandra"},
            "queue": {"backend": "rabbitmq", "shards": shards},
            "search": {"backend": "elasticsearch"},
            "cassandra": {"contact_points": self.cassandra.contact_points, "keyspace": self.cassandra.keyspace},
            "rabbitmq": {"url": rabbitmq.url, "management_url": rabbitmq.management_url},
            "elasticsearch": {"url": elasticsearch(), "alias": self.alias},
        });
        for (section, key, value) in &*self.settings.borrow() {
            config[section][key] = value.clone();
        }
        let file = self.folder.path().join("aula.yaml");
        std::fs::write(&file, config.to_string()).unwrap();
        file
    }

    fn aula(&self, shards: u16, words: &[&str]) -> (Exit, String) {
        let file = self.configure(shards);
        let words = [words, &["--config", file.to_str().unwrap()]].concat();
        aula(&self.folder.path().join("data"), &words).unwrap()
    }

    /// What a command that fails says: the error, and its hints.
    fn error(&self, shards: u16, words: &[&str]) -> String {
        let file = self.configure(shards);
        let words = [words, &["--config", file.to_str().unwrap()]].concat();
        format!("{:?}", aula(&self.folder.path().join("data"), &words).unwrap_err())
    }

    /// From here on.
    fn set(&self, section: &'static str, key: &'static str, value: Value) {
        self.settings.borrow_mut().push((section, key, value));
    }

    fn verify(&self, shards: u16) -> Result<(), servers::MigrateError> {
        let overrides = crate::config::Overrides::default();
        let config = Config::load(Some(&self.configure(shards)), crate::config::environment(), &overrides).unwrap();
        self.runtime.block_on(servers::verify(&config))
    }

    fn json(&self, shards: u16, words: &[&str]) -> (Exit, Value) {
        let (exit, text) = self.aula(shards, &[words, &["--output", "json"]].concat());
        (exit, serde_json::from_str(&text).unwrap())
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let vhost = self.vhost.take().unwrap();
        let client = reqwest::Client::new();
        self.runtime.block_on(async {
            drop(vhost);
            let cassandra = Cassandra::connect(&self.cassandra, false).await.unwrap();
            testing::drop_keyspace(&cassandra, &self.cassandra.keyspace).await;
            for path in [format!("{}-000001", self.alias), format!("_index_template/{}", self.alias)] {
                client.delete(format!("{}/{path}", elasticsearch())).send().await.unwrap();
            }
        });
    }
}

fn elasticsearch() -> String {
    #[allow(clippy::disallowed_methods, reason = "tests are told by the environment where the servers are")]
    let url = std::env::var("AULA_TEST_ELASTICSEARCH");
    url.expect("AULA_TEST_ELASTICSEARCH names no server: run the tests by scripts/test")
}

#[test]
fn three_servers_from_nothing_to_up_to_date() {
    let deployment = Deployment::new();
    let (exit, text) = deployment.aula(2, &["migrate", "status"]);
    assert_eq!(exit, Exit::Partly, "{text}");
    for line in ["cassandra      0001     messages  pending", "elasticsearch  0001     messages  pending"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(text.contains("topology  absent"), "{text}");
    let (exit, plan) = deployment.aula(2, &["migrate", "plan"]);
    assert_eq!(exit, Exit::Partly);
    for part in ["CREATE TABLE IF NOT EXISTS messages_by_channel", "PUT /_index_template/", "declare queue db_tasks.1"]
    {
        assert!(plan.contains(part), "{plan}");
    }

    let error = deployment.verify(2).unwrap_err().to_string();
    assert!(error.starts_with("the schema is behind this binary: cassandra 0001_messages, "), "{error}");
    assert!(error.ends_with("elasticsearch 0001_messages, rabbitmq topology"), "{error}");

    // Cassandra's by hand, as planned.
    let (_, plan) = deployment.aula(2, &["migrate", "plan", "--target", "cassandra"]);
    deployment.runtime.block_on(async {
        let cassandra = Cassandra::connect(&deployment.cassandra, false).await.unwrap();
        for statement in cql::split(&plan).unwrap() {
            match statement.strip_prefix("USE ") {
                Some(keyspace) => cassandra.session.use_keyspace(keyspace, false).await.unwrap(),
                None => {
                    cassandra.session.query_unpaged(statement, ()).await.unwrap();
                }
            }
        }
    });
    let (exit, text) = deployment.aula(2, &["migrate", "status", "--target", "cassandra"]);
    assert_eq!(exit, Exit::Done, "{text}");

    let (exit, applied) = deployment.json(2, &["migrate", "up"]);
    assert_eq!(exit, Exit::Done);
    let targets: Vec<&str> = applied.as_array().unwrap().iter().map(|step| step["target"].as_str().unwrap()).collect();
    assert_eq!(targets, ["elasticsearch", "rabbitmq"]);
    assert_eq!(deployment.aula(2, &["migrate"]), (Exit::Done, "up to date\n".to_owned()));
    let (exit, steps) = deployment.json(2, &["migrate", "status"]);
    assert_eq!(exit, Exit::Done, "{steps}");
    assert_eq!((&steps[0]["target"], &steps[0]["state"]), (&json!("cassandra"), &json!("applied")));
    assert_eq!(steps.as_array().unwrap().last().unwrap()["state"], "in_force");
    assert_eq!(
        deployment.json(2, &["migrate", "unlock"]),
        (Exit::Done, json!({"held": false, "removed": false, "holder": null}))
    );

    deployment.verify(2).unwrap();

    // Removed by hand: noticed, though it is recorded.
    let template = format!("{}/_index_template/{}", elasticsearch(), deployment.alias);
    let removed = deployment.runtime.block_on(reqwest::Client::new().delete(template).send()).unwrap();
    assert!(removed.status().is_success());
    let (exit, steps) = deployment.json(2, &["migrate", "status", "--target", "elasticsearch"]);
    assert_eq!((exit, &steps[0]["state"], &steps[0]["up_repairs"]), (Exit::Partly, &json!("differs"), &json!(true)));
    assert!(deployment.verify(2).unwrap_err().to_string().ends_with("behind this binary: elasticsearch 0001_messages"));
    assert_eq!(deployment.json(2, &["migrate"]).1[0]["target"], "elasticsearch");
    deployment.verify(2).unwrap();

    // Another number of shards: said, planned and made.
    let error = deployment.verify(3).unwrap_err().to_string();
    assert!(error.starts_with("rabbitmq is not as this binary needs it: ") || error.contains("db_tasks.2"), "{error}");
    let (exit, steps) = deployment.json(3, &["migrate", "status", "--target", "rabbitmq"]);
    assert_eq!((exit, &steps[0]["state"]), (Exit::Partly, &json!("differs")), "{steps}");
    let (_, plan) = deployment.aula(3, &["migrate", "plan"]);
    assert!(plan.starts_with("# rabbitmq topology\n# ") && plan.contains("declare queue db_tasks.2"), "{plan}");
    assert_eq!(deployment.json(3, &["migrate", "up"]).0, Exit::Done);
    assert_eq!(deployment.aula(3, &["migrate", "status"]).0, Exit::Done);
    deployment.verify(3).unwrap();
    let error = deployment.verify(2).unwrap_err().to_string();
    assert!(error.contains("queue db_tasks.2"), "{error}");

    // The embedded one's is no part of it.
    let file = deployment.configure(3);
    let words = ["migrate", "plan", "--target", "sqlite", "--config", file.to_str().unwrap()];
    assert!(aula(deployment.folder.path(), &words).is_err());
}
