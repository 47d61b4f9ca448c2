//! The bounds of single values. The comments in `config/aula.yaml` state the same bounds; a test compares them.

use std::time::Duration;

use super::types::Config;
use super::{bytes, duration};

const KIB: u128 = 1 << 10;
const MIB: u128 = 1 << 20;
const GIB: u128 = 1 << 30;

const MS: u128 = 1_000_000;
const SECOND: u128 = 1_000 * MS;
const MINUTE: u128 = 60 * SECOND;
const HOUR: u128 = 60 * MINUTE;
const DAY: u128 = 24 * HOUR;

/// What a number counts, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Count,
    Bytes,
    Nanoseconds,
}

/// A value and its bounds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub key: &'static str,
    pub unit: Unit,
    pub value: u128,
    pub min: u128,
    pub max: u128,
}

impl Limit {
    /// `"1s to 5m"`, as the default file's comments say it.
    pub(super) fn range(&self) -> String {
        format!("{} to {}", self.unit.format(self.min), self.unit.format(self.max))
    }

    pub(super) fn holds(&self) -> bool {
        (self.min..=self.max).contains(&self.value)
    }
}

impl Unit {
    pub(super) fn format(self, value: u128) -> String {
        let small = u64::try_from(value).unwrap_or(u64::MAX);
        match self {
            Self::Count => value.to_string(),
            Self::Bytes => bytes::format(small),
            Self::Nanoseconds => duration::format(Duration::from_nanos(small)),
        }
    }
}

fn count(key: &'static str, value: impl TryInto<u64>, min: u128, max: u128) -> Limit {
    let value = value.try_into().map_or(u128::MAX, u128::from);
    Limit { key, unit: Unit::Count, value, min, max }
}

fn size(key: &'static str, value: usize, min: u128, max: u128) -> Limit {
    Limit { unit: Unit::Bytes, ..count(key, value, min, max) }
}

fn time(key: &'static str, value: Duration, min: u128, max: u128) -> Limit {
    Limit { key, unit: Unit::Nanoseconds, value: value.as_nanos(), min, max }
}

