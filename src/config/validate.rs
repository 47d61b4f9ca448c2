//! Whether values are within their bounds and agree with each other.

mod servers;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::error::{Problem, Sources};
use super::limits;
use super::types::{Config, QueueBackend, SearchBackend, StoreBackend};

/// Room for what surrounds a message's text in a frame: names, ids and punctuation.
const ENVELOPE_BYTES: usize = 1 << 10;

/// Every problem of `config`. `rejected` are keys whose values were already found wrong, so that `config` holds something else
/// for them: nothing is said about a rule they are part of.
pub(super) fn problems(config: &Config, sources: &Sources, rejected: &BTreeSet<String>) -> Vec<Problem> {
    let mut check = Check { sources, rejected: rejected.clone(), problems: Vec::new() };
    bounds(config, &mut check);
    listen("server.listen", &config.server.listen, &mut check);
    if config.worker.listen != "off" {
        listen("worker.listen", &config.worker.listen, &mut check);
    }
    servers::problems(config, &mut check);
    origins(&config.server.allowed_origins, &mut check);
    if config.data_dir.as_os_str().is_empty() {
        check.report("data_dir", "is empty, but must name a folder");
    }
    relations(config, &mut check);
    one_deployment(config, &mut check);
    check.problems
}

/// A queue in a file that only one host sees doesn't feed workers of a store that all see, nor the reverse.
fn one_deployment(config: &Config, check: &mut Check<'_>) {
    let is_server = [
        ("store.backend", config.store.backend == StoreBackend::Cassandra),
        ("queue.backend", config.queue.backend == QueueBackend::Rabbitmq),
        ("search.backend", config.search.backend == SearchBackend::Elasticsearch),
    ];
    let store = is_server[0].1;
    for (key, is_server) in &is_server[1..] {
        if *is_server != store {
            let (these, those) =
                if store { ("cassandra", "rabbitmq and elasticsearch") } else { ("sqlite", "sqlite and fts5") };
            check.report(
                key,
                &format!(
                    "does not go with store.backend {these}: the three are either embedded or servers, here {those}"
                ),
            );
        }
    }
}

struct Check<'a> {
    sources: &'a Sources,
    rejected: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn report(&mut self, key: &str, fault: &str) {
        if self.rejected.insert(key.to_owned()) {
            let source = self.sources.of(key).clone();
            self.problems.push(Problem { source, key: key.to_owned(), message: format!("{key} {fault}") });
        }
    }

    /// Whether `key` or the section it is in was rejected.
    fn is_rejected(&self, key: &str) -> bool {
        self.rejected.contains(key) || key.split_once('.').is_some_and(|(section, _)| self.rejected.contains(section))
    }

    /// Reports a rule between two keys, at whichever was set by the stronger layer: that is the one to change.
    fn relation(
        &mut self,
        holds: bool,
        (left, left_value): (&str, &str),
        rule: &str,
        inverse: &str,
        (right, right_value): (&str, &str),
    ) {
        if holds || self.is_rejected(left) || self.is_rejected(right) {
            return;
        }
        let swap = self.sources.of(right) > self.sources.of(left);
        let (key, value, rule, other, other_value) = if swap {
            (right, right_value, inverse, left, left_value)
        } else {
            (left, left_value, rule, right, right_value)
        };
        let fault =
            format!("is {value}, but must be {rule} {other}, which is {other_value} ({})", self.sources.of(other));
        let source = self.sources.of(key).clone();
        self.problems.push(Problem { source, key: key.to_owned(), message: format!("{key} {fault}") });
    }
}

fn bounds(config: &Config, check: &mut Check<'_>) {
    for limit in limits::of(config).iter().filter(|limit| !limit.holds()) {
        check.report(limit.key, &format!("is {}, but must be {}", limit.unit.format(limit.value), limit.range()));
    }
}

