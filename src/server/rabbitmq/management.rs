//! The broker's management interface, for what AMQP doesn't tell.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Client, Method, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Unavailable;
use crate::config;
use crate::server::tls;

/// An operator waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How old the numbers of a quorum queue may be: the broker counts them at its `quorum_tick_interval`, 5 s unless it is
/// configured otherwise.
pub const COUNTS_LAG: Duration = Duration::from_secs(6);

/// The management interface, as the user of `rabbitmq.url`, for its virtual host.
#[derive(Clone)]
pub struct Management {
    client: Client,
    base: Url,
    username: String,
    password: String,
    vhost: String,
}

/// A queue's numbers, up to [`COUNTS_LAG`] old.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct QueueCounts {
    pub name: String,
    #[serde(default)]
    pub messages: u64,
    #[serde(default)]
    pub messages_ready: u64,
    #[serde(default)]
    pub messages_unacknowledged: u64,
}

/// What the interface measures of a queue, some seconds old. A broker whose `rates_mode` is `none` measures no rates.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MeasuredQueue {
    pub name: String,
    /// Of the broker's process for it, in bytes.
    pub memory: Option<u64>,
    /// When the first message was published, in Unix seconds; not every release tells it.
    #[serde(default, deserialize_with = "number_if_any")]
    pub head_message_timestamp: Option<i64>,
    pub message_stats: Option<MessageStats>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MessageStats {
    #[serde(default)]
    pub redeliver: u64,
    pub publish_details: Option<Rate>,
    pub ack_details: Option<Rate>,
}

/// A second, over the last interval.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Rate {
    pub rate: f64,
}

/// An empty queue has an empty text there.
fn number_if_any<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let value: Option<serde_json::Value> = Option::deserialize(deserializer)?;
    Ok(value.and_then(|value| value.as_i64()))
}

#[derive(Debug, Deserialize)]
struct QueueConsumer {
    queue: QueueName,
    consumer_tag: String,
    /// Not so of those who stand by.
    active: bool,
}

#[derive(Debug, Deserialize)]
struct QueueName {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BoundKey {
    pub source: String,
    pub destination: String,
    /// `queue` or `exchange`.
    pub destination_type: String,
    pub routing_key: String,
}

impl BoundKey {
    pub fn is_of_queue(&self) -> bool {
        self.destination_type == "queue"
    }

    pub fn leads_to(&self, queue: &str) -> bool {
        self.is_of_queue() && self.destination == queue
    }
}

impl Management {
    /// `None` if none is configured.
    pub fn new(config: &config::Rabbitmq) -> anyhow::Result<Option<Self>> {
        if config.management_url.is_empty() {
            return Ok(None);
        }
        let uri: lapin::uri::AMQPUri =
            config.url.parse().map_err(|reason| anyhow::anyhow!("rabbitmq.url: {reason}"))?;
        let base: Url = config.management_url.parse().context("rabbitmq.management_url")?;
        let mut client = Client::builder().timeout(TIMEOUT);
        if base.scheme() == "https" {
            let tls = tls::client(&config.ca_file, &config.cert_file, &config.key_file)?;
            client = client.use_preconfigured_tls((*tls).clone());
        }
        let userinfo = uri.authority.userinfo;
        Ok(Some(Self {
            client: client.build().context("rabbitmq.management_url")?,
            base,
            username: userinfo.username,
            password: userinfo.password,
            vhost: uri.vhost,
        }))
    }

    /// The numbers of all queues of the virtual host, by name.
    pub async fn queues(&self) -> Result<HashMap<String, QueueCounts>, Unavailable> {
        // Totals alone: the rates and histories of each queue cost the broker far more.
        let query = [("disable_stats", "true"), ("enable_queue_totals", "true")];
        let queues: Vec<QueueCounts> = self.get(&["queues", &self.vhost], &query).await?;
        Ok(queues.into_iter().map(|queue| (queue.name.clone(), queue)).collect())
    }

    /// What is measured of all queues of the virtual host, by name: totals of each, not by channel or exchange.
    pub async fn measured_queues(&self) -> Result<HashMap<String, MeasuredQueue>, Unavailable> {
        let columns = "name,memory,head_message_timestamp,message_stats.redeliver,message_stats.publish_details.rate,\
                       message_stats.ack_details.rate";
        let queues: Vec<MeasuredQueue> = self.get(&["queues", &self.vhost], &[("columns", columns)]).await?;
        Ok(queues.into_iter().map(|queue| (queue.name.clone(), queue)).collect())
    }

    /// The names of those who get tasks now, by queue: a queue with a single active consumer has one at most.
    pub async fn active_consumers(&self) -> Result<HashMap<String, Vec<String>>, Unavailable> {
        let consumers: Vec<QueueConsumer> = self.get(&["consumers", &self.vhost], &[]).await?;
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        for consumer in consumers.into_iter().filter(|consumer| consumer.active) {
            names.entry(consumer.queue.name).or_default().push(consumer.consumer_tag);
        }
        Ok(names)
    }

    /// What is bound to an exchange.
    pub async fn bindings(&self, exchange: &str) -> Result<Vec<BoundKey>, Unavailable> {
        self.get(&["exchanges", &self.vhost, exchange, "bindings", "source"], &[]).await
    }

    /// All bindings of the virtual host, those of the exchange without a name included.
    pub async fn all_bindings(&self) -> Result<Vec<BoundKey>, Unavailable> {
        self.get(&["bindings", &self.vhost], &[]).await
    }

    /// An answer as it is, and the broker's own time as its header says it: for what only a person looks at.
    ///
    /// Errors: also where this user may not ask that.
    pub async fn ask(&self, path: &[&str]) -> Result<(Option<String>, serde_json::Value), Unavailable> {
        let response = self.send(Method::GET, path, &[]).await?;
        let date = response.headers().get(reqwest::header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
        Ok((date, response.json().await.map_err(failed)?))
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Result<T, Unavailable> {
        let response = self.send(Method::GET, path, query).await?;
        response.json().await.map_err(failed)
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<reqwest::Response, Unavailable> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Unavailable("rabbitmq.management_url is no address of a server".into()))?
            .pop_if_empty()
            .push("api")
            .extend(path);
        let request = self.client.request(method, url).query(query).basic_auth(&self.username, Some(&self.password));
        let response = request.send().await.map_err(failed)?;
        response.error_for_status().map_err(failed)
    }
}

fn failed(error: reqwest::Error) -> Unavailable {
    // Somebody may have put a password into the address.
    Unavailable(format!("rabbitmq.management_url: {}", error.without_url()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
impl Management {
    /// Makes the virtual host of this configuration.
    pub(crate) async fn make_vhost(&self) {
        self.send(Method::PUT, &["vhosts", &self.vhost], &[]).await.unwrap();
    }

    pub(crate) async fn delete_vhost(&self) {
        self.send(Method::DELETE, &["vhosts", &self.vhost], &[]).await.unwrap();
    }
}
