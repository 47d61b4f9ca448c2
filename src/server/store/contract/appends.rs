use super::*;
use crate::wire::ErrorCode;

pub async fn a_batch_makes_a_channel<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let channel = ChannelId::new_group();
    let batch = ChannelBatch { delivered_by_all: 0, read_by_all: 0, ..creation(channel) };
    append(&*store, &batch).await.unwrap();

    let state = store.channel(channel).await.unwrap().unwrap();
    let expected = ChannelState {
        kind: ChannelKind::Group,
        name: Some("Engines".into()),
        last_seq: 1,
        members: batch.members.iter().cloned().collect(),
        delivered_by_all: 0,
        read_by_all: 0,
    };
    assert_eq!(state, expected);
    assert_eq!(log(&*store, channel).await, [batch.entries[0].as_ref().clone()]);
    assert_eq!(store.role(channel, &user("ada")).await.unwrap(), Some((ChannelKind::Group, Role::Owner)));
    assert_eq!(store.role(channel, &user("bob")).await.unwrap(), Some((ChannelKind::Group, Role::Member)));
    assert_eq!(store.role(channel, &user("cyd")).await.unwrap(), None);
    let listed = store.channels_of(&user("bob"), 0, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].channel, state.info(channel));
    assert_eq!(listed[0].last_at, batch.entries[0].at);
}

pub async fn storing_again_changes_nothing<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let channel = ChannelId::new_group();
    let first = creation(channel);
    let second = ChannelBatch {
        members: vec![(user("bob"), member(1, 2, 1))],
        delivered_by_all: 1,
        ..entries(channel, vec![text(channel, 2, "bob"), text(channel, 3, "ada")])
    };
    append(&*store, &first).await.unwrap();
    append(&*store, &second).await.unwrap();
    let before = picture(&*store, channel).await;
    for batch in [&first, &second, &second, &first] {
        append(&*store, batch).await.unwrap();
        assert_eq!(picture(&*store, channel).await, before);
    }
}

pub async fn a_batch_may_begin_before_the_head<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let (channel, mut expected) = group(&*store, 3).await;
    let fourth = text(channel, 4, "bob");
    let mut overlapping: Vec<_> = expected[1..].iter().cloned().map(Arc::new).collect();
    overlapping.push(Arc::clone(&fourth));
    append(&*store, &entries(channel, overlapping)).await.unwrap();
    expected.push(fourth.as_ref().clone());
    assert_eq!(log(&*store, channel).await, expected);
}

/// Every way in which a batch can be made for another log than the stored one.
fn conflicts<B: Backend>(channel: ChannelId, log: &[Message]) -> Vec<(&'static str, ChannelBatch)> {
    let head = log.len() as Seq;
    let stored = |seq: Seq| Arc::new(log[seq as usize - 1].clone());
    let next = text(channel, head + 1, "bob");
    let repeated = |seq: Seq| Arc::new(Message { seq, id: Uuid::new_v4(), ..log[1].clone() });
    let twice = |seq: Seq| Arc::new(Message { seq, id: Uuid::new_v4(), ..next.as_ref().clone() });
    let mut cases = vec![
        ("another entry at the head", vec![text(channel, head, "ada")]),
        ("another entry at the first seq", vec![text(channel, 1, "ada")]),
        ("a hole after the head", vec![text(channel, head + 2, "ada")]),
        ("a seq far beyond", vec![text(channel, Seq::MAX >> 1, "ada")]),
        ("the seq before the first", vec![text(channel, 0, "ada")]),
        ("one client_id twice in the batch", vec![Arc::clone(&next), twice(head + 2)]),
        ("a good entry after one that differs", vec![text(channel, head, "ada"), Arc::clone(&next)]),
        ("a stored entry, then one that differs, then a good one", {
            vec![stored(head - 1), text(channel, head, "ada"), Arc::clone(&next)]
        }),
        ("a hole inside the batch", vec![Arc::clone(&next), text(channel, head + 3, "ada")]),
        ("entries in the wrong order", vec![text(channel, head + 2, "ada"), Arc::clone(&next)]),
        ("one seq twice in the batch", vec![Arc::clone(&next), text(channel, head + 1, "ada")]),
        ("a stored entry left out inside the batch", vec![stored(head - 2), stored(head), Arc::clone(&next)]),
    ];
    if B::SEES_REPEATED_SENDS {
        cases.extend([
            ("a stored client_id again", vec![repeated(head + 1)]),
            ("a stored client_id again, after good entries", vec![Arc::clone(&next), repeated(head + 2)]),
        ]);
    }
    let with_changes = |entries| ChannelBatch {
        members: vec![(user("cyd"), member(head + 1, head, head)), (user("bob"), member(1, head, head))],
        departed: vec![user("ada")],
        delivered_by_all: head,
        read_by_all: head,
        ..super::entries(channel, entries)
    };
    let mut batches: Vec<_> = cases.into_iter().map(|(what, entries)| (what, with_changes(entries))).collect();
    batches.push(("a second creation", creation(channel)));
    batches
}

