//! `aula migrate` by several processes at once, as by the jobs of a deployment.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::Value;

use super::namespace::Namespace;
use super::servers::Servers;

const PROCESSES: usize = 10;
/// What goes wrong among them is a matter of moments.
const ROUNDS: usize = 4;

#[test]
fn ten_processes_at_once_bring_up_a_new_deployment() {
    for round in 0..ROUNDS {
        let namespace = Namespace::not_migrated(&Servers::shared(), false);
        let processes: Vec<_> = (0..PROCESSES)
            .map(|_| {
                let mut command = namespace.aula();
                // The machine may have little time for ten.
                command.args(["migrate", "--wait", "3m", "--output", "json"]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let outputs: Vec<_> = processes.into_iter().map(|process| process.wait_with_output().unwrap()).collect();
        let mut applied: BTreeMap<String, usize> = BTreeMap::new();
        for output in outputs {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "round {round}: {}\n{said}", output.status);
            let steps: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
            for step in steps {
                *applied.entry(format!("{} {}", step["target"], step["name"])).or_default() += 1;
            }
        }
        assert!(applied.len() >= 4 && applied.values().all(|times| *times == 1), "round {round}: {applied:?}");
        let status = namespace.aula().args(["migrate", "status"]).output().unwrap();
        assert!(status.status.success(), "round {round}: {status:?}");
    }
}
