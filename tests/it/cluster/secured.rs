//! Servers with users and TLS. That everything works on them, the outages show; here, what happens to a process that isn't
//! let in, or doesn't trust them.

use std::process::Command;

use serde_json::Value;

use super::namespace::Namespace;
use super::servers::Breakable;

/// What is wrong in the configuration, and what the error must name.
const WRONG: [(&[(&str, &str)], &str); 10] = [
    (&[("CASSANDRA_USERNAME", "")], "set cassandra.username and cassandra.password"),
    (&[("CASSANDRA_PASSWORD", "guessed")], "cassandra.username or cassandra.password is wrong"),
    (&[("CASSANDRA_CA_FILE", "")], "cassandra.ca_file"),
    (&[("CASSANDRA_CERT_FILE", ""), ("CASSANDRA_KEY_FILE", "")], "cassandra.cert_file and key_file"),
    (&[("RABBITMQ_URL", "amqps://guest:guessed@ADDRESS/VHOST")], "ACCESS_REFUSED"),
    (&[("RABBITMQ_CA_FILE", "")], "rabbitmq.ca_file"),
    (&[("RABBITMQ_CERT_FILE", ""), ("RABBITMQ_KEY_FILE", "")], "rabbitmq.cert_file and key_file"),
    (&[("ELASTICSEARCH_USERNAME", "")], "elasticsearch.username and password"),
    (&[("ELASTICSEARCH_PASSWORD", "guessed")], "elasticsearch.username and password"),
    (&[("ELASTICSEARCH_CA_FILE", "")], "elasticsearch.ca_file"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_names_what_to_set() {
    let breakable = Breakable::take().await;
    let namespace = tokio::task::block_in_place(|| Namespace::new(&breakable.servers));
    let status = |wrong: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aula"));
        command.arg("--config").arg(namespace.config()).args(["migrate", "status"]).env("NO_COLOR", "1");
        for (key, value) in wrong {
            let value = value.replace("ADDRESS", namespace.broker_address()).replace("VHOST", &namespace.name);
            command.env(format!("AULA_{key}"), value);
        }
        command.output().unwrap()
    };
    let allowed = status(&[]);
    assert!(allowed.status.success(), "{}", String::from_utf8_lossy(&allowed.stderr));
    for (wrong, named) in WRONG {
        let refused = status(wrong);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{wrong:?}: {said}");
        assert!(said.contains(named), "{wrong:?}: {said}");
        assert!(!said.contains("guessed"), "a password is shown: {said}");
        assert_eq!(said.lines().filter(|line| line.contains("error")).count(), 1, "said once: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_looks_at_their_certificates() {
    let breakable = Breakable::take().await;
    let namespace = tokio::task::block_in_place(|| Namespace::new(&breakable.servers));
    let doctor = |wrong: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aula"));
        command.arg("--config").arg(namespace.config()).args(["--output", "json", "doctor"]);
        command.envs(wrong.iter().map(|(key, value)| (format!("AULA_{key}"), value)));
        let ended = command.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        let findings: Vec<Value> =
            serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
        (ended.status.code(), findings)
    };
    let (code, findings) = doctor(&[]);
    assert_eq!(code, Some(0), "{findings:#?}");
    let of = |check: &str| findings.iter().filter(|finding| finding["check"] == check).collect::<Vec<_>>();
    let certificates = of("certificates");
    // Three of authorities, two of ours, and those of three servers. They are good for a month or less.
    assert_eq!(certificates.len(), 8, "{certificates:#?}");
    for finding in certificates {
        assert!(finding["found"].as_str().unwrap().contains("expires on"), "{finding:#}");
        assert_ne!(finding["state"], "problem", "{finding:#}");
    }
    for server in ["cassandra", "elasticsearch", "rabbitmq"] {
        assert_eq!(of(server)[0]["state"], "ok", "{findings:#?}");
    }
    let (code, findings) = doctor(&[("CASSANDRA_PASSWORD", "guessed")]);
    assert_eq!(code, Some(1), "{findings:#?}");
    let refused = findings.iter().find(|finding| finding["check"] == "cassandra" && finding["state"] == "problem");
    let cure = refused.unwrap_or_else(|| panic!("{findings:#?}")).to_string();
    assert!(cure.contains("cassandra.password") && !cure.contains("guessed"), "{cure}");
}
