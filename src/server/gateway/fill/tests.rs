//! A gateway whose events come late, or not at all.

use std::sync::atomic::Ordering;

use super::*;
use crate::config::Config;
use crate::message::ChannelId;
use crate::server::gateway::testing::{Deployment, PATIENCE, frames, hears_live, text};
use crate::server::gateway::{Connected, Resume, Step};
use crate::server::store::Store as _;
use crate::server::store::testing::Owned;
use crate::wire::frame::Resumed;

async fn with_messages(deployment: &Deployment, channel: &mut Owned, last: Seq) {
    let entries = (channel.state.last_seq + 1..=last).map(|seq| text(channel, seq, "ada")).collect();
    deployment.store(channel, entries).await;
}

/// The seqs of the newest page.
async fn newest(deployment: &Deployment, channel: ChannelId, limit: usize) -> Vec<Seq> {
    let room = deployment.gateway.rooms.get(channel).unwrap();
    let (messages, _) = deployment.gateway.page(&room, Page::Before(Seq::MAX), limit).await.unwrap();
    messages.iter().map(|message| message.seq).collect()
}

/// What a resume sends, and how it ends.
async fn resume(deployment: &Deployment, who: &Connected, channel: ChannelId, after: Seq) -> (Vec<Seq>, Resumed) {
    let asked = Resume::new(None, [(channel, after)].into());
    let unknown = deployment.gateway.prepare_resume(&who.session, &asked).await;
    assert!(unknown.is_empty());
    let Ok(mut resuming) = deployment.gateway.begin_resume(&who.session, channel, after) else { panic!("refused") };
    frames(who);
    let mut sent = Vec::new();
    loop {
        match deployment.gateway.step(&mut resuming).await {
            Step::Write(messages) => sent.extend(messages.iter().map(|message| message.seq)),
            Step::Done(resumed) => {
                let rest =
                    frames(who).into_iter().filter_map(|frame| frame.strip_prefix("message ")?.parse::<Seq>().ok());
                sent.extend(rest);
                return (sent, resumed);
            }
        }
    }
}

#[tokio::test]
async fn the_newest_page_has_all_that_is_stored() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada", "ben"]).await;
    let ben = deployment.connect("ben").await;
    assert_eq!(newest(&deployment, channel.id, 5).await, [1]);
    with_messages(&deployment, &mut channel, 8).await;
    assert_eq!(newest(&deployment, channel.id, 5).await, [4, 5, 6, 7, 8]);
    // Who is here has them now, and not a second time when the events come.
    assert_eq!(frames(&ben).len(), 7);
    hears_live(&deployment, &text(&channel, 8, "ada"));
    assert!(frames(&ben).is_empty());
    // Far behind, and in the middle of it.
    with_messages(&deployment, &mut channel, 700).await;
    let room = deployment.gateway.rooms.get(channel.id).unwrap();
    let (page, more) = deployment.gateway.page(&room, Page::Before(400), 3).await.unwrap();
    assert_eq!((page.iter().map(|message| message.seq).collect::<Vec<_>>(), more), (vec![397, 398, 399], true));
    assert_eq!(newest(&deployment, channel.id, 2).await, [699, 700]);
    // What is delivered and not stored yet is behind it.
    hears_live(&deployment, &text(&channel, 701, "ada"));
    assert_eq!(newest(&deployment, channel.id, 3).await, [699, 700, 701]);
}

#[tokio::test]
async fn an_older_page_that_is_held_needs_no_store() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada", "ben"]).await;
    let _ben = deployment.connect("ben").await;
    with_messages(&deployment, &mut channel, 20).await;
    newest(&deployment, channel.id, 5).await;
    let before = deployment.store.pages.load(Ordering::SeqCst);
    let room = deployment.gateway.rooms.get(channel.id).unwrap();
    let (page, _) = deployment.gateway.page(&room, Page::Before(20), 5).await.unwrap();
    assert_eq!(page.len(), 5);
    assert_eq!(deployment.store.pages.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn many_who_ask_at_once_share_reads() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada", "ben"]).await;
    let _ben = deployment.connect("ben").await;
    with_messages(&deployment, &mut channel, 20).await;
    let room = deployment.gateway.rooms.get(channel.id).unwrap();
    let before = deployment.store.pages.load(Ordering::SeqCst);
    let asking = (0..100).map(|_| async { deployment.gateway.compare(&room, Instant::now()).await.unwrap() });
    futures_util::future::join_all(asking).await;
    let reads = deployment.store.pages.load(Ordering::SeqCst) - before;
    assert!((1..=2).contains(&reads), "{reads}");
    assert_eq!(room.last_seq(), 20);
}

