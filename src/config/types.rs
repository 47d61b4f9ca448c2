//! The typed values. `config/aula.yaml` says what each is for, its bounds and its default; the docs here give the unit.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use super::kept_for::KeptFor;
use super::servers::{Cassandra, Elasticsearch, Rabbitmq, Worker};
use super::{bytes, duration};

/// A configuration whose values are all within their bounds. `Config::default()` is the embedded file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder of everything stored; relative to the working directory.
    pub data_dir: PathBuf,
    pub log: Log,
    pub server: Server,
    pub session: Session,
    pub channels: Channels,
    pub welcome: Welcome,
    pub receipts: Receipts,
    pub typing: Typing,
    pub search: Search,
    pub auth: Auth,
    pub queue: Queue,
    pub store: Store,
    pub retention: Retention,
    pub worker: Worker,
    pub cassandra: Cassandra,
    pub rabbitmq: Rabbitmq,
    pub elasticsearch: Elasticsearch,
    pub features: Features,
}

/// Where a deployment keeps what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deployment {
    /// One SQLite file in the data directory.
    Embedded,
    /// RabbitMQ, Cassandra and Elasticsearch.
    Distributed,
}

impl Config {
    /// What the three backends make together; a valid configuration has no mixture.
    #[must_use]
    pub fn deployment(&self) -> Deployment {
        match self.store.backend {
            StoreBackend::Sqlite => Deployment::Embedded,
            StoreBackend::Cassandra => Deployment::Distributed,
        }
    }

    /// Threads of a server's or a worker's runtime, at least one. The embedded store's writer is a thread of its own, and busy when the
    /// others are: one thread more than cores would only take turns with it.
    #[must_use]
    pub fn server_threads(&self) -> usize {
        match (self.server.threads, self.deployment()) {
            (0, Deployment::Embedded) => (cores() - 1).max(1),
            (0, Deployment::Distributed) => cores(),
            (threads, _) => threads,
        }
    }
}

/// What is logged, and how; always to stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub level: LogLevel,
}

/// The look of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe line that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// The listener and the connections as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// `address:port`, `[v6 address]:port` or `host:port`; a host name is resolved when the listener binds.
    pub listen: String,
    /// Threads of the runtime; 0 = [`Config::server_threads`] finds a number.
    pub threads: usize,
    /// Web origins that may open a socket: none = the same origin only; `"*"` alone = any.
    pub allowed_origins: Vec<String>,
    /// Open connections at once.
    pub max_connections: usize,
    /// Open connections that haven't authenticated.
    pub max_unauthenticated: usize,
    #[serde(with = "duration")]
    pub auth_timeout: Duration,
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// The longest random delay a client is told to wait on a drain.
    #[serde(with = "duration")]
    pub reconnect_jitter: Duration,
}

/// The limits of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The largest frame a client may send, in bytes.
    #[serde(with = "bytes")]
    pub max_frame_bytes: usize,
    /// Requests a second, lasting.
    pub requests_per_second: u32,
    /// Requests at once after a quiet time.
    pub request_burst: u32,
    /// Sends that wait for `accepted`.
    pub max_in_flight: usize,
    /// Frames that wait to be written.
    pub outbox_frames: usize,
    /// Bytes that wait to be written.
    #[serde(with = "bytes")]
    pub outbox_bytes: usize,
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    #[serde(with = "duration")]
    pub ping_interval: Duration,
    /// Always longer than `ping_interval`.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Connections of one user.
    pub max_per_user: usize,
}

/// The limits of channels, on disk and in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channels {
    /// Channels of one user.
    pub max_per_user: usize,
    /// Members of one channel.
    pub max_members: usize,
    /// UTF-8 bytes of a group's name.
    #[serde(with = "bytes")]
    pub max_name_bytes: usize,
    /// UTF-8 bytes of a message's text; always at least 1 KiB below `session.max_frame_bytes`.
    #[serde(with = "bytes")]
    pub max_body_bytes: usize,
    /// Entries of one channel that a `resume` sends.
    pub resume_limit: u64,
    /// Recent frames kept for a channel with connected members.
    pub ring_frames: usize,
    /// Channels kept in memory.
    pub max_cached_rooms: usize,
}