/// Every number of `config` with its bounds.
///
/// A lower bound of 1 keeps a limit from being switched off or everything from being refused; an upper bound catches a wrong
/// unit. `queue.prefetch` ends where AMQP's `prefetch-count` does, `welcome` where its frame does.
pub(super) fn of(config: &Config) -> Vec<Limit> {
    let Config { server, session, channels, welcome, receipts, typing, search, auth, queue, store, .. } = config;
    let Config { cassandra, rabbitmq, retention, .. } = config;
    vec![
        count("server.threads", server.threads, 0, 1_024),
        count("server.max_connections", server.max_connections, 1, 1_000_000),
        count("server.max_unauthenticated", server.max_unauthenticated, 1, 1_000_000),
        time("server.auth_timeout", server.auth_timeout, 100 * MS, 5 * MINUTE),
        time("server.drain_timeout", server.drain_timeout, 0, 10 * MINUTE),
        time("server.reconnect_jitter", server.reconnect_jitter, 0, 5 * MINUTE),
        size("session.max_frame_bytes", session.max_frame_bytes, KIB, 16 * MIB),
        count("session.requests_per_second", session.requests_per_second, 1, 1_000_000),
        count("session.request_burst", session.request_burst, 1, 1_000_000),
        count("session.max_in_flight", session.max_in_flight, 1, 65_536),
        count("session.outbox_frames", session.outbox_frames, 16, 1_000_000),
        size("session.outbox_bytes", session.outbox_bytes, 4 * KIB, GIB),
        time("session.write_timeout", session.write_timeout, 100 * MS, 5 * MINUTE),
        time("session.ping_interval", session.ping_interval, 100 * MS, 10 * MINUTE),
        time("session.idle_timeout", session.idle_timeout, 200 * MS, HOUR),
        count("session.max_per_user", session.max_per_user, 1, 10_000),
        count("channels.max_per_user", channels.max_per_user, 1, 100_000),
        count("channels.max_members", channels.max_members, 2, 30_000),
        size("channels.max_name_bytes", channels.max_name_bytes, 1, KIB),
        size("channels.max_body_bytes", channels.max_body_bytes, 1, MIB),
        count("channels.resume_limit", channels.resume_limit, 1, 10_000),
        count("channels.ring_frames", channels.ring_frames, 1, 10_000),
        count("channels.max_cached_rooms", channels.max_cached_rooms, 1, 10_000_000),
        time("retention.keep", retention.keep, 0, 36_500 * DAY),
        time("retention.every", retention.every, SECOND, 7 * DAY),
        count("retention.rate", retention.rate, 1, 1_000_000),
        count("welcome.concurrency", welcome.concurrency, 1, 10_000),
        count("welcome.channels", welcome.channels, 0, 200),
        count("welcome.messages", welcome.messages, 0, 100),
        time("receipts.interval", receipts.interval, 10 * MS, MINUTE),
        count("receipts.max_members", receipts.max_members, 0, 100_000),
        time("typing.interval", typing.interval, 100 * MS, MINUTE),
        count("search.max_results", search.max_results, 1, 1_000),
        time("search.timeout", search.timeout, 10 * MS, MINUTE),
        count("search.total_cap", search.total_cap, 1, 10_000_000),
        time("auth.access_token_ttl", auth.access_token_ttl, SECOND, DAY),
        time("auth.refresh_token_ttl", auth.refresh_token_ttl, SECOND, 400 * DAY),
        count("auth.min_password_length", auth.min_password_length, 1, 128),
        count("auth.logins_per_minute", auth.logins_per_minute, 1, 100_000),
        count("queue.shards", queue.shards, 0, 1_024),
        count("queue.prefetch", queue.prefetch, 1, 65_535),
        count("queue.max_depth", queue.max_depth, 1, 10_000_000),
        time("queue.lease", queue.lease, 100 * MS, 10 * MINUTE),
        time("queue.poll_interval", queue.poll_interval, MS, 10 * SECOND),
        count("queue.dedup_window", queue.dedup_window, 1, 10_000_000),
        time("queue.dedup_ttl", queue.dedup_ttl, MINUTE, 400 * DAY),
        count("store.readers", store.readers, 1, 256),
        count("store.writer_queue", store.writer_queue, 1, 1_000_000),
        count("store.max_batch", store.max_batch, 1, 100_000),
        time("cassandra.request_timeout", cassandra.request_timeout, 100 * MS, MINUTE),
        time("rabbitmq.heartbeat", rabbitmq.heartbeat, SECOND, 5 * MINUTE),
        count("rabbitmq.publish_window", rabbitmq.publish_window, 1, 1_000_000),
        count("rabbitmq.delivery_limit", rabbitmq.delivery_limit, 10, 1_000_000),
        count("rabbitmq.events_backlog", rabbitmq.events_backlog, 100, 10_000_000),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::schema::Schema;
    use super::*;

    #[test]
    fn the_default_file_states_the_bounds() {
        let limits = of(&Config::default());
        for limit in &limits {
            let comment = Schema::get().comment(limit.key);
            let range = limit.range();
            assert!(comment.contains(&format!(", {range}")), "{}: {range:?} isn't in {comment:?}", limit.key);
            let word = match limit.unit {
                Unit::Count => "Number, ",
                Unit::Bytes => "Bytes, ",
                Unit::Nanoseconds => "Duration, ",
            };
            assert!(comment.contains(word), "{}: {word:?} isn't in {comment:?}", limit.key);
            assert!(limit.holds(), "{limit:?}");
        }
        for leaf in Schema::get().leaves() {
            let bounded = ["Number, ", "Bytes, ", "Duration, "]
                .iter()
                .any(|word| Schema::get().comment(&leaf.path).contains(word));
            assert_eq!(bounded, limits.iter().any(|limit| limit.key == leaf.path), "{}", leaf.path);
        }
    }
}