#[tokio::test]
async fn a_resume_is_complete_up_to_what_is_stored() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada", "ben"]).await;
    let ben = deployment.connect("ben").await;
    with_messages(&deployment, &mut channel, 5).await;
    let complete = |last_seq| Resumed { complete: true, last_seq, code: None };
    assert_eq!(resume(&deployment, &ben, channel.id, 2).await, (vec![3, 4, 5], complete(5)));
    // Seen elsewhere, and stored.
    with_messages(&deployment, &mut channel, 8).await;
    assert_eq!(resume(&deployment, &ben, channel.id, 8).await, (vec![], complete(8)));
    // Seen elsewhere, and not stored yet: its event is on the way.
    let ninth = text(&channel, 9, "ada");
    let hearing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        hears_live(&deployment, &ninth);
    };
    let (resumed, ()) = tokio::join!(resume(&deployment, &ben, channel.id, 9), hearing);
    assert_eq!(resumed, (vec![], complete(9)));
    // More than the log may have: nothing is waited for.
    let began = Instant::now();
    assert_eq!(resume(&deployment, &ben, channel.id, Seq::MAX).await, (vec![], complete(9)));
    assert!(began.elapsed() < SHORT);
    hears_live(&deployment, &text(&channel, 10, "ada"));
    assert_eq!(frames(&ben), ["message 10"]);
}

const SHORT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_resume_of_which_nobody_knows_is_refused() {
    let deployment = Deployment::new().await;
    let channel = deployment.group(&["ada", "ben"]).await;
    let ben = deployment.connect("ben").await;
    deployment.store.fails.store(true, Ordering::SeqCst);
    let asked = Resume::new(None, [(channel.id, 1)].into());
    let preparing = deployment.gateway.prepare_resume(&ben.session, &asked);
    let unknown = tokio::time::timeout(PATIENCE, preparing).await.unwrap();
    assert!(unknown.contains(&channel.id));
}

#[tokio::test]
async fn a_welcome_has_all_that_is_stored_and_needs_no_second_look() {
    let deployment = Deployment::new().await;
    let mut channel = deployment.group(&["ada", "ben"]).await;
    let ada = deployment.connect("ada").await;
    with_messages(&deployment, &mut channel, 8).await;
    let asked = Resume::new(None, [(channel.id, 3)].into());
    let (ben, welcome) = deployment.connect_welcomed("ben").await;
    let summary = &welcome.channels[0];
    let shown: Vec<Seq> = summary.messages.iter().flatten().map(|message| message.seq).collect();
    assert_eq!((summary.channel.last_seq, shown), (8, (1..=8).collect()));
    assert_eq!(frames(&ada).len(), 7);
    assert!(frames(&ben).is_empty());
    let before = deployment.store.pages.load(Ordering::SeqCst);
    assert!(deployment.gateway.prepare_resume(&ben.session, &asked).await.is_empty());
    assert_eq!(deployment.store.pages.load(Ordering::SeqCst), before);
}

/// After an outage every room is behind.
#[tokio::test]
async fn holes_are_filled_some_at_a_time_and_not_for_nobody() {
    let mut config = Config::default();
    config.channels.max_per_user = 1000;
    let deployment = Deployment::with(config).await;
    let mut channels = Vec::new();
    for _ in 0..80 {
        channels.push(deployment.group(&["ada", "ben"]).await);
    }
    let ben = deployment.connect("ben").await;
    let mut of_others = Vec::new();
    for _ in 0..80 {
        of_others.push(deployment.group(&["ada", "cyd"]).await);
    }
    for channel in &mut of_others {
        hears_live(&deployment, &text(channel, 2, "ada"));
    }
    for channel in channels.iter_mut().chain(&mut of_others) {
        with_messages(&deployment, channel, 5).await;
    }
    *deployment.store.delay.lock() = Duration::from_millis(20);
    let before = deployment.store.pages.load(Ordering::SeqCst);
    for channel in channels.iter().chain(&of_others) {
        hears_live(&deployment, &text(channel, 6, "ada"));
    }
    let mut seen = 0;
    let comes = async {
        while seen < 80 * 5 {
            seen += frames(&ben).len();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, comes).await.unwrap();
    assert_eq!(deployment.store.pages.load(Ordering::SeqCst) - before, 80, "only what somebody is here for");
    let most = deployment.store.most.load(Ordering::SeqCst);
    assert!((2..=CONCURRENCY).contains(&most), "{most}");
    // Who comes begins at the present end.
    let (_cyd, welcome) = deployment.connect_welcomed("cyd").await;
    assert!(welcome.channels.iter().all(|channel| channel.channel.last_seq == 6));
    assert!(deployment.store.channel(of_others[0].id).await.unwrap().is_some());
}