/// What the `welcome` frame brings along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// Welcomes prepared at the same time.
    pub concurrency: usize,
    /// Channels that come with messages; may be 0.
    pub channels: usize,
    /// Messages of each; may be 0, at most `channels.ring_frames`.
    pub messages: usize,
}

/// Watermarks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipts {
    /// How long a channel's watermarks are collected.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// In a channel with more members no `delivered` or `read` status is computed; 0 = in none.
    pub max_members: usize,
}

/// How long messages are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// 0: for ever.
    #[serde(with = "duration")]
    pub keep: Duration,
    /// Channels with a time of their own.
    pub channels: Vec<KeptFor>,
    #[serde(with = "duration")]
    pub every: Duration,
    /// Messages that are removed in a second.
    pub rate: u32,
}

/// Typing events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Typing {
    /// At most one event a channel and user in this time.
    #[serde(with = "duration")]
    pub interval: Duration,
}

/// Searching.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    pub backend: SearchBackend,
    /// Hits on one page.
    pub max_results: usize,
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Hits are counted up to this.
    pub total_cap: usize,
}

/// The search backends of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SearchBackend {
    Fts5,
    Elasticsearch,
}

/// Accounts and tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Empty: in `data_dir`.
    pub keys_file: PathBuf,
    pub signup: Signup,
    #[serde(with = "duration")]
    pub access_token_ttl: Duration,
    /// Always longer than `access_token_ttl`.
    #[serde(with = "duration")]
    pub refresh_token_ttl: Duration,
    /// Characters.
    pub min_password_length: usize,
    /// Attempts a client address.
    pub logins_per_minute: u32,
}

/// Who may create an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signup {
    Auto,
    Open,
    Closed,
}

impl Signup {
    /// Whether anybody may create an account on a server that is bound to `address`.
    ///
    /// The bound address decides, not `server.listen`: what a host name resolves to is known only then.
    #[must_use]
    pub fn is_open(self, address: IpAddr) -> bool {
        match self {
            Self::Auto => address.to_canonical().is_loopback(),
            Self::Open => true,
            Self::Closed => false,
        }
    }
}

/// Tasks on their way to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    pub backend: QueueBackend,
    /// Shard queues; 0 = one a processor core, see [`Queue::shard_count`].
    pub shards: u16,
    /// Tasks taken from a shard and not yet acknowledged.
    pub prefetch: u16,
    /// Tasks of db_tasks that wait, over all shards.
    pub max_depth: u64,
    /// How long a shard is owned without renewal.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How often another process on the same data directory looks for work; always shorter than `lease`.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
    /// Recent `client_id`s kept for each shard.
    pub dedup_window: usize,
    /// How long a stored `client_id` is remembered.
    #[serde(with = "duration")]
    pub dedup_ttl: Duration,
}

impl Queue {
    /// The number of shards: `shards`, or the processor cores this process may use (1 if that is unknown).
    #[must_use]
    pub fn shard_count(&self) -> u16 {
        if self.shards > 0 {
            return self.shards;
        }
        u16::try_from(cores()).unwrap_or(u16::MAX)
    }
}

/// The processor cores this process may use; 1 if that is unknown.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The queue backends of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueBackend {
    Sqlite,
    Rabbitmq,
}

/// The message store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    pub backend: StoreBackend,
    /// Connections that read at the same time.
    pub readers: usize,
    /// Writes that wait for the writer.
    pub writer_queue: usize,
    /// Writes in one transaction.
    pub max_batch: usize,
}

/// The store backends of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreBackend {
    Sqlite,
    Cassandra,
}

/// Parts that can be switched off; sent to clients in `welcome`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    pub groups: bool,
    pub search: bool,
    pub typing: bool,
    pub receipts: bool,
}
