//! Servers with users and TLS. That everything works on them, the outages show; here, what happens to a process that isn't
//! let in, or doesn't trust them.

use std::process::Command;

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
