//! RabbitMQ: reachable, of a known version, without an alarm, its clock. Its queues are compared with the schema.

use std::time::Instant;

use serde_json::Value;

use super::disk::size;
use super::finding::Finding;
use super::{clock, version};
use crate::config::Config;
use crate::message::Millis;
use crate::server::rabbitmq::Link;
use crate::server::rabbitmq::management::Management;

const CHECK: &str = "rabbitmq";
/// More of its descriptors in use is a warning, in percent.
const MANY_DESCRIPTORS: u64 = 80;

pub async fn check(config: &Config) -> Vec<Finding> {
    let began = Instant::now();
    let mut findings = match Link::open(&config.rabbitmq, "doctor").await {
        Ok(link) => {
            let latency = began.elapsed().as_secs_f64() * 1_000.0;
            vec![Finding::ok(CHECK, format!("{} takes a connection in {latency:.1} ms", link.address()))]
        }
        Err(error) => {
            let cure = "is it up, and is rabbitmq.url right? `rabbitmqctl status` there; runbooks/rabbitmq-down.md";
            vec![Finding::problem(CHECK, format!("{error:#}"), cure)]
        }
    };
    findings.extend(managed(config).await);
    findings
}

async fn managed(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "rabbitmq management";
    let cure = "set rabbitmq.management_url, and give its user the tag: `rabbitmqctl set_user_tags USER monitoring`";
    let management = match Management::new(&config.rabbitmq) {
        Ok(Some(management)) => management,
        Ok(None) => return vec![Finding::unknown(CHECK, "rabbitmq.management_url is not set", cure)],
        Err(error) => return vec![Finding::problem(CHECK, format!("{error:#}"), cure)],
    };
    let (asked, began) = (Millis::now(), Instant::now());
    let overview = management.ask(&["overview"]).await;
    let (answered, latency) = (Millis::now(), began.elapsed().as_secs_f64() * 1_000.0);
    let (date, overview) = match overview {
        Ok(answer) => answer,
        Err(error) => return vec![Finding::warning(CHECK, error.to_string(), cure)],
    };
    let mut findings = vec![Finding::ok(CHECK, format!("answers in {latency:.1} ms"))];
    findings.push(match overview["rabbitmq_version"].as_str() {
        Some(version) => version::RABBITMQ.judge("rabbitmq version", version),
        None => Finding::unknown("rabbitmq version", "it is not told", "`rabbitmqctl version`"),
    });
    findings.push(match date.as_deref().and_then(clock::of_header) {
        Some(theirs) => clock::judge("rabbitmq clock", theirs, asked, answered, 1_000),
        None => Finding::unknown("rabbitmq clock", "its answers don't say what time it is", "`date -u` on both hosts"),
    });
    match management.ask(&["nodes"]).await {
        Ok((_, nodes)) => findings.extend(nodes.as_array().into_iter().flatten().flat_map(of_node)),
        Err(error) => findings.push(Finding::unknown("rabbitmq nodes", error.to_string(), cure)),
    }
    findings
}

fn of_node(node: &Value) -> Vec<Finding> {
    let name = node["name"].as_str().unwrap_or("?");
    let runbook = "runbooks/rabbitmq-down.md";
    if node["running"] == false {
        let cure = format!("`systemctl start rabbitmq-server` on its host; {runbook}");
        return vec![Finding::problem("rabbitmq nodes", format!("{name} is not running"), cure)];
    }
    let number = |key: &str| node[key].as_u64();
    let mut findings = Vec::new();
    if node["mem_alarm"] == true {
        let cure = format!("let consumers catch up, or give it more memory: `rabbitmqctl status`; {runbook}");
        findings.push(Finding::problem(
            "rabbitmq memory",
            format!("{name} has the memory alarm: it takes nothing"),
            cure,
        ));
    }
    if let (Some(free), Some(limit)) = (number("disk_free"), number("disk_free_limit")) {
        let said = format!("{name}: {} free, the alarm is at {}", size(free), size(limit));
        let cure = format!("make room on its disk; {runbook}");
        findings.push(match node["disk_free_alarm"] == true {
            true => Finding::problem("rabbitmq disk", format!("{said}: it takes nothing"), cure),
            false if free < limit.saturating_mul(2) => Finding::warning("rabbitmq disk", said, cure),
            false => Finding::ok("rabbitmq disk", said),
        });
    }
    for (used, total, what) in
        [("fd_used", "fd_total", "file descriptors"), ("sockets_used", "sockets_total", "sockets")]
    {
        if let (Some(used), Some(total @ 1..)) = (number(used), number(total)) {
            let said = format!("{name}: {used} of {total} {what} are in use");
            findings.push(match used * 100 / total {
                MANY_DESCRIPTORS.. => Finding::warning("rabbitmq limits", said, "raise LimitNOFILE of its service"),
                _ => Finding::ok("rabbitmq limits", said),
            });
        }
    }
    let partitions = node["partitions"].as_array().map_or(0, Vec::len);
    if partitions > 0 {
        let found = format!("{name} is cut off from {partitions} other nodes");
        findings.push(Finding::problem("rabbitmq nodes", found, format!("`rabbitmqctl cluster_status`; {runbook}")));
    }
    findings
}
