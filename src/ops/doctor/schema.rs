//! Whether the servers have what this binary needs: what `aula migrate` makes and compares.

use super::finding::Finding;
use crate::config::Config;
use crate::server::migrate::{Kind, MigrateError, Migrator, State, Step, Target};

pub async fn cassandra(config: &Config) -> Vec<Finding> {
    of(config, "cassandra schema", Target::Cassandra).await
}

pub async fn elasticsearch(config: &Config) -> Vec<Finding> {
    of(config, "elasticsearch schema", Target::Elasticsearch).await
}

pub async fn rabbitmq(config: &Config) -> Vec<Finding> {
    of(config, "rabbitmq schema", Target::Rabbitmq).await
}

async fn of(config: &Config, check: &'static str, target: Target) -> Vec<Finding> {
    let status = async { Migrator::connect(config, &[target]).await?.status().await };
    match status.await {
        Ok(steps) => judge(check, &steps),
        Err(error) => vec![unknown(check, error)],
    }
}

/// It is not compared with anything: that the server is not there is told by its own check.
fn unknown(check: &'static str, error: MigrateError) -> Finding {
    let hint = error.hint().unwrap_or("bring the server up first: `aula migrate status` compares it then");
    let why = format!("{:#}", anyhow::Error::new(error));
    Finding::unknown(check, why, hint)
}

/// Of all steps of one schema.
pub fn judge(check: &'static str, steps: &[Step]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let named = |state: fn(&State) -> bool| {
        let of_it = steps.iter().filter(|step| state(&step.state));
        let names: Vec<String> = of_it.map(|step| crate::server::migrate::label(step.version, &step.name)).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(names) = named(|state| matches!(state, State::Pending | State::Absent)) {
        findings.push(Finding::problem(check, format!("not there yet: {names}"), "`aula migrate`"));
    }
    if let Some(names) = named(|state| matches!(state, State::Changed | State::Missing)) {
        let cure = "use the binary that applied it: `aula migrate status` lists what differs";
        findings.push(Finding::problem(check, format!("applied from other files than this binary's: {names}"), cure));
    }
    if let Some(names) = named(|state| matches!(state, State::Newer { kind: Kind::Contract })) {
        let found = format!("a later release has taken away what this binary needs: {names}");
        findings.push(Finding::problem(check, found, "run that release here, too: runbooks/upgrade.md"));
    }
    if let Some(names) = named(|state| matches!(state, State::Newer { kind: Kind::Expand })) {
        let found = format!("made by a later release: {names}");
        findings.push(Finding::warning(check, found, "bring all processes to that release: runbooks/upgrade.md"));
    }
    for step in steps {
        let State::Differs { differences, up_repairs } = &step.state else { continue };
        let cure = if *up_repairs {
            "`aula migrate` puts it right, `aula migrate plan` says how"
        } else {
            "it was changed by hand: set it back as told, or delete it when it is empty and run `aula migrate`"
        };
        findings.extend(differences.iter().map(|difference| Finding::problem(check, difference, cure)));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(check, "is as this binary needs it"));
    }
    findings
}
