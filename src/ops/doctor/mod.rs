//! `aula doctor`: what is wrong with this host and the servers of the configuration, or soon will be.

mod cassandra;
mod certificate;
mod certificates;
mod clock;
mod disk;
mod elasticsearch;
mod embedded;
mod finding;
mod limits;
mod queues;
mod rabbitmq;
mod schema;
mod version;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesOrdered, StreamExt as _};

use self::finding::{Finding, State};
use super::{Context, Exit, arguments};
use crate::config::{Config, Deployment};

/// Say what is wrong with this host and the servers of the configuration, or soon will be
///
/// It looks at: the configuration, the servers and how fast they answer, their versions and clocks, schemas and queue
/// definitions, certificates, disks, this system's limits for as many connections as are configured, the queues, and how
/// far the search index is behind. All is looked at side by side, nothing is changed, and what can't be looked at is said.
///
/// Each line that is not ok has its cure: a command, as a rule.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aula doctor                               what there is, with what to do about it
  aula --output json doctor                 the same for scripts
  aula --quiet doctor                       only what is not ok

Exit codes: 0 no problem, though maybe warnings; 1 a problem; 2 wrong arguments.")]
pub struct Args {
    /// What takes longer is given up, and told as not looked at
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = arguments::duration)]
    timeout: Duration,
}

type Check = Pin<Box<dyn Future<Output = Vec<Finding>>>>;

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = match context.load(&context.overrides) {
            Ok(config) => config,
            Err(error) => return report(context, vec![invalid(&error)]),
        };
        super::logging::start(&config.log, super::logging::Reader::Command);
        let mut findings = vec![Finding::ok("configuration", format!("is valid: {}", kind(&config)))];
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let config = Arc::new(config);
            let mut running: FuturesOrdered<_> =
                checks(&config).into_iter().map(|(name, check)| self.bounded(name, check)).collect();
            while let Some(found) = running.next().await {
                findings.extend(found);
            }
        });
        // What still waits for a server that doesn't answer is not waited for.
        runtime.shutdown_background();
        report(context, findings)
    }

    async fn bounded(&self, name: &'static str, check: Check) -> Vec<Finding> {
        tokio::time::timeout(self.timeout, check).await.unwrap_or_else(|_elapsed| {
            let why = format!("no answer within {} s", self.timeout.as_secs());
            vec![Finding::unknown(name, why, "give it longer: `aula doctor --timeout 60s`")]
        })
    }
}

fn checks(config: &Arc<Config>) -> Vec<(&'static str, Check)> {
    /// With a configuration of its own.
    macro_rules! check {
        ($name:literal, $check:path) => {{
            let config = Arc::clone(config);
            ($name, Box::pin(async move { $check(&config).await }) as Check)
        }};
    }
    let mut checks = match config.deployment() {
        Deployment::Embedded => {
            vec![check!("database", embedded::database), check!("search index", embedded::index_lag)]
        }
        Deployment::Distributed => vec![
            check!("cassandra", cassandra::check),
            check!("elasticsearch", elasticsearch::check),
            check!("rabbitmq", rabbitmq::check),
            check!("cassandra schema", schema::cassandra),
            check!("elasticsearch schema", schema::elasticsearch),
            check!("rabbitmq schema", schema::rabbitmq),
            check!("certificates", certificates::check),
        ],
    };
    checks.extend([check!("queues", queues::check), check!("disk", disk::check), check!("limits", limits::check)]);
    checks
}

fn kind(config: &Config) -> &'static str {
    match config.deployment() {
        Deployment::Embedded => "embedded",
        Deployment::Distributed => "distributed",
    }
}

fn invalid(error: &anyhow::Error) -> Finding {
    // What it is caused by is a part of it.
    let what = error.to_string().lines().map(str::trim).collect::<Vec<_>>().join("; ");
    Finding::problem("configuration", what, "`aula config check` says where; nothing else was looked at")
}

fn report(context: &Context, findings: Vec<Finding>) -> anyhow::Result<Exit> {
    let worst = findings.iter().map(|finding| finding.state).max();
    let output = &context.output;
    let shown: Vec<Finding> =
        findings.into_iter().filter(|finding| !output.is_quiet() || finding.state != State::Ok).collect();
    if output.is_json() {
        output.json(&shown)?;
    } else {
        output.text(&text(&shown))?;
    }
    Ok(if worst == Some(State::Problem) { Exit::Failed } else { Exit::Done })
}

/// A line each, and below it the cure.
fn text(findings: &[Finding]) -> String {
    let printable = super::output::printable;
    let checks = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let states = findings.iter().map(|finding| finding.state.as_str().len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, state, found, cure } in findings {
        text.push_str(&format!("{check:<checks$}  {:<states$}  {}\n", state.as_str(), printable(found)));
        if let Some(cure) = cure {
            text.push_str(&format!("{:<checks$}  {:<states$}    cure: {}\n", "", "", printable(cure)));
        }
    }
    let count = |state: State| findings.iter().filter(|finding| finding.state == state).count();
    let (problems, warnings, unknown) = (count(State::Problem), count(State::Warning), count(State::Unknown));
    text.push_str(&match (problems, warnings, unknown) {
        (0, 0, 0) => "nothing is wrong\n".to_owned(),
        _ => format!("problems: {problems}, warnings: {warnings}, not looked at: {unknown}\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_its_cure_below_it() {
        let findings = [Finding::ok("disk", "10 GB free"), Finding::warning("file limit", "1024", "`ulimit -n 20000`")];
        assert_eq!(
            text(&findings),
            "disk        ok       10 GB free\n\
             file limit  warning  1024\n                       cure: `ulimit -n 20000`\n\
             problems: 0, warnings: 1, not looked at: 0\n"
        );
        assert!(State::Problem > State::Warning && State::Warning > State::Unknown && State::Unknown > State::Ok);
    }
}