pub async fn a_conflict_changes_nothing<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let (channel, log) = group(&*store, 5).await;
    let before = picture(&*store, channel).await;
    for (what, batch) in conflicts::<B>(channel, &log) {
        assert_eq!(append(&*store, &batch).await, Err(StoreError::Conflict(channel)), "{what}");
        assert_eq!(picture(&*store, channel).await, before, "{what}");
    }
    let nowhere = ChannelId::new_group();
    let batch = ChannelBatch { create: None, ..creation(nowhere) };
    assert_eq!(append(&*store, &batch).await, Err(StoreError::Conflict(nowhere)), "no such channel");
    assert_eq!(store.channel(nowhere).await.unwrap(), None);
    let beginning_late = ChannelBatch { entries: vec![text(nowhere, 2, "ada")], ..creation(nowhere) };
    assert_eq!(append(&*store, &beginning_late).await, Err(StoreError::Conflict(nowhere)), "a log that begins with 2");
    assert_eq!(picture(&*store, nowhere).await.state, None);
    assert_eq!(store.channels_of(&user("ada"), 0, 10).await.unwrap().len(), 1);
}

pub async fn a_conflict_leaves_the_batches_beside_it_alone<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let (disputed, log_before) = group(&*store, 5).await;
    let mut good = Vec::new();
    let mut writes = Vec::new();
    for (what, bad) in conflicts::<B>(disputed, &log_before) {
        let (channel, _) = group(&*store, 1).await;
        let batch = entries(channel, vec![text(channel, 2, "bob")]);
        good.push((channel, batch.entries[0].as_ref().clone()));
        for (batch, expected) in [(bad, Err(StoreError::Conflict(disputed))), (batch, Ok(()))] {
            let store = Arc::clone(&store);
            let write = async move { assert_eq!(store.append(Arc::new(batch)).await, expected, "{what}") };
            writes.push(tokio::spawn(write));
        }
    }
    for write in writes {
        write.await.unwrap();
    }
    for (channel, entry) in good {
        assert_eq!(log(&*store, channel).await[1..], [entry]);
    }
    assert_eq!(log(&*store, disputed).await, log_before);
}

pub async fn watermarks_never_go_back<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let (channel, _) = group(&*store, 9).await;
    let marks = |seq, delivered, read, by_all| ChannelBatch {
        members: vec![(user("bob"), member(1, delivered, read))],
        delivered_by_all: by_all,
        read_by_all: by_all / 2,
        ..entries(channel, vec![text(channel, seq, "ada")])
    };
    let mut highest = (0, 0, 0, 0);
    for (seq, (delivered, read, by_all)) in (10..).zip([(5, 3, 4), (4, 4, 2), (9, 0, 8), (0, 0, 0), (7, 7, 7)]) {
        append(&*store, &marks(seq, delivered, read, by_all)).await.unwrap();
        let (a, b, c, d) = highest;
        highest = (a.max(delivered), b.max(read), c.max(by_all), d.max(by_all / 2));
        let state = store.channel(channel).await.unwrap().unwrap();
        let bob = &state.members[&user("bob")];
        assert_eq!((bob.delivered, bob.read, state.delivered_by_all, state.read_by_all), highest);
        let listed = store.channels_of(&user("bob"), 0, 1).await.unwrap().remove(0);
        let seen = (listed.delivered_seq, listed.read_seq, listed.delivered_by_all, listed.read_by_all);
        assert_eq!(seen, highest);
    }
}

