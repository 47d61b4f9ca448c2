//! Events that were lost, and what the sessions get in their place.

use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::server::events::EventSink as _;
use crate::server::gateway::Connected;
use crate::server::gateway::testing::{Deployment, PATIENCE, added, frames, hears_live, removed, text};
use crate::wire::Encoding;

async fn repair(deployment: &Deployment) {
    timeout(PATIENCE, deployment.gateway.repair(PATIENCE)).await.unwrap();
}

#[tokio::test]
async fn what_was_missed_comes_once_and_in_order() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada", "bob"]).await;
    let [ada, bob, cyd] =
        [deployment.connect("ada").await, deployment.connect("bob").await, deployment.connect("cyd").await];
    let entries = vec![
        text(&channel, 2, "bob"),
        text(&channel, 3, "ada"),
        added(&channel, 4, "cyd"),
        text(&channel, 5, "bob"),
        text(&channel, 6, "ada"),
    ];
    deployment.store(&mut channel, entries).await;
    deployment.raise(&channel, 4, 2).await;
    repair(&deployment).await;

    let entries = ["message 2", "message 3", "message 4", "message 5", "message 6"];
    let statuses = ["delivered 4", "read 2"];
    let all = |persisted: [&'static str; 2]| [&entries[..], &persisted, &statuses].concat();
    assert_eq!(frames(&ada), all(["persisted 3", "persisted 6"]));
    assert_eq!(frames(&bob), all(["persisted 2", "persisted 5"]));
    // From the present end on.
    assert_eq!(frames(&cyd), ["channel_created 6"]);
    assert!(deployment.gateway.rooms.get(channel.id).unwrap().known().is_some());

    for _ in 0..2 {
        repair(&deployment).await;
    }
    let seventh = text(&channel, 7, "ada");
    hears_live(&deployment, &seventh);
    hears_live(&deployment, &seventh);
    for session in [&ada, &bob, &cyd] {
        assert_eq!(frames(session), ["message 7"]);
    }
    // It is not stored yet: nothing else is said of it, and nothing is taken back.
    repair(&deployment).await;
    deployment.store(&mut channel, vec![seventh]).await;
    repair(&deployment).await;
    assert_eq!(frames(&ada), ["persisted 7"]);
    assert!(frames(&bob).is_empty() && frames(&cyd).is_empty());
}

#[tokio::test]
async fn who_was_removed_sees_that_and_nothing_after() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada", "bob", "cyd"]).await;
    // Nobody else of it is here.
    let mut alone = deployment.group(&["zoe", "cyd"]).await;
    let [ada, cyd] = [deployment.connect("ada").await, deployment.connect("cyd").await];
    let entries = vec![text(&channel, 2, "bob"), removed(&channel, 3, "cyd"), text(&channel, 4, "bob")];
    deployment.store(&mut channel, entries).await;
    let entries = vec![removed(&alone, 2, "cyd"), text(&alone, 3, "zoe")];
    deployment.store(&mut alone, entries).await;
    for _ in 0..2 {
        repair(&deployment).await;
    }
    assert_eq!(frames(&ada), ["message 2", "message 3", "message 4"]);
    let mut seen = frames(&cyd);
    // The two channels in any order, each in its own.
    seen.sort();
    assert_eq!(seen, ["message 2", "message 2", "message 3"]);
    assert!(cyd.session.rooms().is_empty());
    for (channel, seq) in [(&channel, 5), (&alone, 4)] {
        hears_live(&deployment, &text(channel, seq, "bob"));
    }
    assert_eq!(frames(&ada), ["message 5"]);
    assert!(frames(&cyd).is_empty());
    // Rooms are kept for nobody who is gone.
    assert!(deployment.gateway.rooms.get(alone.id).unwrap().idle_since().is_some());
    assert!(deployment.gateway.rooms.get(channel.id).unwrap().known().is_some());
}

