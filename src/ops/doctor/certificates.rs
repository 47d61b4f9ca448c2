//! The certificates of the configuration, and those of the servers.

use reqwest::Url;

use super::certificate::{of_file, of_server};
use super::finding::Finding;
use crate::config::Config;
use crate::server::tls;

const CHECK: &str = "certificates";

pub async fn check(config: &Config) -> Vec<Finding> {
    let files = [
        ("cassandra.ca_file", &config.cassandra.ca_file),
        ("cassandra.cert_file", &config.cassandra.cert_file),
        ("rabbitmq.ca_file", &config.rabbitmq.ca_file),
        ("rabbitmq.cert_file", &config.rabbitmq.cert_file),
        ("elasticsearch.ca_file", &config.elasticsearch.ca_file),
    ];
    let files = files.into_iter().filter(|(_, file)| tls::is_set(file));
    let mut findings: Vec<Finding> = files.map(|(key, file)| of_file(CHECK, key, file)).collect();
    let servers = servers(config).into_iter().map(|(host, port)| of_server(CHECK, host, port));
    findings.extend(futures_util::future::join_all(servers).await);
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "none is used: no server is spoken to over TLS"));
    }
    findings
}

/// Those that are spoken to over TLS.
fn servers(config: &Config) -> Vec<(String, u16)> {
    let mut servers = Vec::new();
    if config.cassandra.tls {
        let points = config.cassandra.contact_points.iter().filter_map(|point| point.rsplit_once(':'));
        servers.extend(points.filter_map(|(host, port)| Some((host.to_owned(), port.parse().ok()?))));
    }
    for (address, scheme, usual) in [
        (&config.rabbitmq.url, "amqps", 5671),
        (&config.rabbitmq.management_url, "https", 443),
        (&config.elasticsearch.url, "https", 443),
    ] {
        if let Ok(url) = address.parse::<Url>()
            && url.scheme() == scheme
            && let Some(host) = url.host_str()
        {
            servers.push((host.to_owned(), url.port().unwrap_or(usual)));
        }
    }
    servers
}
