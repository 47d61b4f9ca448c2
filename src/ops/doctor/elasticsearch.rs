//! Elasticsearch: reachable, of a known version, healthy, with room, its clock.

use std::time::Instant;

use elasticsearch::Elasticsearch;
use elasticsearch::http::Method;
use elasticsearch::http::headers::HeaderMap;
use serde_json::Value;

use super::finding::Finding;
use super::{clock, version};
use crate::config::Config;
use crate::message::Millis;
use crate::server::search::connect_elasticsearch;

const CHECK: &str = "elasticsearch";
/// By default the server allots nothing to a disk as full as this, and moves shards away from one as full as the next.
const LOW_PERCENT: u64 = 85;
const HIGH_PERCENT: u64 = 90;

struct Answer {
    value: Value,
    /// The server's time, as its header says it.
    date: Option<String>,
}

pub async fn check(config: &Config) -> Vec<Finding> {
    let url = &config.elasticsearch.url;
    let unreachable = |why: String| {
        let cure = format!("is it up, and is elasticsearch.url right? `curl {url}`; runbooks/elasticsearch-down.md");
        vec![Finding::problem(CHECK, format!("{url}: {why}"), cure)]
    };
    let client = match connect_elasticsearch(&config.elasticsearch) {
        Ok(client) => client,
        Err(error) => return unreachable(format!("{error:#}")),
    };
    let (asked, began) = (Millis::now(), Instant::now());
    let health = ask(&client, "/_cluster/health").await;
    let (answered, latency) = (Millis::now(), began.elapsed());
    let health = match health {
        Ok(health) => health,
        Err(error) => return unreachable(error),
    };
    let mut findings = vec![Finding::ok(CHECK, format!("{url} answers in {:.1} ms", latency.as_secs_f64() * 1_000.0))];
    findings.push(of_health(&health.value));
    let (versions, disks, blocks) = tokio::join!(
        ask(&client, "/_nodes/_all/os?filter_path=nodes.*.version"),
        ask(&client, "/_cat/allocation?format=json&bytes=b"),
        blocks(&client, &config.elasticsearch.alias),
    );
    findings.push(of_versions(versions));
    findings.extend(of_disks(disks));
    findings.extend(blocks);
    findings.push(of_clock(health.date.as_deref(), asked, answered));
    findings
}

async fn ask(client: &Elasticsearch, path: &str) -> Result<Answer, String> {
    let headers = HeaderMap::new();
    let sent = client.send(Method::Get, path, headers, None::<&()>, None::<String>, None).await;
    let response = sent.map_err(|error| crate::server::search::elasticsearch_failure(&error))?;
    let status = response.status_code().as_u16();
    if status != 200 {
        let advice = if matches!(status, 401 | 403) { " (elasticsearch.username and password)" } else { "" };
        return Err(format!("it answers with status {status}{advice}"));
    }
    let date = response.headers().get("date").and_then(|date| date.to_str().ok()).map(str::to_owned);
    let value = response.json().await.map_err(|error| error.to_string())?;
    Ok(Answer { value, date })
}

fn of_health(health: &Value) -> Finding {
    const CHECK: &str = "elasticsearch health";
    let (status, nodes) = (health["status"].as_str().unwrap_or("unknown"), &health["number_of_nodes"]);
    let found = format!("{status}, {nodes} nodes, {} shards without a place", health["unassigned_shards"]);
    let cure = "`curl ELASTICSEARCH/_cluster/allocation/explain` says why; runbooks/elasticsearch-down.md";
    match status {
        "green" => Finding::ok(CHECK, found),
        "yellow" => Finding::warning(CHECK, found, cure),
        _ => Finding::problem(CHECK, found, cure),
    }
}

fn of_versions(answer: Result<Answer, String>) -> Finding {
    const CHECK: &str = "elasticsearch version";
    let unknown = |why: String| Finding::unknown(CHECK, why, "`curl ELASTICSEARCH/_cat/nodes?h=version`");
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return unknown(why),
    };
    let nodes = answer.value["nodes"].as_object().into_iter().flat_map(|nodes| nodes.values());
    let mut versions: Vec<&str> = nodes.filter_map(|node| node["version"].as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    match versions[..] {
        [] => unknown("no node tells its version".to_owned()),
        [version] => version::ELASTICSEARCH.judge(CHECK, version),
        _ => {
            let found = format!("the nodes are of several versions: {}", versions.join(", "));
            Finding::warning(CHECK, found, "finish the upgrade that was begun")
        }
    }
}

fn of_disks(answer: Result<Answer, String>) -> Vec<Finding> {
    const CHECK: &str = "elasticsearch disk";
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return vec![Finding::unknown(CHECK, why, "`curl ELASTICSEARCH/_cat/allocation?v`")],
    };
    let percent = |node: &Value| node["disk.percent"].as_str().and_then(|percent| percent.parse::<u64>().ok());
    let nodes = answer.value.as_array().into_iter().flatten();
    let mut findings: Vec<Finding> = nodes
        .filter_map(|node| Some((node["node"].as_str().unwrap_or("?"), percent(node)?)))
        .map(|(node, percent)| {
            let found = format!("{node}: {percent} % used");
            let cure =
                "make room on it, or add a node: at 95 % the index takes no more (runbooks/elasticsearch-down.md)";
            match percent {
                HIGH_PERCENT.. => Finding::problem(CHECK, found, cure),
                LOW_PERCENT.. => Finding::warning(CHECK, found, cure),
                _ => Finding::ok(CHECK, found),
            }
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::unknown(
            CHECK,
            "no node tells how full it is",
            "`curl ELASTICSEARCH/_cat/allocation?v`",
        ));
    }
    findings
}

/// Set by the server when a disk is full.
async fn blocks(client: &Elasticsearch, alias: &str) -> Vec<Finding> {
    let Ok(answer) = ask(client, &format!("/{alias}/_settings?flat_settings=true")).await else {
        // Without the index nothing of it is blocked: what is missing is told with the schema.
        return Vec::new();
    };
    let indexes = answer.value.as_object().into_iter().flatten();
    let is_blocked = |settings: &Value| {
        let settings = settings["settings"].as_object().into_iter().flatten();
        settings
            .filter(|(key, value)| key.starts_with("index.blocks.") && *value == "true")
            .map(|(key, _)| key.clone())
            .collect()
    };
    let blocked = indexes.map(|(index, settings)| (index, is_blocked(settings)));
    blocked
        .filter(|(_, blocks): &(_, Vec<String>)| !blocks.is_empty())
        .map(|(index, blocks)| {
            let nulls: Vec<String> = blocks.iter().map(|block| format!("\"{block}\": null")).collect();
            Finding::problem(
                "elasticsearch blocks",
                format!("the index {index} takes no writes: {}", blocks.join(", ")),
                format!(
                    "make room, then `curl -X PUT ELASTICSEARCH/{index}/_settings -H 'content-type: \
                         application/json' -d '{{{}}}'`",
                    nulls.join(", ")
                ),
            )
        })
        .collect()
}

/// A server without such a header doesn't tell its time.
fn of_clock(date: Option<&str>, asked: Millis, answered: Millis) -> Finding {
    const CHECK: &str = "elasticsearch clock";
    match date.and_then(clock::of_header) {
        Some(theirs) => clock::judge(CHECK, theirs, asked, answered, 1_000),
        None => Finding::unknown(CHECK, "its answers don't say what time it is", "`date -u` on both hosts"),
    }
}
