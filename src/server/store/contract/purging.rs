use super::super::{Cause, Extent, PurgeRecord, Removed};
use super::*;

/// Until nothing is left; what the steps removed.
async fn purge(purge: &dyn Purge, channel: ChannelId, through: Seq, limit: usize) -> u64 {
    let mut entries = 0;
    loop {
        let removed = purge.remove(channel, through, limit).await.unwrap();
        entries += removed.entries;
        if removed.is_done {
            return entries;
        }
        assert!(removed.purged_seq < through && removed.entries > 0, "{removed:?}");
    }
}

async fn extent(purge: &dyn Purge, channel: ChannelId) -> (Seq, Seq) {
    let Extent { purged_seq, last_seq } = purge.extent(channel).await.unwrap().unwrap();
    (purged_seq, last_seq)
}

/// Entries in one bucket of a store that has them, and then some.
const LONG: Seq = 10_050;

async fn long_group(store: &dyn Store) -> ChannelId {
    let channel = group(store, 1).await.0;
    for first in (2..=LONG).step_by(500) {
        let last = LONG.min(first + 499);
        let batch = entries(channel, (first..=last).map(|seq| text(channel, seq, "ada")).collect());
        append(store, &batch).await.unwrap();
    }
    channel
}

async fn seqs(store: &dyn Store, channel: ChannelId, page: Page, limit: usize) -> Vec<Seq> {
    store.messages(channel, page, limit).await.unwrap().iter().map(|entry| entry.seq).collect()
}

pub async fn a_purge_removes_the_beginning<B: Backend>() {
    let backend = B::fresh().await;
    let (store, purges) = (backend.store(), backend.purge());
    let (channel, whole) = group(&*store, 9).await;
    let (other, untouched) = group(&*store, 9).await;
    assert_eq!(extent(&*purges, channel).await, (0, 9));
    let state = store.channel(channel).await.unwrap();

    assert_eq!(purge(&*purges, channel, 4, 3).await, 4);
    assert_eq!(extent(&*purges, channel).await, (4, 9));
    assert_eq!(log(&*store, channel).await, whole[4..]);
    assert_eq!(log(&*store, other).await, untouched);
    assert_eq!(store.channel(channel).await.unwrap(), state, "the channel and its members stay");
    // Again, and of less: nothing.
    for through in [4, 2, 0] {
        let removed = purges.remove(channel, through, 3).await.unwrap();
        assert_eq!(removed, Removed { purged_seq: 4, entries: 0, indexed: 0, is_done: true });
    }
    assert_eq!(log(&*store, channel).await, whole[4..]);
    let backend = backend.after_kill().await;
    assert_eq!(extent(&*backend.purge(), channel).await, (4, 9));
    assert_eq!(log(&*backend.store(), channel).await, whole[4..]);
}

pub async fn a_purge_goes_no_further_than_the_log<B: Backend>() {
    let backend = B::fresh().await;
    let (store, purges) = (backend.store(), backend.purge());
    let (channel, _) = group(&*store, 5).await;
    assert_eq!(purge(&*purges, channel, Seq::MAX, 100).await, 5);
    assert_eq!(extent(&*purges, channel).await, (5, 5));
    assert_eq!(log(&*store, channel).await, []);
    let nowhere = ChannelId::new_group();
    assert_eq!(purges.extent(nowhere).await.unwrap(), None);
    let removed = purges.remove(nowhere, 7, 100).await.unwrap();
    assert_eq!(removed, Removed { purged_seq: 0, entries: 0, indexed: 0, is_done: true });
}

pub async fn a_purge_can_be_cut_off<B: Backend>() {
    let backend = B::fresh().await;
    let channel = long_group(&*backend.store()).await;
    let removed = backend.purge().remove(channel, LONG, 700).await.unwrap();
    assert!(!removed.is_done && removed.entries == removed.purged_seq, "{removed:?}");
    let backend = backend.after_kill().await;
    let (store, purges) = (backend.store(), backend.purge());
    let gone = removed.purged_seq;
    assert_eq!(extent(&*purges, channel).await, (gone, LONG));
    assert_eq!(seqs(&*store, channel, Page::After(0), 2).await, [gone + 1, gone + 2]);
    assert_eq!(purge(&*purges, channel, LONG - 1, 700).await, LONG - 1 - gone);
    assert_eq!(seqs(&*store, channel, Page::After(0), 2).await, [LONG]);
}

pub async fn pages_go_on_behind_what_was_purged<B: Backend>() {
    let backend = B::fresh().await;
    let (store, purges) = (backend.store(), backend.purge());
    let channel = long_group(&*store).await;
    for through in [3, 9_998, 9_999, 10_000, 10_020] {
        purge(&*purges, channel, through, 4_000).await;
        let left: Vec<Seq> = (through + 1..=LONG).collect();
        for edge in [0, 1, through - 1, through, through + 1, through + 2, 9_999, LONG - 1, LONG, LONG + 1] {
            for limit in [1, 3, 100] {
                let after: Vec<Seq> = left.iter().filter(|seq| **seq > edge).take(limit).copied().collect();
                let page = seqs(&*store, channel, Page::After(edge), limit).await;
                assert_eq!(page, after, "purged through {through}: {limit} after {edge}");
                let mut before: Vec<Seq> = left.iter().rev().filter(|seq| **seq < edge).take(limit).copied().collect();
                before.reverse();
                let page = seqs(&*store, channel, Page::Before(edge), limit).await;
                assert_eq!(page, before, "purged through {through}: {limit} before {edge}");
            }
        }
    }
    purge(&*purges, channel, LONG, 4_000).await;
    for edge in [0, 9_999, LONG, Seq::MAX] {
        assert!(seqs(&*store, channel, Page::After(edge), 3).await.is_empty());
        assert!(seqs(&*store, channel, Page::Before(edge), 3).await.is_empty());
    }
}

