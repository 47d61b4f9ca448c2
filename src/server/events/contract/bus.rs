//! The sentences of the contract.

use std::pin::pin;

use futures_util::future::join_all;

use super::*;

async fn listening<B: Backend>(backend: &B) -> Vec<Listening> {
    let mut all = Vec::new();
    for _ in 0..B::GATEWAYS {
        all.push(Listening::start(backend.source().await));
    }
    all
}

pub(super) async fn all_arrive_in_order<B: Backend>() {
    let backend = B::fresh().await;
    let gateways = listening(&backend).await;
    let gateways: Vec<_> = gateways.iter().map(|listening| &*listening.gateway).collect();
    hand_over(&*backend.bus().await, &gateways).await;
}

/// Everything arrives, once, in the order of the calls.
pub(super) async fn hand_over(bus: &dyn EventBus, gateways: &[&Recorder]) {
    let mut published = Vec::new();
    for round in 0..20 {
        let some = events(1, round * 3 + 1, round * 3 + 3);
        published.extend(some.clone());
        bus.publish(some).await.unwrap();
    }
    // More than goes over the wire in one piece.
    let many: Vec<Event> = (0..1000).map(|number| numbered(2, number)).collect();
    published.extend(many.clone());
    bus.publish(many).await.unwrap();
    bus.publish(Vec::new()).await.unwrap();
    for gateway in gateways {
        assert_eq!(gateway.hears(published.len()).await, published);
    }
    tokio::time::sleep(A_MOMENT).await;
    for gateway in gateways {
        assert_eq!(gateway.heard.lock().len(), published.len());
        assert_eq!(gateway.missed(), 0);
    }
}

pub(super) async fn a_gateway_begins_with_what_comes_after_its_start<B: Backend>() {
    let backend = B::fresh().await;
    let bus = backend.bus().await;
    bus.publish(events(1, 1, 5)).await.unwrap();
    let source = backend.source().await;
    // Open is enough: what comes now waits.
    bus.publish(events(1, 6, 6)).await.unwrap();
    let listening = Listening::start(source);
    bus.publish(events(1, 7, 7)).await.unwrap();
    assert_eq!(listening.gateway.hears(6).await, events(1, 6, 7));
    assert_eq!(listening.gateway.missed(), 0);
}

pub(super) async fn a_gateway_that_stood_still_too_long_is_told_so<B: Backend>() {
    let backend = B::fresh().await;
    let bus = backend.bus().await;
    let source = backend.source().await;
    let mut kept = backend.overrun(&*bus).await;
    let listening = Listening::start(source);
    assert_eq!(listening.gateway.hears(kept.len()).await, kept);
    listening.gateway.misses(1).await;
    // Told once: nothing is missing since.
    bus.publish(events(1, 50, 52)).await.unwrap();
    kept.extend(events(1, 50, 52));
    assert_eq!(listening.gateway.hears(kept.len()).await, kept);
    assert_eq!(listening.gateway.missed(), 1);
}

pub(super) async fn publishers_at_once_keep_their_order_and_lose_nothing<B: Backend>() {
    const PUBLISHERS: u128 = 20;
    const ROUNDS: Seq = 30;
    let backend = B::fresh().await;
    let gateways = listening(&backend).await;
    // Two workers, each with many owners.
    let buses = [backend.bus().await, backend.bus().await];
    let publish = |publisher: u128| {
        let bus = Arc::clone(&buses[publisher as usize % 2]);
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                bus.publish(vec![numbered(publisher, round * 2), numbered(publisher, round * 2 + 1)]).await.unwrap();
            }
        })
    };
    let all = join_all((0..PUBLISHERS).map(publish));
    timeout(PATIENCE, all).await.unwrap().into_iter().for_each(|publisher| publisher.unwrap());
    for Listening { gateway, .. } in &gateways {
        let heard = gateway.hears(PUBLISHERS as usize * ROUNDS as usize * 2).await;
        for publisher in 0..PUBLISHERS {
            let own = heard.iter().filter_map(number).filter(|(from, _)| *from == publisher);
            assert!(own.map(|(_, number)| number).eq(0..ROUNDS * 2), "{publisher}");
        }
        assert_eq!(gateway.missed(), 0);
    }
}

/// As an owner does it, which waits for one thing while it holds the futures of others.
pub(super) async fn a_publish_that_nobody_goes_on_with_holds_up_no_other<B: Backend>() {
    let backend = B::fresh().await;
    let gateways = listening(&backend).await;
    let bus = backend.bus().await;
    for round in 0..10 {
        let mut begun = pin!(bus.publish(events(1, round, round)));
        assert!(futures_util::poll!(&mut begun).is_pending(), "the test is about a publish under way");
        let mut given_up = Box::pin(bus.publish(vec![numbered(2, round)]));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        drop(given_up);
        let last = numbered(3, round);
        timeout(PATIENCE, bus.publish(vec![last.clone()])).await.unwrap().unwrap();
        for Listening { gateway, .. } in &gateways {
            gateway.hears_of(&last).await;
        }
        timeout(PATIENCE, begun).await.unwrap().unwrap();
    }
    for Listening { gateway, .. } in &gateways {
        let heard = gateway.heard.lock().clone();
        let first: Vec<_> = heard.iter().filter(|event| events(1, 0, 9).contains(event)).cloned().collect();
        assert_eq!(first, events(1, 0, 9));
    }
}
