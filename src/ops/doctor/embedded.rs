//! The embedded deployment: its file, who is at work on it, its index.

use std::time::Instant;

use super::disk::size;
use super::finding::Finding;
use super::{queues, schema};
use crate::config::Config;
use crate::message::Millis;
use crate::server::backends::Stored;
use crate::server::lock;
use crate::server::sqlite::{FILE_NAME, migrate};

const CHECK: &str = "database";
/// A write-ahead log as long as this was not folded in for long: somebody holds a reader open, or the disk is slow.
const LONG_LOG: u64 = 256 << 20;

pub async fn database(config: &Config) -> Vec<Finding> {
    let path = config.data_dir.join(FILE_NAME);
    let shown = path.display();
    let Ok(file) = std::fs::metadata(&path) else {
        return vec![Finding::warning(
            CHECK,
            format!("{shown} is not there"),
            "`aula serve` makes it; if there should be one: `aula config print` says which folder is meant",
        )];
    };
    let mut findings = match migrate::status(&path) {
        Ok(steps) => schema::judge("schema", &steps),
        Err(error) => {
            let cure = "runbooks/does-not-start.md";
            return vec![Finding::problem(
                CHECK,
                format!("{shown} can't be read: {:#}", anyhow::Error::new(error)),
                cure,
            )];
        }
    };
    let began = Instant::now();
    match Stored::open(config).await {
        Ok(stored) => match stored.scan.parts(1).await {
            Ok(_) => {
                let latency = began.elapsed().as_secs_f64() * 1_000.0;
                let found = format!("{shown}, {}, answers in {latency:.1} ms", size(file.len()));
                findings.push(Finding::ok(CHECK, found));
            }
            Err(error) => {
                let cure = "runbooks/does-not-start.md";
                findings.push(Finding::problem(CHECK, format!("{shown} can't be read: {error}"), cure));
            }
        },
        // What it wants is among the findings of the schema.
        Err(error) => findings.push(Finding::unknown(CHECK, format!("{error:#}"), "`aula migrate`")),
    }
    let log = std::fs::metadata(path.with_extension("db-wal")).map_or(0, |log| log.len());
    if log > LONG_LOG {
        let found = format!("the write-ahead log is {} long", size(log));
        let cure = "end what reads the file for long (`fuser -v` names it), or restart the server";
        findings.push(Finding::warning(CHECK, found, cure));
    }
    findings.push(match lock::is_held(&config.data_dir) {
        true => Finding::ok("server", "one is at work on this data directory"),
        false => Finding::warning("server", "none is at work on this data directory", "`aula serve`"),
    });
    findings
}

pub async fn index_lag(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "search index";
    if !config.data_dir.join(FILE_NAME).exists() {
        return Vec::new();
    }
    let asked = async {
        let stored = Stored::open(config).await?;
        let indexes = stored.rebuild.indexes().await?;
        anyhow::Ok((stored.index_audit.lag().await?, indexes.next))
    };
    match asked.await {
        Ok(((waiting, oldest), next)) => {
            let mut findings = vec![queues::embedded_lag(waiting, oldest, Millis::now())];
            if next.is_some() {
                let found = "another index is being built, or was left half-built";
                findings.push(Finding::warning(CHECK, found, "`aula reindex --resume`, or `aula reindex --abandon`"));
            }
            findings
        }
        Err(error) => vec![Finding::unknown(CHECK, format!("{error:#}"), "`aula migrate`, then `aula reindex`")],
    }
}