/// Several users of each room are repaired at the same time, of whom one was sent away and brought back.
#[tokio::test]
async fn who_was_removed_and_added_again_is_in_it() {
    let deployment = Deployment::new().await;
    let mut channels = Vec::new();
    for _ in 0..4 {
        channels.push(deployment.group(&["ada", "bob", "cyd", "dan"]).await);
    }
    let mut sessions = Vec::new();
    for name in ["ada", "bob", "cyd", "dan"] {
        sessions.push(deployment.connect(name).await);
    }
    for (channel, name) in channels.iter_mut().zip(["ada", "bob", "cyd", "dan"]) {
        let entries = vec![removed(channel, 2, name), text(channel, 3, "bob"), added(channel, 4, name)];
        deployment.store(channel, entries).await;
    }
    repair(&deployment).await;
    for (session, name) in sessions.iter().zip(["ada", "bob", "cyd", "dan"]) {
        assert_eq!(session.session.rooms().len(), 4, "{name}");
        let seen = frames(session);
        let count = |what: &str| seen.iter().filter(|frame| *frame == what).count();
        // The removed one is told of its end, and of its new beginning; the others of everything.
        assert_eq!([count("message 2"), count("message 4"), count("channel_created 4")], [4, 3, 1], "{name}: {seen:?}");
    }
    for channel in &channels {
        hears_live(&deployment, &text(channel, 5, "bob"));
    }
    for session in &sessions {
        assert_eq!(frames(session), ["message 5"; 4]);
    }
}

/// The list for its welcome was read before it was added.
#[tokio::test]
async fn a_session_that_is_connecting_gets_what_it_was_added_to() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada"]).await;
    let connected = deployment.connect("cyd").await;
    let session = Arc::new(Session::new(
        connected.session.identity.clone(),
        Encoding::Json,
        &deployment.gateway.config().session,
    ));
    assert!(deployment.gateway.sessions.add(&session, 10));
    let entries = vec![added(&channel, 2, "cyd"), text(&channel, 3, "ada")];
    deployment.store(&mut channel, entries).await;
    repair(&deployment).await;
    assert_eq!(frames(&connected), ["channel_created 3"]);
    let joined = session.next_joined().unwrap();
    assert_eq!(joined.len(), 1);
    for (info, coming) in joined {
        deployment.gateway.enter(&session, &info, coming, None);
    }
    assert!(session.next_joined().is_none());
    hears_live(&deployment, &text(&channel, 4, "ada"));
    let guard = Connected { gateway: Arc::clone(&deployment.gateway), session };
    assert_eq!(frames(&guard), ["channel_created 3", "message 4"]);
}

#[tokio::test]
async fn a_gateway_that_is_told_so_repairs_by_itself() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada", "bob"]).await;
    let ada = deployment.connect("ada").await;
    let repairing = tokio::spawn(Arc::clone(&deployment.gateway).repair_when_asked());
    let _repairing = AbortOnDropHandle::new(repairing);
    let mut seen = Vec::new();
    for seq in 2..=6 {
        let entries = vec![text(&channel, seq, "bob")];
        deployment.store(&mut channel, entries).await;
        for _ in 0..seq {
            deployment.gateway.missed();
        }
        let comes = async {
            while seen.len() < seq as usize - 1 {
                seen.extend(frames(&ada));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, comes).await.unwrap();
    }
    assert_eq!(seen, ["message 2", "message 3", "message 4", "message 5", "message 6"]);
}

/// Somebody is added while the repair holds a list from before that.
#[tokio::test]
async fn who_is_added_while_the_list_is_read_stays() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada"]).await;
    let ben = deployment.connect("ben").await;
    deployment.store.hold_next_list_of("ben");
    let repairing = async {
        repair(&deployment).await;
    };
    let adding = async {
        deployment.store.list_is_read().await;
        let entry = added(&channel, 2, "ben");
        deployment.store(&mut channel, vec![entry.clone()]).await;
        hears_live(&deployment, &entry);
        deployment.hears_joined(&channel, "ben");
        deployment.store.give_list();
    };
    tokio::join!(repairing, adding);
    assert_eq!(frames(&ben), ["channel_created 2", "message 2"]);
    hears_live(&deployment, &text(&channel, 3, "ada"));
    assert_eq!(frames(&ben), ["message 3"]);
}

