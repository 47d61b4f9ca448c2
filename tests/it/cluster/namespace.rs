//! A part of the real servers for one test alone: a keyspace, a virtual host, an alias. All of it goes with the value.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::Method;
use scylla::client::session_builder::SessionBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::blocking;
use super::proxy::Proxy;
use super::servers::{Servers, User};

const LIMIT: Duration = Duration::from_secs(30);
pub const SHARDS: u16 = 2;

/// Each process of the deployment is started with its configuration file.
pub struct Namespace {
    /// The name of the virtual host, and of the keyspace; the alias is the same with hyphens.
    pub name: String,
    pub servers: Servers,
    /// What the processes reach the servers through, if they don't directly.
    pub proxies: Option<Proxies>,
    folder: TempDir,
}

/// One before each server.
pub struct Proxies {
    /// At the same port of each node's address.
    pub cassandra: Vec<Proxy>,
    pub elasticsearch: Proxy,
    pub rabbitmq: Proxy,
}

impl Proxies {
    fn before(servers: &Servers) -> Self {
        let first = Proxy::start(&servers.cassandra[0]);
        // The driver takes the other nodes' port to be that of the node it found them by.
        let port = first.addr().port();
        let others = servers.cassandra[1..].iter().map(|node| {
            let host = node.rsplit_once(':').unwrap().0;
            Proxy::start_on(format!("{host}:{port}").parse().unwrap(), node)
        });
        Self {
            cassandra: std::iter::once(first).chain(others).collect(),
            elasticsearch: Proxy::start(authority(&servers.elasticsearch)),
            rabbitmq: Proxy::start(authority(&servers.rabbitmq)),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Proxy)> {
        let cassandra = self.cassandra.iter().map(|proxy| ("cassandra", proxy));
        cassandra.chain([("elasticsearch", &self.elasticsearch), ("rabbitmq", &self.rabbitmq)])
    }
}

/// `host:port` of a URL.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap();
    rest.rsplit_once('@').map_or(rest, |(_, authority)| authority)
}

impl Namespace {
    /// Made by the management interface and by `aula migrate`.
    pub fn new(servers: &Servers) -> Self {
        Self::made(servers, false)
    }

    pub fn behind_proxies(servers: &Servers) -> Self {
        Self::made(servers, true)
    }

    fn made(servers: &Servers, with_proxies: bool) -> Self {
        let namespace = Self::not_migrated(servers, with_proxies);
        namespace.migrate();
        namespace
    }

