use super::super::LISTED_MEMBERS;
use super::*;
use crate::message::Change;

pub async fn an_unknown_channel_is_nothing<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let (channel, nobody) = (ChannelId::new_group(), user("nobody"));
    assert_eq!(store.channel(channel).await.unwrap(), None);
    for page in [Page::After(0), Page::Before(Seq::MAX)] {
        assert_eq!(store.messages(channel, page, 10).await.unwrap(), []);
    }
    let sends = vec![(nobody.clone(), Uuid::nil()); 2];
    assert_eq!(store.find_sends(channel, sends).await.unwrap(), [None, None]);
    assert_eq!(store.role(channel, &nobody).await.unwrap(), None);
    assert_eq!(store.channels_of(&nobody, 0, 10).await.unwrap(), []);
    assert_eq!(store.channel_counts(vec![nobody]).await.unwrap(), [0]);
}

pub async fn any_text_comes_back_as_it_was<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let (channel, mut expected) = group(&*store, 1).await;
    let bodies =
        ["", "\0", "a\0b", "'; DROP TABLE messages; --", "\u{feff}Ünï\u{10ffff}çødé 👩‍👩‍👧", &"x".repeat(64 << 10)];
    let kinds = [Kind::Text, Kind::Media, Kind::System];
    let moments = [0, -1, i64::MIN, i64::MAX];
    for (index, body) in bodies.into_iter().enumerate() {
        let seq = expected.len() as Seq + 1;
        let (kind, at) = (kinds[index % kinds.len()], Millis(moments[index % moments.len()]));
        let entry = Message { body: body.to_owned(), kind, at, ..text(channel, seq, "ada").as_ref().clone() };
        append(&*store, &entries(channel, vec![Arc::new(entry.clone())])).await.unwrap();
        expected.push(entry);
    }
    assert_eq!(log(&*store, channel).await, expected);
}

pub async fn pages_end_where_the_log_ends<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let (channel, log) = group(&*store, 7).await;
    let (_other, _) = group(&*store, 9).await;
    let edges = [0, 1, 2, 6, 7, 8, 9, i64::MAX as Seq, i64::MAX as Seq + 1, Seq::MAX];
    for edge in edges {
        for limit in [0, 1, 3, 7, 8, usize::MAX] {
            let after: Vec<_> = log.iter().filter(|entry| entry.seq > edge).take(limit).cloned().collect();
            assert_eq!(
                store.messages(channel, Page::After(edge), limit).await.unwrap(),
                after,
                "after {edge}, {limit}"
            );
            let mut before: Vec<_> = log.iter().rev().filter(|entry| entry.seq < edge).take(limit).cloned().collect();
            before.reverse();
            let page = store.messages(channel, Page::Before(edge), limit).await.unwrap();
            assert_eq!(page, before, "before {edge}, {limit}");
        }
    }
}

pub async fn sends_are_found_in_the_order_asked<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let (channel, log) = group(&*store, 4).await;
    let (other, _) = group(&*store, 4).await;
    let of = |seq: usize| (log[seq - 1].sender.clone(), log[seq - 1].client_id);
    let strange = (user("ada"), Uuid::new_v4());
    let of_another_sender = (user("bob"), log[1].client_id);
    let asked = vec![of(3), strange, of(1), of_another_sender, of(3), of(4)];
    let found = store.find_sends(channel, asked.clone()).await.unwrap();
    let stored = |seq| Some(Earlier::Stored(seq));
    assert_eq!(found, [stored(3), None, stored(1), None, stored(3), stored(4)]);
    assert_eq!(store.find_sends(other, asked).await.unwrap(), [None; 6]);
    assert_eq!(store.find_sends(channel, Vec::new()).await.unwrap(), []);

    // One client_id, two senders: two sends.
    let same_id = Message { sender: user("bob"), ..text(channel, 5, "bob").as_ref().clone() };
    let same_id = Message { client_id: log[1].client_id, ..same_id };
    append(&*store, &entries(channel, vec![Arc::new(same_id)])).await.unwrap();
    let asked = vec![(user("bob"), log[1].client_id), (user("ada"), log[1].client_id)];
    assert_eq!(store.find_sends(channel, asked).await.unwrap(), [stored(5), stored(2)]);
}