pub async fn a_batch_without_entries_raises_watermarks<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let (channel, log_before) = group(&*store, 4).await;
    let before = store.channels_of(&user("bob"), 0, 1).await.unwrap().remove(0);
    let batch = ChannelBatch {
        members: vec![(user("bob"), member(1, 4, 2))],
        delivered_by_all: 3,
        read_by_all: 1,
        ..entries(channel, Vec::new())
    };
    append(&*store, &batch).await.unwrap();
    let state = store.channel(channel).await.unwrap().unwrap();
    assert_eq!(state.members[&user("bob")], member(1, 4, 2));
    assert_eq!((state.last_seq, state.delivered_by_all, state.read_by_all), (4, 3, 1));
    assert_eq!(log(&*store, channel).await, log_before);
    let after = store.channels_of(&user("bob"), 0, 1).await.unwrap().remove(0);
    assert_eq!(after.last_at, before.last_at, "a receipt is no activity");
}

pub async fn members_come_go_and_come_back<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let (channel, _) = group(&*store, 3).await;
    let read_all = ChannelBatch {
        members: vec![(user("bob"), member(1, 3, 3)), (user("cyd"), member(4, 3, 3))],
        ..entries(channel, vec![text(channel, 4, "ada")])
    };
    append(&*store, &read_all).await.unwrap();
    assert_eq!(store.role(channel, &user("cyd")).await.unwrap(), Some((ChannelKind::Group, Role::Member)));
    assert_eq!(store.channel_counts(vec![user("cyd")]).await.unwrap(), [1]);

    let departure = ChannelBatch {
        members: vec![(user("cyd"), Member { role: Role::Owner, ..member(4, 4, 4) })],
        departed: vec![user("bob"), user("ada")],
        ..entries(channel, vec![text(channel, 5, "ada")])
    };
    append(&*store, &departure).await.unwrap();
    let state = store.channel(channel).await.unwrap().unwrap();
    assert_eq!(state.members.keys().cloned().collect::<Vec<_>>(), [user("cyd")]);
    assert_eq!(state.members[&user("cyd")].role, Role::Owner);
    assert_eq!(store.role(channel, &user("bob")).await.unwrap(), None);
    assert_eq!(store.channels_of(&user("bob"), 0, 10).await.unwrap(), []);
    assert_eq!(store.channel_counts(vec![user("bob"), user("ada")]).await.unwrap(), [0, 0]);

    let back = ChannelBatch {
        members: vec![(user("bob"), member(6, 5, 5))],
        departed: vec![user("eve")],
        ..entries(channel, vec![text(channel, 6, "cyd")])
    };
    append(&*store, &back).await.unwrap();
    let state = store.channel(channel).await.unwrap().unwrap();
    assert_eq!(state.members[&user("bob")], member(6, 5, 5));
    assert_eq!(store.channels_of(&user("bob"), 0, 10).await.unwrap().len(), 1);
    let everyone_left =
        ChannelBatch { departed: vec![user("bob"), user("cyd")], ..entries(channel, vec![text(channel, 7, "cyd")]) };
    append(&*store, &everyone_left).await.unwrap();
    let state = store.channel(channel).await.unwrap().unwrap();
    assert_eq!((state.members.len(), state.last_seq), (0, 7));
}

pub async fn a_late_write_brings_nobody_back<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let channel = ChannelId::new_group();
    let making = creation(channel);
    let receipt = ChannelBatch { members: vec![(user("bob"), member(1, 1, 1))], ..entries(channel, Vec::new()) };
    let removal = ChannelBatch {
        members: vec![(user("ada"), member(1, 2, 2))],
        departed: vec![user("bob")],
        ..entries(channel, vec![text(channel, 2, "ada")])
    };
    for batch in [&making, &receipt, &removal] {
        append(&*store, batch).await.unwrap();
    }
    let before = picture(&*store, channel).await;
    for late in [&making, &receipt] {
        append(&*store, late).await.unwrap();
        assert_eq!(picture(&*store, channel).await, before, "bob was removed with entry 2");
    }

    let back = ChannelBatch {
        members: vec![(user("bob"), member(3, 2, 2))],
        ..entries(channel, vec![text(channel, 3, "ada")])
    };
    append(&*store, &back).await.unwrap();
    let before = picture(&*store, channel).await;
    let high_receipt = ChannelBatch { members: vec![(user("bob"), member(1, 3, 3))], ..entries(channel, Vec::new()) };
    for late in [&making, &receipt, &removal, &high_receipt] {
        append(&*store, late).await.unwrap();
        assert_eq!(picture(&*store, channel).await, before, "bob came back with entry 3");
    }
}