/// The rules between two numbers.
fn relations(config: &Config, check: &mut Check<'_>) {
    let limits = limits::of(config);
    let find = |key: &str| limits.iter().find(|limit| limit.key == key);
    let rules: [(&str, Rule, &str); 10] = [
        ("server.max_unauthenticated", Rule::AtMost, "server.max_connections"),
        ("session.outbox_bytes", Rule::AtLeast, "session.max_frame_bytes"),
        ("session.idle_timeout", Rule::MoreThan, "session.ping_interval"),
        ("session.max_frame_bytes", Rule::FitsText, "channels.max_body_bytes"),
        ("welcome.messages", Rule::AtMost, "channels.ring_frames"),
        ("search.total_cap", Rule::AtLeast, "search.max_results"),
        ("auth.refresh_token_ttl", Rule::MoreThan, "auth.access_token_ttl"),
        ("queue.max_depth", Rule::AtLeast, "queue.prefetch"),
        ("queue.dedup_window", Rule::AtLeast, "queue.prefetch"),
        ("queue.lease", Rule::MoreThan, "queue.poll_interval"),
    ];
    for (left, rule, right) in rules {
        let (Some(left), Some(right)) = (find(left), find(right)) else { continue };
        let (words, inverse) = rule.words();
        check.relation(
            rule.holds(left.value, right.value),
            (left.key, &left.unit.format(left.value)),
            words,
            inverse,
            (right.key, &right.unit.format(right.value)),
        );
    }
}

#[derive(Clone, Copy)]
enum Rule {
    AtMost,
    AtLeast,
    MoreThan,
    /// A frame of the left size holds a message of the right size.
    FitsText,
}

impl Rule {
    fn holds(self, left: u128, right: u128) -> bool {
        match self {
            Self::AtMost => left <= right,
            Self::AtLeast => left >= right,
            Self::MoreThan => left > right,
            Self::FitsText => left >= right + ENVELOPE_BYTES as u128,
        }
    }

    /// The rule as a sentence about the left key, and about the right one.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::AtMost => ("at most", "at least"),
            Self::AtLeast => ("at least", "at most"),
            Self::MoreThan => ("more than", "less than"),
            Self::FitsText => ("1KiB or more above", "1KiB or more below"),
        }
    }
}

fn listen(key: &str, text: &str, check: &mut Check<'_>) {
    if text.parse::<SocketAddr>().is_ok() || is_host_and_port(text) {
        return;
    }
    let hint = match text.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => "; an IPv6 address is written in brackets",
        None => "; the port is missing",
        Some(_) => "",
    };
    check.report(
        key,
        &format!("is {text:?}, but must be an address such as 127.0.0.1:8080, [::1]:8080 or localhost:8080{hint}"),
    );
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// A host name after RFC 1123 §2.1. One that ends in a number is a mistyped IPv4 address, such as 127.0.0.256.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && !last_is_number
}

fn origins(origins: &[String], check: &mut Check<'_>) {
    const KEY: &str = "server.allowed_origins";
    if origins.len() > 1 && origins.iter().any(|origin| origin == "*") {
        check.report(KEY, "has \"*\" among other origins, but \"*\" already lets every origin in");
    }
    if let Some(origin) = origins.iter().find(|origin| *origin != "*" && !is_origin(origin)) {
        let fault = format!(
            "has {origin:?}, but an origin is a scheme, a host in lower case and a port if it isn't the scheme's own, such as \
             https://chat.example.org, with nothing after it"
        );
        check.report(KEY, &fault);
    }
}

/// Whether `text` is an origin as browsers send it (RFC 6454 §6.2): anything else would never match.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let own_port = match scheme {
        "http" => "80",
        "https" => "443",
        // Applications in a web view have schemes of their own (`tauri://localhost`).
        _ => "",
    };
    let scheme_is_one = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
    let v6_end = authority.find(']').filter(|_| authority.starts_with('['));
    let (host, port) = match v6_end {
        Some(end) => {
            (&authority[..=end], authority[end + 1..].strip_prefix(':').or((authority.len() == end + 1).then_some("0")))
        }
        None => authority.split_once(':').map_or((authority, Some("0")), |(host, port)| (host, Some(port))),
    };
    let host_is_one = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            host.parse::<std::net::Ipv4Addr>().is_ok()
                || (is_host(host) && !host.bytes().any(|byte| byte.is_ascii_uppercase()))
        }
    };
    scheme_is_one && host_is_one && port.is_some_and(|port| is_port(port) && port != own_port)
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
