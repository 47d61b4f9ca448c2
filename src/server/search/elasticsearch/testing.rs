//! The Elasticsearch of the tests: a real one, at the address in `AULA_TEST_ELASTICSEARCH`.

use elasticsearch::Elasticsearch;
use elasticsearch::http::Method;
use elasticsearch::http::headers::HeaderMap;
use serde_json::Value;
use uuid::Uuid;

use super::{connect, schema};
use crate::config::{self, Config};

/// An alias of one's own, with all that stands behind it; gone when it is dropped.
pub(crate) struct TestIndex {
    pub client: Elasticsearch,
    pub alias: String,
}

impl TestIndex {
    /// As `aula migrate` makes it.
    pub async fn new() -> Self {
        let index = Self::unmade();
        schema::apply(&index.client, &index.alias).await.unwrap();
        index
    }

    /// Only the name.
    pub fn unmade() -> Self {
        let alias = format!("aula-test-{}", Uuid::new_v4().simple());
        Self { client: connect(&configured()).unwrap(), alias }
    }

    /// Makes what was written findable now.
    pub async fn refresh(&self) {
        self.call(Method::Post, &format!("/{}/_refresh", self.alias), None).await;
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let body = body.map(|body| body.to_string());
        let response = self.client.send(method, path, HeaderMap::new(), None::<&()>, body, None).await.unwrap();
        assert!(response.status_code().is_success(), "{path}: {}", response.text().await.unwrap());
        response.json().await.unwrap()
    }
}

impl Drop for TestIndex {
    fn drop(&mut self) {
        let alias = self.alias.clone();
        // Dropping can't wait for the runtime of the test.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = connect(&configured()).unwrap();
                for path in [
                    format!("/{alias}-000001,{alias}-000002,{alias}-000003,{alias}-000004?ignore_unavailable=true"),
                    format!("/_index_template/{alias}"),
                ] {
                    let sent = client.send(Method::Delete, &path, HeaderMap::new(), None::<&()>, None::<String>, None);
                    // A test that never made it has nothing to remove.
                    drop(sent.await);
                }
            });
        });
        drop(removal.join());
    }
}

pub(crate) fn configured() -> config::Elasticsearch {
    #[allow(clippy::disallowed_methods, reason = "tests are told by the environment where the servers are")]
    let url = std::env::var("AULA_TEST_ELASTICSEARCH").expect(
        "AULA_TEST_ELASTICSEARCH names no server: run the tests by scripts/test, or `eval \"$(scripts/services env)\"`",
    );
    config::Elasticsearch { url, ..Config::default().elasticsearch }
}