pub async fn what_was_stored_survives_a_kill<B: Backend>() {
    let backend = B::fresh().await;
    let (channel, mut expected) = group(&*backend.store(), 20).await;
    let departure = ChannelBatch {
        members: vec![(user("ada"), Member { role: Role::Owner, ..member(1, 9, 7) })],
        departed: vec![user("bob")],
        delivered_by_all: 9,
        read_by_all: 7,
        ..entries(channel, vec![text(channel, 21, "ada")])
    };
    append(&*backend.store(), &departure).await.unwrap();
    let before = picture(&*backend.store(), channel).await;
    let backend = backend.after_kill().await;
    assert_eq!(picture(&*backend.store(), channel).await, before);
    let next = entries(channel, vec![text(channel, 22, "ada")]);
    append(&*backend.store(), &next).await.unwrap();
    expected.extend([&departure, &next].map(|batch| batch.entries[0].as_ref().clone()));
    assert_eq!(log(&*backend.after_kill().await.store(), channel).await, expected);
}

pub async fn channels_are_stored_side_by_side<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let mut writers = Vec::new();
    for _ in 0..20 {
        let store = Arc::clone(&store);
        writers.push(tokio::spawn(async move {
            let (channel, mut expected) = group(&*store, 1).await;
            for seq in 2..20 {
                let batch = entries(channel, vec![text(channel, seq, "bob")]);
                append(&*store, &batch).await.unwrap();
                expected.push(batch.entries[0].as_ref().clone());
            }
            assert_eq!(log(&*store, channel).await, expected);
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(store.channel_counts(vec![user("bob")]).await.unwrap(), [20]);
}

pub async fn refusals_are_found_again<B: Backend>() {
    let backend = B::fresh().await;
    let (channel, nowhere) = (ChannelId::new_group(), ChannelId::new_group());
    append(&*backend.store(), &creation(channel)).await.unwrap();
    let refused = |code| Refused { sender: user("ada"), client_id: Uuid::new_v4(), code, at: Millis(1_000) };
    let [forbidden, nothing, early] = [Some(ErrorCode::Forbidden), None, Some(ErrorCode::NotAMember)].map(refused);
    let entry = text(channel, 2, "bob");
    let with_entries = ChannelBatch {
        refused: vec![forbidden.clone(), nothing.clone()],
        ..entries(channel, vec![Arc::clone(&entry)])
    };
    // Of a channel that is not there, and will not be because of this.
    let alone = ChannelBatch { refused: vec![early.clone()], ..entries(nowhere, Vec::new()) };
    for batch in [&with_entries, &alone, &with_entries, &alone] {
        append(&*backend.store(), batch).await.unwrap();
    }
    let backend = backend.after_kill().await;
    let store = backend.store();
    let keys = |all: [&Refused; 2]| all.map(|refused| (refused.sender.clone(), refused.client_id)).to_vec();
    let mut asked = keys([&forbidden, &nothing]);
    asked.push((entry.sender.clone(), entry.client_id));
    let found = store.find_sends(channel, asked).await.unwrap();
    let refused = |code| Some(Earlier::Refused(code));
    assert_eq!(found, [refused(Some(ErrorCode::Forbidden)), refused(None), Some(Earlier::Stored(2))]);
    let found = store.find_sends(nowhere, keys([&early, &forbidden])).await.unwrap();
    assert_eq!(found, [refused(Some(ErrorCode::NotAMember)), None]);
    assert_eq!(store.channel(nowhere).await.unwrap(), None);
}
