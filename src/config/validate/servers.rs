//! Whether the sections that name other servers make sense.

use std::path::Path;

use super::{Check, is_host_and_port};
use crate::config::Config;

pub(super) fn problems(config: &Config, check: &mut Check<'_>) {
    let Config { cassandra, rabbitmq, elasticsearch, .. } = config;
    if cassandra.contact_points.is_empty() || !cassandra.contact_points.iter().all(|point| is_node(point)) {
        check.report(
            "cassandra.contact_points",
            "must name at least one node, each as host:port such as 127.0.0.1:9042",
        );
    }
    if !is_keyspace(&cassandra.keyspace) {
        let fault = format!(
            "is {:?}, but must be a lower-case letter and up to 47 more of letters, digits and _",
            cassandra.keyspace
        );
        check.report("cassandra.keyspace", &fault);
    }
    if let Some(wrong) = cassandra.replication.iter().find(|entry| replicas(entry).is_none()) {
        let fault = format!("has {wrong:?}, but each must be a datacenter and its replicas, such as dc1:3");
        check.report("cassandra.replication", &fault);
    }
    url("rabbitmq.url", &rabbitmq.url, &["amqp://", "amqps://"], check);
    if !rabbitmq.management_url.is_empty() {
        url("rabbitmq.management_url", &rabbitmq.management_url, &["http://", "https://"], check);
    }
    url("elasticsearch.url", &elasticsearch.url, &["http://", "https://"], check);
    if !is_alias(&elasticsearch.alias) {
        let fault = format!(
            "is {:?}, but must be lower-case letters, digits, - and _, and begin with a letter",
            elasticsearch.alias
        );
        check.report("elasticsearch.alias", &fault);
    }
    certificate("cassandra", &cassandra.cert_file, &cassandra.key_file, check);
    certificate("rabbitmq", &rabbitmq.cert_file, &rabbitmq.key_file, check);
}

/// `dc1:3` as its two parts.
pub(crate) fn replicas(entry: &str) -> Option<(&str, u16)> {
    let (datacenter, count) = entry.rsplit_once(':')?;
    let is_name =
        !datacenter.is_empty() && datacenter.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let count = count.parse().ok().filter(|count| (1..=100).contains(count))?;
    is_name.then_some((datacenter, count))
}

fn is_node(point: &str) -> bool {
    point.parse::<std::net::SocketAddr>().is_ok() || is_host_and_port(point)
}

/// An identifier that needs no quotes in CQL, of at most 48 characters.
fn is_keyspace(name: &str) -> bool {
    name.len() <= 48
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_alias(name: &str) -> bool {
    name.len() <= 200
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
}

/// The value itself is not shown: it may hold a password.
fn url(key: &str, value: &str, schemes: &[&str], check: &mut Check<'_>) {
    let rest = schemes.iter().find_map(|scheme| value.strip_prefix(scheme));
    if rest.is_none_or(str::is_empty) || value.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
        check.report(key, &format!("must begin with {} and name a host", schemes.join(" or ")));
    }
}

fn certificate(section: &str, cert_file: &Path, key_file: &Path, check: &mut Check<'_>) {
    if cert_file.as_os_str().is_empty() != key_file.as_os_str().is_empty() {
        check.report(&format!("{section}.cert_file"), &format!("and {section}.key_file go together: set both or none"));
    }
}
