use super::*;
use crate::server::rabbitmq::testing::Vhost;

fn values(shards: u16) -> Values {
    Values {
        shards,
        max_depth: 101,
        delivery_limit: 20,
        search_timeout: Duration::from_millis(2500),
        events_backlog: 1000,
    }
}

fn queue<'t>(topology: &'t Topology, name: &str) -> &'t Queue {
    topology.queues.iter().find(|queue| queue.name == name).unwrap()
}

#[test]
fn placeholders_are_filled_in() {
    let topology = Topology::new(&values(4)).unwrap();
    let third = queue(&topology, "db_tasks.3");
    assert_eq!(third.arguments["x-max-length"], Argument::Number(26));
    assert_eq!(third.arguments["x-delivery-limit"], Argument::Number(20));
    assert_eq!(third.arguments["x-single-active-consumer"], Argument::Flag(true));
    assert_eq!(third.bindings, [Binding { exchange: "db_tasks".into(), key: "4.3".into() }]);
    assert_eq!(queue(&topology, "search_tasks").arguments["x-message-ttl"], Argument::Number(2500));
    let results = topology.gateway_queue("search_results", "g7").unwrap();
    assert_eq!((results.name.as_str(), results.bindings[0].key.as_str()), ("search_results.g7", "g7"));
    assert!(results.exclusive && !results.durable);
    let events = topology.gateway_queue("events", "g7").unwrap();
    assert_eq!(events.arguments["x-max-length"], Argument::Number(1000));
    assert!(topology.gateway_queue("nothing", "g7").is_err());
}

#[test]
fn every_queue_is_bounded_and_every_task_has_a_dead_letter_queue() {
    let topology = Topology::new(&values(2)).unwrap();
    for queue in &topology.queues {
        assert!(queue.arguments.contains_key("x-max-length"), "{}", queue.name);
        let Some(Argument::Text(family)) = queue.arguments.get("x-dead-letter-routing-key") else { continue };
        let dead = topology.queues.iter().find(|dead| dead.name == format!("{family}.dead")).unwrap();
        assert_eq!(dead.bindings, [Binding { exchange: DEAD_LETTERS.into(), key: family.clone() }]);
    }
}

#[test]
fn the_plan_says_what_is_declared() {
    let topology = Topology::new(&values(1)).unwrap();
    let plan: Vec<_> = topology.declarations().map(|declaration| declaration.to_string()).collect();
    assert_eq!(plan[0], "declare direct exchange db_tasks (durable)");
    assert!(plan.contains(&"bind queue db_tasks.0 to exchange db_tasks by key \"1.0\"".to_owned()), "{plan:#?}");
    assert!(
        plan.iter().any(|line| line.starts_with("declare queue db_tasks.0 (durable) with x-dead-letter-exchange="))
    );
    let bindings = plan.iter().position(|line| line.starts_with("bind")).unwrap();
    assert!(plan[bindings..].iter().all(|line| line.starts_with("bind")), "what is bound must be there");
}

async fn migrate_to(vhost: &Vhost, topology: &Topology) -> Vec<Progress> {
    let link = vhost.link().await;
    let mut seen = Vec::new();
    let options = ReplaceOptions { deadline: Duration::from_secs(30) };
    migrate(&link, topology, None, &options, &mut |progress| seen.push(progress)).await.unwrap();
    verify(&link, topology).await.unwrap();
    seen
}

#[tokio::test]
async fn it_is_declared_once_and_for_all() {
    let vhost = Vhost::make().await;
    let topology = Topology::new(&values(2)).unwrap();
    for _ in 0..2 {
        assert_eq!(migrate_to(&vhost, &topology).await, [Progress::Accepting { shards: 2 }]);
    }
}

#[tokio::test]
async fn what_differs_is_named() {
    let vhost = Vhost::make().await;
    let link = vhost.link().await;
    let empty = verify(&link, &Topology::new(&values(1)).unwrap()).await.unwrap_err();
    let TopologyError::Differs(found) = empty else { panic!("{empty}") };
    assert!(found.iter().all(|difference| difference.what == "is missing"), "{found:?}");
    assert!(found.iter().any(|difference| difference.name == "exchange events"));

    migrate_to(&vhost, &Topology::new(&values(2)).unwrap()).await;
    let other = Values { max_depth: 1000, search_timeout: Duration::from_secs(1), ..values(1) };
    let different = verify(&link, &Topology::new(&other).unwrap()).await.unwrap_err().to_string();
    for difference in [
        "queue db_tasks.0: x-max-length is 51, and should be 1000",
        "queue db_tasks.1: is there, and queue.shards is 1",
        "queue search_tasks: x-message-ttl is 2500, and should be 1000",
    ] {
        assert!(different.contains(difference), "{different}");
    }
}

#[tokio::test]
async fn nothing_is_declared_by_looking() {
    let vhost = Vhost::make().await;
    let link = vhost.link().await;
    verify(&link, &Topology::new(&values(1)).unwrap()).await.unwrap_err();
    assert!(vhost.management().queues().await.unwrap().is_empty());
}