pub async fn a_channel_goes_on_after_a_purge<B: Backend>() {
    let backend = B::fresh().await;
    let (store, purges) = (backend.store(), backend.purge());
    let (channel, _) = group(&*store, 5).await;
    purge(&*purges, channel, 5, 100).await;
    let next = entries(channel, vec![text(channel, 6, "bob"), text(channel, 7, "ada")]);
    append(&*store, &next).await.unwrap();
    let expected: Vec<Message> = next.entries.iter().map(|entry| entry.as_ref().clone()).collect();
    assert_eq!(log(&*store, channel).await, expected);
    assert_eq!(store.channel(channel).await.unwrap().unwrap().last_seq, 7);
    assert_eq!(extent(&*purges, channel).await, (5, 7));
    // Another process goes on as well.
    let backend = backend.after_kill().await;
    let last = entries(channel, vec![text(channel, 8, "bob")]);
    append(&*backend.store(), &last).await.unwrap();
    assert_eq!(seqs(&*backend.store(), channel, Page::After(0), 9).await, [6, 7, 8]);
}

pub async fn a_purged_send_is_still_known<B: Backend>() {
    let backend = B::fresh().await;
    let (store, purges) = (backend.store(), backend.purge());
    let channel = group(&*store, 1).await.0;
    let sent = Message { at: Millis::now(), ..text(channel, 2, "bob").as_ref().clone() };
    append(&*store, &entries(channel, vec![Arc::new(sent.clone())])).await.unwrap();
    purge(&*purges, channel, 2, 100).await;
    let asked = vec![(user("bob"), sent.client_id), (user("ada"), sent.client_id)];
    assert_eq!(store.find_sends(channel, asked).await.unwrap(), [Some(Earlier::Stored(2)), None]);
}

pub async fn a_late_write_brings_nothing_back<B: Backend>() {
    let backend = B::fresh().await;
    let (store, purges) = (backend.store(), backend.purge());
    let channel = group(&*store, 1).await.0;
    let late = entries(channel, (2..=4).map(|seq| text(channel, seq, "ada")).collect());
    append(&*store, &late).await.unwrap();
    purge(&*purges, channel, 3, 100).await;
    // Of an owner that does not know whether its flush came through; nor does the next process.
    append(&*store, &late).await.unwrap();
    assert_eq!(seqs(&*store, channel, Page::After(0), 9).await, [4]);
    let backend = backend.after_kill().await;
    append(&*backend.store(), &late).await.unwrap();
    assert_eq!(seqs(&*backend.store(), channel, Page::After(0), 9).await, [4]);
    let other = entries(channel, vec![text(channel, 4, "ada")]);
    assert_eq!(append(&*backend.store(), &other).await, Err(StoreError::Conflict(channel)));
}

pub async fn lists_say_where_a_log_begins<B: Backend>() {
    let backend = B::fresh().await;
    let (store, purges) = (backend.store(), backend.purge());
    let (channel, _) = group(&*store, 6).await;
    let begins = async || store.channels_of(&user("bob"), 0, 10).await.unwrap()[0].channel.purged_seq;
    assert_eq!(begins().await, 0);
    purge(&*purges, channel, 4, 100).await;
    assert_eq!(begins().await, 4);
}

pub async fn records_are_kept<B: Backend>() {
    let backend = B::fresh().await;
    let purges = backend.purge();
    let (channel, other) = (ChannelId::new_group(), ChannelId::new_group());
    let record = |channel, through| PurgeRecord {
        id: Uuid::now_v7(),
        channel,
        after: 0,
        through,
        by: "ada@desk".into(),
        cause: Cause::Command,
        began_at: Millis::now(),
        ended_at: None,
        entries: 0,
        indexed: 0,
        dead_letters: 0,
    };
    let (first, second, third) = (record(channel, 1), record(other, 2), record(channel, 3));
    for record in [&first, &second, &third] {
        purges.keep(record.clone()).await.unwrap();
    }
    let ended = PurgeRecord { ended_at: Some(Millis::now()), entries: 1, ..first };
    purges.keep(ended.clone()).await.unwrap();
    let backend = backend.after_kill().await;
    let purges = backend.purge();
    assert_eq!(purges.records(Some(channel), 10).await.unwrap(), [third.clone(), ended]);
    assert_eq!(purges.records(Some(channel), 1).await.unwrap(), std::slice::from_ref(&third));
    // Others may keep theirs beside them.
    let ours: Vec<PurgeRecord> = purges.records(None, 1_000).await.unwrap();
    let ours: Vec<_> = ours.into_iter().filter(|record| [channel, other].contains(&record.channel)).collect();
    assert_eq!(ours.iter().map(|record| record.through).collect::<Vec<_>>(), [3, 2, 1]);
}
