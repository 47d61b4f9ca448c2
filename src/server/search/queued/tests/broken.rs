//! Brokers and workers that go away, and what is no question.

use std::time::Instant;

use bytes::Bytes;

use super::*;
use crate::message::ChannelId;
use crate::server::queue::{IndexRange, IndexTask, enqueue_confirmed};
use crate::server::rabbitmq::topology::declare_gateway_queue;

#[tokio::test]
async fn without_a_broker_search_is_unavailable_and_comes_back() {
    let deployment = Deployment::new(LONG).await;
    let _worker = deployment.worker("one").await;
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
    gateway.proxy.accept(false);
    gateway.proxy.cut();
    let refused = async { while !is_unavailable(&gateway.ask("anybody?").await) {} };
    // Long before a worker would have had to answer.
    timeout(LONG / 2, refused).await.unwrap();
    gateway.proxy.accept(true);
    gateway.is_answered().await;
}

#[tokio::test]
async fn a_question_that_died_with_its_worker_is_answered_by_another() {
    let deployment = Deployment::new(LONG).await;
    let first = deployment.worker("first").await;
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
    let asked = async {
        let answer = gateway.ask("held").await;
        answer.unwrap().cursor.unwrap()
    };
    let taken_over = async {
        first.holds(1).await;
        let second = deployment.worker("second").await;
        second.index.releases.send_replace(true);
        first.dies().await;
        second
    };
    let (said, _second) = timeout(PATIENCE, async { tokio::join!(asked, taken_over) }).await.unwrap();
    assert_eq!(said, "ada held second");
}

#[tokio::test]
async fn a_question_that_died_with_the_only_worker_times_out() {
    let deployment = Deployment::new(Duration::from_secs(2)).await;
    let worker = deployment.worker("first").await;
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
    let dies = async {
        worker.holds(1).await;
        worker.dies().await;
    };
    let began = Instant::now();
    let (outcome, ()) = timeout(PATIENCE, async { tokio::join!(gateway.ask("held"), dies) }).await.unwrap();
    assert!(is_unavailable(&outcome), "{outcome:?}");
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(gateway.waiting(), 0);
}

#[tokio::test]
async fn what_is_no_question_stops_no_worker() {
    let deployment = Deployment::new(LONG).await;
    let _worker = deployment.worker("one").await;
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
    let range = IndexRange { channel: ChannelId::new_group(), first: 1, last: 2 };
    let other = Task::Index(IndexTask { ranges: vec![range] }).encode().unwrap();
    for garbage in [Bytes::new(), vec![1].into(), vec![0xff; 1000].into(), vec![9, 1, 2].into(), other] {
        enqueue_confirmed(&*gateway.search.queue, LANE, garbage).await.unwrap();
    }
    gateway.is_answered().await;
}

/// The broker has not noticed yet that the gateway's last connection is gone, and keeps its queue.
#[tokio::test]
async fn what_the_broker_keeps_of_a_lost_connection_is_not_in_the_way() {
    let deployment = Deployment::new(LONG).await;
    let _worker = deployment.worker("one").await;
    let lost = deployment.vhost.link().await;
    let channel = lost.channel().await.unwrap();
    let queue = deployment.topology.gateway_queue("search_results", "left").unwrap();
    declare_gateway_queue(&channel, &queue).await.unwrap();
    let gateway = deployment.gateway("left").await;
    gateway.is_answered().await;
}
