//! `aula doctor`: each kind of trouble is made for real, found, and told with its cure.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::cluster::namespace::Namespace;
use crate::cluster::servers::Servers;
use crate::server::{Builder, Server};

/// The exit status, and what it found.
fn doctor(on: &Builder, words: &[&str]) -> (i32, Vec<Value>) {
    let (status, out, err) = on.aula(&[&["--output", "json"], words, &["doctor"]].concat());
    let found = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error} in {out:?}; {err}"));
    (status.code().expect("not killed"), found)
}

fn of<'f>(findings: &'f [Value], check: &str) -> Vec<&'f Value> {
    findings.iter().filter(|finding| finding["check"] == check).collect()
}

/// One finding of this check is so, says this, and its cure that.
fn assert_finding(findings: &[Value], check: &str, state: &str, found: &str, cure: &str) {
    let is_it = |finding: &&Value| {
        let says = |key: &str, text: &str| finding[key].as_str().unwrap_or_default().contains(text);
        finding["check"] == check && finding["state"] == state && says("found", found) && says("cure", cure)
    };
    assert!(findings.iter().any(|finding| is_it(&finding)), "{check} {state}: {findings:#?}");
}

fn troubles(findings: &[Value]) -> Vec<&Value> {
    findings.iter().filter(|finding| finding["state"] == "problem").collect()
}

#[test]
fn a_running_server_has_no_problem_and_one_that_never_ran_is_said() {
    let on = Server::builder().env("AULA_SERVER_MAX_CONNECTIONS", 500).env("AULA_SERVER_MAX_UNAUTHENTICATED", 100);
    let (code, findings) = doctor(&on, &[]);
    assert_eq!(code, 0, "{findings:#?}");
    assert_finding(&findings, "database", "warning", "is not there", "`aula serve`");
    let server = on.start();
    let (code, findings) = doctor(&on, &[]);
    assert_eq!((code, troubles(&findings).len()), (0, 0), "{findings:#?}");
    for check in ["configuration", "database", "schema", "server", "search index", "queues", "disk", "file limit"] {
        assert_eq!(of(&findings, check)[0]["state"], "ok", "{findings:#?}");
    }
    // The limit is the server's, not this command's.
    let whose = format!("the server (process {})", server.pid());
    assert_finding(&findings, "file limit", "ok", &whose, "");
    let (status, text, _) = on.aula(&["doctor"]);
    assert!(status.success() && text.contains("configuration  ") && text.contains("  ok  "), "{text}");
    let (_, quiet, _) = on.aula(&["--quiet", "doctor"]);
    assert!(!quiet.contains("  ok  "), "{quiet}");
}

#[test]
fn low_limits_pending_migrations_and_wrong_configurations_are_found() {
    let on = Server::builder();
    assert!(on.aula(&["migrate"]).0.success());
    let file = rusqlite::Connection::open(on.dir().join("aula.db")).unwrap();
    file.execute("DELETE FROM schema_migrations WHERE version = (SELECT max(version) FROM schema_migrations)", [])
        .unwrap();
    drop(file);
    let low = on.clone().wrapper(["prlimit", "--nofile=600:600", "--"]).env("AULA_SERVER_MAX_CONNECTIONS", 5_000);
    let low = low.env("AULA_SERVER_MAX_UNAUTHENTICATED", 100);
    let (code, findings) = doctor(&low, &[]);
    assert_eq!(code, 1, "{findings:#?}");
    assert_finding(&findings, "schema", "problem", "not there yet: 000", "`aula migrate`");
    assert_finding(&findings, "file limit", "problem", "may open 600 files", "LimitNOFILE=5512");
    assert_finding(&findings, "server", "warning", "none is at work", "`aula serve`");

    let wrong = on.clone().env("AULA_SERVER_MAX_CONNECTIONS", "many");
    let (code, findings) = doctor(&wrong, &[]);
    assert_eq!((code, findings.len()), (1, 1), "{findings:#?}");
    assert_finding(&findings, "configuration", "problem", "server.max_connections", "`aula config check`");
    let (status, _, _) = on.aula(&["doctor", "--timeout", "x"]);
    assert_eq!(status.code(), Some(2));
}

/// Self-signed, good for so many days from now; -1: until yesterday.
fn certificate(folder: &Path, name: &str, days: i32) -> String {
    let path = |end: &str| folder.join(format!("{name}.{end}")).display().to_string();
    let (key, request, file) = (path("key"), path("csr"), path("pem"));
    let run = |words: &[&str]| {
        let made = Command::new("openssl").args(words).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test"];
    run(&[&["req"], &curve[..], &["-keyout", &key, "-out", &request]].concat());
    run(&["x509", "-req", "-in", &request, "-signkey", &key, "-days", &days.to_string(), "-out", &file]);
    file
}

#[test]
fn on_servers_each_trouble_is_told_with_its_cure() {
    let cluster = Cluster::of(Arc::new(Namespace::new(&Servers::shared())), 1, 1, &[]);
    let on = cluster.builder();
    let (code, findings) = doctor(&on, &[]);
    assert_eq!((code, troubles(&findings).len()), (0, 0), "{findings:#?}");
    for check in [
        "cassandra",
        "cassandra version",
        "cassandra nodes",
        "cassandra clock",
        "elasticsearch",
        "elasticsearch version",
        "rabbitmq",
        "rabbitmq version",
        "rabbitmq clock",
        "cassandra schema",
        "elasticsearch schema",
        "rabbitmq schema",
        "certificates",
        "index lag",
    ] {
        assert_eq!(
            of(&findings, check).first().map(|finding| &finding["state"]),
            Some(&"ok".into()),
            "{check}: {findings:#?}"
        );
    }

    // A broker that is not there, an old certificate, and one that will be: the others are looked at all the same.
    let folder = tempfile::tempdir().unwrap();
    let (old, soon) = (certificate(folder.path(), "old", -1), certificate(folder.path(), "soon", 9));
    let broken = on
        .clone()
        .env("AULA_RABBITMQ_URL", "amqp://127.0.0.1:9/%2f")
        .env("AULA_RABBITMQ_CA_FILE", &old)
        .env("AULA_ELASTICSEARCH_CA_FILE", &soon);
    let (code, findings) = doctor(&broken, &[]);
    assert_eq!(code, 1, "{findings:#?}");
    assert_finding(&findings, "rabbitmq", "problem", "127.0.0.1:9", "rabbitmqctl status");
    assert_finding(&findings, "certificates", "problem", "rabbitmq.ca_file", "have it renewed");
    assert_finding(&findings, "certificates", "problem", "has expired on 20", "");
    assert_finding(&findings, "certificates", "warning", "elasticsearch.ca_file", "have it renewed");
    assert_finding(&findings, "rabbitmq schema", "could not look", "", "aula migrate status");
    assert_eq!(of(&findings, "cassandra schema")[0]["state"], "ok", "{findings:#?}");
    assert_eq!(of(&findings, "elasticsearch")[0]["state"], "ok", "{findings:#?}");
    drop(cluster);

    // Nothing migrated.
    let on = Builder::on_servers(&Arc::new(Namespace::not_migrated(&Servers::shared(), false)));
    let (code, findings) = doctor(&on, &[]);
    assert_eq!(code, 1, "{findings:#?}");
    for schema in ["cassandra schema", "elasticsearch schema", "rabbitmq schema"] {
        assert_finding(&findings, schema, "problem", "", "`aula migrate`");
    }
}