pub async fn lists_begin_with_the_most_recently_active<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let mut channels = Vec::new();
    for _ in 0..6 {
        channels.push(group(&*store, 1).await.0);
    }
    let active = [(3, 9_000), (0, 8_000), (5, 10_000), (1, 7_000), (4, 11_000), (2, 12_000)];
    for (index, at) in active {
        let channel = channels[index];
        let entry = Message { at: Millis(at), ..text(channel, 2, "ada").as_ref().clone() };
        append(&*store, &entries(channel, vec![Arc::new(entry)])).await.unwrap();
    }
    let order = [2, 4, 5, 3, 0, 1].map(|index: usize| channels[index]);
    let ids = async |offset, limit| {
        let listed = store.channels_of(&user("bob"), offset, limit).await.unwrap();
        listed.into_iter().map(|membership| membership.channel.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(0, 100).await, order);
    assert_eq!(ids(0, 2).await, order[..2]);
    assert_eq!(ids(2, 3).await, order[2..5]);
    assert_eq!(ids(5, 3).await, order[5..]);
    assert_eq!(ids(0, usize::MAX).await, order);
    for (offset, limit) in [(6, 10), (usize::MAX, 10), (0, 0)] {
        assert_eq!(ids(offset, limit).await, [], "from {offset}, at most {limit}");
    }
    // An entry with an older moment (a clock went back) doesn't make a channel less recent.
    let late = Message { at: Millis(1), ..text(order[0], 3, "ada").as_ref().clone() };
    append(&*store, &entries(order[0], vec![Arc::new(late)])).await.unwrap();
    assert_eq!(ids(0, 1).await, order[..1]);
}

pub async fn lists_name_the_first_members<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    for count in [1, LISTED_MEMBERS, LISTED_MEMBERS + 5] {
        let channel = ChannelId::new_group();
        let mut names: Vec<_> = (0..count).map(|n| user(&format!("u{n:03}"))).collect();
        let members = names.iter().rev().map(|name| (name.clone(), member(1, 0, 0))).collect();
        append(&*store, &ChannelBatch { members, ..creation(channel) }).await.unwrap();
        let listed = store.channels_of(&names[0], 0, 10).await.unwrap();
        let info = &listed.iter().find(|membership| membership.channel.id == channel).unwrap().channel;
        assert_eq!(info.member_count, count);
        names.truncate(LISTED_MEMBERS);
        assert_eq!(info.members, names);
        assert_eq!(*info, store.channel(channel).await.unwrap().unwrap().info(channel));
    }
}

pub async fn users_are_counted_in_the_order_asked<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    for _ in 0..3 {
        group(&*store, 1).await;
    }
    let (channel, _) = group(&*store, 1).await;
    let leave = ChannelBatch { departed: vec![user("bob")], ..entries(channel, vec![text(channel, 2, "bob")]) };
    append(&*store, &leave).await.unwrap();
    let asked = vec![user("bob"), user("nobody"), user("ada"), user("bob")];
    assert_eq!(store.channel_counts(asked).await.unwrap(), [3, 0, 4, 3]);
    assert!(store.channel_counts(Vec::new()).await.unwrap().is_empty());
}

/// Bob is a member at the odd heads and is not at the even ones: no reader may see it otherwise.
pub async fn a_channel_is_read_as_one_picture<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let (channel, _) = group(&*store, 1).await;
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for seq in 2..300 {
                let bob = vec![user("bob")];
                let is_removal = seq % 2 == 0;
                let change = if is_removal { Change::Removed { members: bob } } else { Change::Added { members: bob } };
                let entry = Message {
                    kind: Kind::System,
                    body: change.to_body(),
                    ..text(channel, seq, "ada").as_ref().clone()
                };
                let mut batch = entries(channel, vec![Arc::new(entry)]);
                if is_removal {
                    batch.departed.push(user("bob"));
                } else {
                    batch.members.push((user("bob"), member(seq, seq - 1, seq - 1)));
                }
                append(&*store, &batch).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let state = store.channel(channel).await.unwrap().unwrap();
        assert_eq!(state.members.contains_key(&user("bob")), state.last_seq % 2 == 1, "at {}", state.last_seq);
        for listed in store.channels_of(&user("ada"), 0, 1).await.unwrap() {
            assert_eq!(listed.channel.member_count as u64, 1 + listed.channel.last_seq % 2);
        }
    }
    writer.await.unwrap();
}
