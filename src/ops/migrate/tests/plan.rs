//! That `plan` says what `up` does.

use super::*;

/// Those of `text` that begin with one of `words`.
fn lines<'t>(text: &'t str, words: &[&str]) -> Vec<&'t str> {
    text.lines().filter(|line| words.iter().any(|word| line.starts_with(word))).collect()
}

#[test]
fn the_topology_alone_on_nothing_begins_with_the_keyspace() {
    let deployment = Deployment::new();
    let (exit, plan) = deployment.aula(1, &["migrate", "plan", "--target", "rabbitmq"]);
    assert_eq!(exit, Exit::Partly);
    assert!(plan.starts_with("-- cassandra keyspace\nCREATE KEYSPACE IF NOT EXISTS"), "{plan}");
    let keyspace = &deployment.cassandra.keyspace;
    for table in ["schema_migrations", "schema_lock"] {
        assert!(plan.contains(&format!("CREATE TABLE IF NOT EXISTS {keyspace}.{table} (")), "{plan}");
    }
    assert!(!plan.contains("USE "), "{plan}");
    let recorded = lines(&plan, &["# first, in Cassandra: INSERT INTO", "# then, in Cassandra: INSERT INTO"]);
    assert!(recorded.len() == 2 && recorded[0].contains("'begun'"), "{plan}");

    assert_eq!(deployment.aula(1, &["migrate", "up", "--target", "rabbitmq"]).0, Exit::Done);
    let (exit, plan) = deployment.aula(1, &["migrate", "plan", "--target", "rabbitmq"]);
    assert_eq!((exit, plan.as_str()), (Exit::Done, ""));
    let (_, plan) = deployment.aula(1, &["migrate", "plan"]);
    assert!(plan.starts_with(&format!("-- cassandra keyspace\nUSE {keyspace};\n")), "{plan}");
}

#[test]
fn queues_that_are_replaced_are_unbound_and_deleted_in_the_plan() {
    let deployment = Deployment::new();
    assert_eq!(deployment.aula(2, &["migrate", "up", "--target", "rabbitmq"]).0, Exit::Done);
    let (exit, plan) = deployment.aula(1, &["migrate", "plan", "--target", "rabbitmq"]);
    assert_eq!(exit, Exit::Partly);
    let words = ["unbind", "# wait", "delete", "declare queue db_tasks.0", "bind queue db_tasks.0"];
    let steps = lines(&plan, &words);
    let (declared, steps): (Vec<&str>, Vec<&str>) = steps.into_iter().partition(|line| line.starts_with("declare"));
    assert_eq!(declared.len(), 1, "{plan}");
    assert_eq!(
        steps,
        [
            "unbind queue db_tasks.0 from exchange db_tasks by key \"2.0\"",
            "unbind queue db_tasks.1 from exchange db_tasks by key \"2.1\"",
            "# wait until the workers have emptied db_tasks.0 to db_tasks.1",
            "delete queue db_tasks.1",
            "delete queue db_tasks.0",
            "# wait 2 s",
            "bind queue db_tasks.0 to exchange db_tasks by key \"1.0\"",
        ],
        "{plan}"
    );
    assert!(plan.find("# first, in Cassandra") < plan.find("unbind"), "{plan}");
}
