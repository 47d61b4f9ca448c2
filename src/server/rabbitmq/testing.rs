//! The RabbitMQ of the tests: a real one, at the addresses in `AULA_TEST_RABBITMQ` and `AULA_TEST_RABBITMQ_MANAGEMENT`.

mod proxy;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Link;
use super::management::Management;
use super::topology::{ReplaceOptions, Topology, Values, migrate};
use crate::config::{self, Config};

pub(crate) use proxy::Proxy;

/// A virtual host of a test's own, deleted with everything in it when it is dropped.
pub(crate) struct Vhost {
    config: config::Rabbitmq,
}

impl Vhost {
    pub(crate) async fn make() -> Self {
        let mut config = Config::default().rabbitmq;
        let (server, _default_vhost) = variable("AULA_TEST_RABBITMQ").rsplit_once('/').map(own).unwrap();
        config.url = format!("{server}/aula_test_{}", Uuid::new_v4().simple());
        config.management_url = variable("AULA_TEST_RABBITMQ_MANAGEMENT");
        let vhost = Self { config };
        vhost.management().make_vhost().await;
        vhost
    }

    /// One with all that a deployment of one shard needs, which is filled in by `change`.
    pub(crate) async fn migrated(change: impl FnOnce(&mut Values)) -> (Self, Arc<Topology>) {
        let mut values = Values { shards: 1, ..Values::configured(&Config::default()) };
        change(&mut values);
        let (vhost, topology) = (Self::make().await, Topology::new(&values).unwrap());
        let options = ReplaceOptions { deadline: Duration::from_secs(30) };
        migrate(&vhost.link().await, &topology, None, &options, &mut |_| {}).await.unwrap();
        (vhost, Arc::new(topology))
    }

    pub(crate) fn config(&self) -> config::Rabbitmq {
        self.config.clone()
    }

    /// The same, on another way to the broker.
    pub(crate) fn config_through(&self, proxy: &Proxy) -> config::Rabbitmq {
        let (credentials, rest) = self.config.url.split_once('@').unwrap();
        let (_server, vhost) = rest.split_once('/').unwrap();
        config::Rabbitmq { url: format!("{credentials}@{}/{vhost}", proxy.address()), ..self.config() }
    }

    /// A way to the broker that can be broken.
    pub(crate) async fn proxy(&self) -> Proxy {
        let (_credentials, rest) = self.config.url.split_once('@').unwrap();
        Proxy::start(rest.split_once('/').unwrap().0).await
    }

    pub(crate) fn management(&self) -> Management {
        Management::new(&self.config).unwrap().unwrap()
    }

    pub(crate) async fn link(&self) -> Link {
        Link::open(&self.config, "test").await.unwrap()
    }

    pub(crate) async fn link_through(&self, proxy: &Proxy) -> Link {
        Link::open(&self.config_through(proxy), "test").await.unwrap()
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let management = self.management();
        // The test's own runtime can't be waited for here.
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(management.delete_vhost());
        });
        deleted.join().unwrap();
    }
}

fn own((left, right): (&str, &str)) -> (String, String) {
    (left.to_owned(), right.to_owned())
}

pub(crate) fn variable(name: &str) -> String {
    #[allow(clippy::disallowed_methods, reason = "tests are told by the environment where the servers are")]
    let value = std::env::var(name);
    value.unwrap_or_else(|_| {
        panic!("{name} names no server: run the tests by scripts/test, or `eval \"$(scripts/services env)\"`")
    })
}