/// As before, but it was removed and that was missed: both stays are in the room that the repair sees.
#[tokio::test]
async fn who_is_removed_and_added_again_while_the_list_is_read_stays() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada", "ben"]).await;
    let (ada, ben) = (deployment.connect("ada").await, deployment.connect("ben").await);
    let entry = removed(&channel, 2, "ben");
    deployment.store(&mut channel, vec![entry]).await;
    deployment.store.hold_next_list_of("ben");
    let repairing = async {
        repair(&deployment).await;
    };
    let adding = async {
        deployment.store.list_is_read().await;
        let entry = added(&channel, 3, "ben");
        deployment.store(&mut channel, vec![entry.clone()]).await;
        // What it says of seq 3 is heard before what was missed is fetched.
        hears_live(&deployment, &entry);
        deployment.hears_joined(&channel, "ben");
        deployment.store.give_list();
    };
    tokio::join!(repairing, adding);
    let has_come = async {
        while deployment.gateway.rooms.get(channel.id).unwrap().last_seq() < 3 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, has_come).await.unwrap();
    assert_eq!(frames(&ada), ["message 2", "message 3"]);
    // Told of the channel once more, where what was missed is fetched first (for ada, who is repaired meanwhile).
    let ben_saw: Vec<_> = frames(&ben).into_iter().filter(|frame| frame != "channel_created 3").collect();
    assert_eq!(ben_saw, ["message 2", "message 3"]);
    hears_live(&deployment, &text(&channel, 4, "ada"));
    assert_eq!(frames(&ben), ["message 4"]);
    // It is the last stay that a later removal ends.
    hears_live(&deployment, &removed(&channel, 5, "ben"));
    hears_live(&deployment, &text(&channel, 6, "ada"));
    assert_eq!(frames(&ben), ["message 5"]);
}

/// Its list is older than what was missed.
#[tokio::test]
async fn who_was_removed_while_it_connects_hears_nothing_after_that() {
    let deployment = Deployment::new().await;
    let mut channels = [deployment.group(&["ada", "ben"]).await, deployment.group(&["cyd", "ben"]).await];
    let _ada = deployment.connect("ada").await;
    let repairing = tokio::spawn(Arc::clone(&deployment.gateway).repair_when_asked());
    let _repairing = AbortOnDropHandle::new(repairing);
    deployment.store.hold_next_list_of("ben");
    let missing = async {
        deployment.store.list_is_read().await;
        for channel in &mut channels {
            let entry = removed(channel, 2, "ben");
            deployment.store(channel, vec![entry]).await;
        }
        deployment.gateway.missed();
        // Time for a repair that does not find it in its rooms.
        tokio::time::sleep(Duration::from_millis(100)).await;
        deployment.store.give_list();
    };
    let (ben, ()) = tokio::join!(deployment.connect("ben"), missing);
    let ends = async {
        while !ben.session.rooms().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, ends).await.unwrap();
    for channel in &channels {
        hears_live(&deployment, &text(channel, 3, "ada"));
    }
    assert!(!frames(&ben).contains(&"message 3".to_owned()));
}

#[tokio::test]
async fn one_who_can_not_be_repaired_is_sent_away_and_holds_up_nobody() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada", "ben"]).await;
    let (ada, ben) = (deployment.connect("ada").await, deployment.connect("ben").await);
    let entries = vec![text(&channel, 2, "ada")];
    deployment.store(&mut channel, entries).await;
    deployment.store.break_lists_of(Some("ada"));
    let repairing = deployment.gateway.repair(Duration::from_millis(200));
    timeout(PATIENCE, repairing).await.unwrap();
    let (_, closing) = ada.session.outbox.take();
    assert_eq!(closing.map(|closing| closing.code), Some(1013));
    assert_eq!(frames(&ben), ["message 2"]);
    drop(ada);
    let entries = vec![text(&channel, 3, "ada")];
    deployment.store(&mut channel, entries).await;
    repair(&deployment).await;
    assert_eq!(frames(&ben), ["message 3"]);
}
