//! What this system leaves room for, beside the connections that are configured.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::finding::Finding;
use crate::config::Config;

/// Descriptors besides the clients' connections: databases, logs, servers, and some to spare.
const OTHERS: u64 = 512;
/// Connections that the listener asks the kernel to keep waiting.
const BACKLOG: u64 = 1_024;
/// Ports for connections to other servers.
const FEW_PORTS: u64 = 10_000;

pub async fn check(config: &Config) -> Vec<Finding> {
    let connections = config.server.max_connections as u64;
    let mut findings = vec![descriptors(config, connections)];
    findings.extend(number("/proc/sys/fs/file-max").map(|all| of_system(all, connections)));
    findings.extend(number("/proc/sys/net/core/somaxconn").map(backlog));
    findings.extend(ports());
    findings
}

/// Of the server if it runs on this host; else of this process, as what is started in the same way has it.
fn descriptors(config: &Config, connections: u64) -> Finding {
    const CHECK: &str = "file limit";
    let running = server_pid(config).and_then(|pid| limit_of(&pid).map(|limit| (pid, limit)));
    let (whose, limit) = match running {
        Some((pid, limit)) => (format!("the server (process {pid})"), limit),
        None => ("what is started here".to_owned(), getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)),
    };
    let needed = connections + OTHERS;
    let said = format!("{whose} may open {} files", told(limit));
    if limit >= needed {
        return Finding::ok(CHECK, format!("{said}: enough for {connections} connections"));
    }
    let found = format!("{said}, and server.max_connections {connections} need {needed}");
    let cure = format!(
        "LimitNOFILE={needed} in its systemd unit (or `ulimit -n {needed}` before it is started), or a lower \
         server.max_connections"
    );
    // A few missing are missed on the day on which all come.
    if limit >= needed / 2 { Finding::warning(CHECK, found, cure) } else { Finding::problem(CHECK, found, cure) }
}

fn told(limit: u64) -> String {
    if limit >= i64::MAX as u64 { "any number of".to_owned() } else { limit.to_string() }
}

/// The process that has the data directory, by its lock.
fn server_pid(config: &Config) -> Option<String> {
    if !crate::server::lock::is_held(&config.data_dir) {
        return None;
    }
    let pid = fs::read_to_string(config.data_dir.join("serve.lock")).ok()?;
    let pid = pid.trim();
    pid.parse::<u32>().is_ok().then(|| pid.to_owned())
}

fn limit_of(pid: &str) -> Option<u64> {
    soft_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

/// <https://man7.org/linux/man-pages/man5/proc_pid_limits.5.html>
fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn of_system(all: u64, connections: u64) -> Finding {
    const CHECK: &str = "system file limit";
    let found = format!("fs.file-max is {}", told(all));
    match all >= connections.saturating_mul(2) {
        true => Finding::ok(CHECK, found),
        false => Finding::warning(CHECK, found, format!("`sysctl -w fs.file-max={}`", connections.saturating_mul(4))),
    }
}

/// After a gateway has died all come at once: more wait than any other time.
fn backlog(most: u64) -> Finding {
    const CHECK: &str = "backlog";
    let found = format!("net.core.somaxconn is {most}");
    match most >= BACKLOG {
        true => Finding::ok(CHECK, found),
        false => Finding::warning(CHECK, found, "`sysctl -w net.core.somaxconn=4096`, and in /etc/sysctl.d"),
    }
}

/// A gateway needs few; one who connects many clients from one address needs one each.
fn ports() -> Option<Finding> {
    const CHECK: &str = "ports";
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<u64>().ok());
    let (first, last) = (ends.next()?, ends.next()?);
    let count = (last + 1).saturating_sub(first);
    let found = format!("{count} for connections to other servers, {first} to {last}");
    Some(match count >= FEW_PORTS {
        true => Finding::ok(CHECK, found),
        false => Finding::warning(
            CHECK,
            found,
            "`sysctl -w net.ipv4.ip_local_port_range='15000 64999'`, and in /etc/sysctl.d",
        ),
    })
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_another_process_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             95034                95034                processes \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(limits), Some(1_024));
        assert_eq!(soft_limit("Max open files   unlimited  unlimited files"), Some(u64::MAX));
        assert_eq!(soft_limit(""), None);
    }
}
