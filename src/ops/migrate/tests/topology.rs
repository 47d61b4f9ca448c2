//! A broker that somebody has changed by hand.

use lapin::types::FieldTable;

use super::*;

const TOPOLOGY: [&str; 2] = ["--target", "rabbitmq"];

impl Deployment {
    /// Loses the bindings of both shards.
    fn unbind(&self) {
        self.runtime.block_on(async {
            let link = self.vhost.as_ref().unwrap().link().await;
            let channel = link.channel().await.unwrap();
            for (queue, key) in [("db_tasks.0", "2.0"), ("db_tasks.1", "2.1")] {
                let unbound = channel.queue_unbind(queue.into(), "db_tasks".into(), key.into(), FieldTable::default());
                unbound.await.unwrap();
            }
        });
    }

    fn topology(&self, command: &str) -> (Exit, String) {
        self.aula(2, &[&["migrate", command], TOPOLOGY.as_slice()].concat())
    }

    /// As the last change had been begun and not completed.
    fn begin(&self) {
        let keyspace = &self.cassandra.keyspace;
        let row = "target = 'rabbitmq' AND version = 0";
        let cql = format!("UPDATE {keyspace}.schema_migrations SET checksum = 'begun' WHERE {row}");
        self.runtime.block_on(async {
            let cassandra = Cassandra::connect(&self.cassandra, false).await.unwrap();
            cassandra.session.query_unpaged(cql, ()).await.unwrap();
        });
    }
}

#[test]
fn bindings_that_are_lost_are_seen_and_made_again() {
    let deployment = Deployment::new();
    assert_eq!(deployment.aula(2, &["migrate"]).0, Exit::Done);
    deployment.verify(2).unwrap();

    deployment.unbind();
    let error = deployment.verify(2).unwrap_err();
    let lost = "queue db_tasks.0 is not bound to exchange db_tasks by key \"2.0\"";
    assert!(error.to_string().contains(lost) && error.hint() == Some("run `aula migrate`"), "{error}");
    let (exit, steps) = deployment.json(2, &["migrate", "status", "--target", "rabbitmq"]);
    assert_eq!((exit, &steps[0]["state"], &steps[0]["up_repairs"]), (Exit::Partly, &json!("differs"), &json!(true)));
    assert_eq!(steps[0]["differences"].as_array().unwrap().len(), 2, "{steps}");
    let (exit, plan) = deployment.topology("plan");
    assert_eq!(exit, Exit::Partly);
    assert!(plan.contains(&format!("# {lost}\n")) && plan.contains("\nbind queue db_tasks.1 to"), "{plan}");

    // Those of a change under way are missed by nobody who starts: its old workers are needed.
    deployment.begin();
    deployment.verify(2).unwrap();
    assert_eq!(deployment.topology("status").0, Exit::Partly);

    assert_eq!(deployment.json(2, &["migrate"]).1[0]["target"], "rabbitmq");
    deployment.verify(2).unwrap();
    assert_eq!(deployment.topology("status").0, Exit::Done);
    assert_eq!(deployment.aula(2, &["migrate"]), (Exit::Done, "up to date\n".to_owned()));
}

#[test]
fn bindings_that_cannot_be_seen_are_made_again_each_time() {
    let deployment = Deployment::new();
    assert_eq!(deployment.topology("up").0, Exit::Done);
    let seen = json!(deployment.vhost.as_ref().unwrap().config().management_url);
    for blind in ["", "http://127.0.0.1:1"] {
        deployment.unbind();
        deployment.set("rabbitmq", "management_url", json!(blind));
        assert_eq!(deployment.topology("status").0, Exit::Done);
        let (exit, plan) = deployment.topology("plan");
        assert_eq!(exit, Exit::Done, "{plan}");
        assert!(plan.contains("\nbind queue db_tasks.1 to exchange") && !plan.contains("declare"), "{plan}");
        assert_eq!(deployment.topology("up"), (Exit::Done, "up to date\n".to_owned()));

        deployment.set("rabbitmq", "management_url", seen.clone());
        assert_eq!(deployment.topology("status").0, Exit::Done);
    }
}

#[test]
fn what_is_not_replaced_is_refused_before_anything_is_changed() {
    let deployment = Deployment::new();
    assert_eq!(deployment.aula(2, &["migrate"]).0, Exit::Done);
    deployment.set("search", "timeout", json!("4s"));
    for command in ["plan", "up"] {
        let error = deployment.error(2, &["migrate", command, "--target", "rabbitmq"]);
        assert!(error.contains("can't change what is another: queue search_tasks x-message-ttl is"), "{error}");
        assert!(!error.contains("run `aula migrate`"), "{error}");
    }
    assert_eq!(deployment.topology("status").0, Exit::Failed);
    deployment.set("search", "timeout", json!(Config::default().search.timeout.as_millis().to_string() + "ms"));
    assert_eq!(deployment.topology("status").0, Exit::Done);

    // Deleted by hand, as the hint says.
    deployment.set("search", "timeout", json!("4s"));
    deployment.runtime.block_on(async {
        let link = deployment.vhost.as_ref().unwrap().link().await;
        let channel = link.channel().await.unwrap();
        channel.queue_delete("search_tasks".into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    });
    assert_eq!(deployment.topology("up").0, Exit::Done);
    assert_eq!(deployment.topology("status").0, Exit::Done);
}
