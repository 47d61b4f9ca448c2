//! Answers that come, and those that come too late.

use futures_util::future::join_all;
use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;

#[tokio::test]
async fn answers_reach_the_gateway_that_asked() {
    let deployment = Deployment::new(LONG).await;
    let _workers = (deployment.worker("one").await, deployment.worker("other").await);
    let gateways = [deployment.gateway("left").await, deployment.gateway("right").await];
    for gateway in &gateways {
        gateway.is_answered().await;
    }
    // The same numbers on both sides: each gateway counts its own.
    let ask = async |side: usize, number: usize| {
        let text = format!("{side}/{number}");
        let page = gateways[side].ask(&text).await.unwrap();
        let said = page.cursor.unwrap();
        assert!(page.total == 7 && said.starts_with(&format!("ada {text} ")), "{said}");
    };
    join_all((0..120).map(|number| ask(number % 2, number / 2))).await;
    assert_eq!(gateways[0].ask("not mine").await, Err(SearchError::NotAMember));
    assert!(gateways.iter().all(|gateway| gateway.waiting() == 0));
}

#[tokio::test]
async fn without_a_worker_search_is_unavailable_in_time() {
    let deployment = Deployment::new(SHORT).await;
    let gateway = deployment.gateway("left").await;
    let outcomes = timeout(PATIENCE, join_all((0..3).map(|_| gateway.ask("anybody?")))).await.unwrap();
    assert!(outcomes.iter().all(is_unavailable), "{outcomes:?}");
    assert_eq!(gateway.waiting(), 0);
    // Nobody waits for those any more: they are not kept for whoever comes.
    let worker = deployment.worker("one").await;
    assert_eq!(gateway.is_answered().await, worker.index.name);
}

#[tokio::test]
async fn no_more_questions_wait_than_may() {
    let deployment = Deployment::new(LONG).await;
    let gateway = deployment.gateway("left").await;
    let waiting = gateway.search.waiting();
    let mut asked: Vec<_> = (0..MAX_WAITING).map(|_| waiting.ask().unwrap()).collect();
    assert!(waiting.ask().is_none());
    // At once.
    assert!(is_unavailable(&timeout(LONG / 2, gateway.ask("one more")).await.unwrap()));
    // Whoever goes makes room.
    asked.pop();
    asked.push(waiting.ask().unwrap());
    assert!(waiting.ask().is_none());
    drop(asked);
    assert_eq!(gateway.waiting(), 0);
}

#[tokio::test]
async fn an_answer_after_the_time_is_counted_and_dropped() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    // Of this thread, on which all of this test runs.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let deployment = Deployment::new(SHORT).await;
    let worker = deployment.worker("one").await;
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
    while !timeout(PATIENCE, gateway.ask("held")).await.is_ok_and(|outcome| {
        assert!(is_unavailable(&outcome), "{outcome:?}");
        *worker.index.held.borrow() > 0
    }) {}
    let count = || {
        let text = counted.render();
        let value = text.lines().find_map(|line| line.strip_prefix("aula_search_answers_late_total "));
        value.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    let before = count();
    worker.index.releases.send_replace(true);
    let late = async {
        while count() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, late).await.unwrap();
    gateway.is_answered().await;
}

/// Another worker is free: it must get what the first one could only keep waiting.
#[tokio::test]
async fn a_worker_takes_no_more_questions_than_it_works_on() {
    let deployment = Deployment::new(LONG).await;
    let first = deployment.worker("first").await;
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
    let held = join_all((0..40).map(|_| gateway.ask("held")));
    let then = async {
        first.holds(32).await;
        let second = deployment.worker("second").await;
        second.holds(8).await;
        for worker in [&first, &second] {
            worker.index.releases.send_replace(true);
        }
    };
    let (outcomes, ()) = timeout(PATIENCE, async { tokio::join!(held, then) }).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}