    /// A virtual host, and nothing in it; no keyspace and no index.
    pub fn not_migrated(servers: &Servers, with_proxies: bool) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let namespace = Self {
            name: format!("aula_it_{}_{number}", std::process::id()),
            servers: servers.clone(),
            proxies: with_proxies.then(|| Proxies::before(servers)),
            folder: TempDir::with_prefix("aula-it-cluster-").unwrap(),
        };
        blocking(namespace.remove());
        blocking(async {
            let vhost = &namespace.name;
            namespace.manage(Method::PUT, &format!("vhosts/{vhost}"), None).await;
            let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
            namespace.manage(Method::PUT, &format!("permissions/{vhost}/guest"), Some(all)).await;
        });
        std::fs::write(namespace.config(), namespace.configuration()).unwrap();
        namespace
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("aula.yaml")
    }

    pub fn alias(&self) -> String {
        self.name.replace('_', "-")
    }

    /// `host:port`.
    pub fn broker_address(&self) -> &str {
        authority(&self.servers.rabbitmq)
    }

    /// The broker's address with this virtual host, through the proxy or not.
    pub fn amqp_url(&self, at: Option<&Proxy>) -> String {
        let url = &self.servers.rabbitmq;
        let at = at.map(|proxy| proxy.addr().to_string());
        let address = authority(url);
        let base = url.split_once(address).unwrap().0;
        format!("{base}{}/{}", at.as_deref().unwrap_or(address), self.name)
    }

    fn configuration(&self) -> String {
        let servers = &self.servers;
        let proxies = self.proxies.as_ref();
        let cassandra: Vec<String> = match proxies {
            Some(proxies) => proxies.cassandra.iter().map(|proxy| proxy.addr().to_string()).collect(),
            None => servers.cassandra.clone(),
        };
        let elasticsearch = match proxies {
            Some(proxies) => {
                let at = proxies.elasticsearch.addr().to_string();
                servers.elasticsearch.replace(authority(&servers.elasticsearch), &at)
            }
            None => servers.elasticsearch.clone(),
        };
        let amqp = self.amqp_url(proxies.map(|proxies| &proxies.rabbitmq));
        let certificate = |file| servers.certificates.as_ref().map(|folder| folder.join(file)).unwrap_or_default();
        let (ca, own, key) = (certificate("ca.pem"), certificate("client.pem"), certificate("client.key"));
        let name = |user: &Option<User>| user.as_ref().map_or("", |user| &user.name).to_owned();
        let password = |user: &Option<User>| user.as_ref().map_or("", |user| &user.password).to_owned();
        // YAML reads JSON.
        let configuration = json!({
            "store": {"backend": "cassandra"},
            "queue": {"backend": "rabbitmq", "shards": SHARDS},
            "search": {"backend": "elasticsearch"},
            "auth": {"keys_file": self.folder.path().join("signing-keys.json"), "logins_per_minute": 100_000},
            "cassandra": {
                "contact_points": cassandra,
                "keyspace": self.name,
                "replication": servers.replication.iter().collect::<Vec<_>>(),
                "username": name(&servers.cassandra_user),
                "password": password(&servers.cassandra_user),
                "tls": servers.cassandra_user.is_some(),
                "ca_file": ca,
                "cert_file": own,
                "key_file": key,
            },
            "rabbitmq": {
                "url": amqp,
                "management_url": servers.management,
                "ca_file": ca,
                "cert_file": own,
                "key_file": key,
            },
            "elasticsearch": {
                "url": elasticsearch,
                "alias": self.alias(),
                "username": name(&servers.elasticsearch_user),
                "password": password(&servers.elasticsearch_user),
                "ca_file": ca,
            },
        });
        format!("{configuration:#}\n")
    }

    fn migrate(&self) {
        let output = self.aula().arg("migrate").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "aula migrate: {}\n{said}", output.status);
    }

    /// A command with this configuration.
    pub fn aula(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aula"));
        command.arg("--config").arg(self.config()).arg("--data-dir").arg(self.folder.path().join("none"));
        command.env("NO_COLOR", "1");
        command
    }

    /// A call of RabbitMQ's management interface; panics unless it succeeds.
    pub async fn manage(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}/api/{path}", self.servers.management);
        let mut request = self.http().request(method, &url).basic_auth("guest", Some("guest"));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{url}: {error}"));
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{url}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    fn http(&self) -> reqwest::Client {
        let client = reqwest::Client::builder().timeout(LIMIT).no_proxy();
        let Some(certificates) = &self.servers.certificates else { return client.build().unwrap() };
        let authority = std::fs::read(certificates.join("ca.pem")).unwrap();
        client.add_root_certificate(reqwest::Certificate::from_pem(&authority).unwrap()).build().unwrap()
    }

    /// Removes what is there of it; what isn't is no error.
    async fn remove(&self) {
        let vhost = format!("{}/api/vhosts/{}", self.servers.management, self.name);
        let vhost = self.http().delete(vhost).basic_auth("guest", Some("guest")).send();
        let (alias, server) = (self.alias(), &self.servers.elasticsearch);
        let elastic = |method, path: String| {
            let request = self.http().request(method, format!("{server}/{path}"));
            match &self.servers.elasticsearch_user {
                Some(user) => request.basic_auth(&user.name, Some(&user.password)),
                None => request,
            }
        };
        let index = async {
            // Wildcards are refused where something is deleted.
            let listed = elastic(Method::GET, format!("{alias}*?expand_wildcards=all")).send().await;
            let Ok(listed) = listed else { return };
            let listed: Value = listed.json().await.unwrap_or_default();
            for name in listed.as_object().into_iter().flat_map(|indices| indices.keys()) {
                let _ = elastic(Method::DELETE, name.clone()).send().await;
            }
            let _ = elastic(Method::DELETE, format!("_index_template/{alias}")).send().await;
        };
        let keyspace = async {
            let mut session = SessionBuilder::new().known_nodes(&self.servers.cassandra);
            if let Some(User { name, password }) = &self.servers.cassandra_user {
                session = session.user(name, password);
            }
            let Ok(session) = session.build().await else { return };
            let _ = session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {}", self.name), ()).await;
        };
        let all = async { tokio::join!(vhost, index, keyspace) };
        let _ = tokio::time::timeout(LIMIT, all).await;
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        blocking(self.remove());
    }
}

#[test]
fn the_authority_of_a_url() {
    assert_eq!(authority("amqp://guest:guest@127.0.0.1:5672/%2f"), "127.0.0.1:5672");
    assert_eq!(authority("http://localhost:9200"), "localhost:9200");
}
