//! Lists of channels for a gateway that knows some of them.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::*;
use crate::server::store::{Known, KnownChannel};
use crate::wire::frame::ChannelInfo;

/// What a gateway holds, and what it was asked for.
#[derive(Default)]
struct Held {
    channels: HashMap<ChannelId, KnownChannel>,
    asked: Mutex<Vec<ChannelId>>,
}

impl Known for Held {
    fn channel(&self, id: ChannelId) -> Option<KnownChannel> {
        self.asked.lock().push(id);
        self.channels.get(&id).cloned()
    }
}

/// As a gateway has it that was told everything.
fn known(membership: &Membership) -> KnownChannel {
    KnownChannel {
        info: membership.channel.clone(),
        last_at: membership.last_at,
        delivered_by_all: membership.delivered_by_all,
        read_by_all: membership.read_by_all,
    }
}

/// Groups of different activity, and somebody who is in all of them.
async fn groups(store: &CassandraStore, count: usize) -> (Vec<Owned>, Username) {
    let (ada, bob) = (somebody(), somebody());
    let mut groups = Vec::new();
    for number in 0..count {
        let mut owned = Owned::new();
        append(store, &owned.creation(&[&ada, &bob])).await;
        let last = message(owned.id, 2, &bob);
        let last = Message { at: Millis(100 + (number as i64 * 7) % 5), ..last };
        let mut batch = owned.batch(vec![last]);
        batch.delivered_by_all = 1 + number as Seq % 2;
        append(store, &batch).await;
        groups.push(owned);
    }
    (groups, ada)
}

#[tokio::test]
async fn a_list_is_the_same_whatever_is_known() {
    let store = store().await;
    let (groups, ada) = groups(&store, 6).await;
    let list = store.channels_of(&ada, 0, usize::MAX).await.unwrap();
    assert_eq!(list.len(), 6);
    for some in 0..=6 {
        let channels = list.iter().take(some).map(|membership| (membership.channel.id, known(membership))).collect();
        let held = Held { channels, asked: Mutex::default() };
        assert_eq!(store.channels_known(&ada, &held).await.unwrap(), list, "{some} of them are known");
        assert_eq!(held.asked.lock().len(), groups.len());
    }
    // What is known of channels that one isn't in makes nobody a member.
    let stranger = somebody();
    let channels = list.iter().map(|membership| (membership.channel.id, known(membership))).collect();
    let held = Held { channels, asked: Mutex::default() };
    assert_eq!(store.channels_known(&stranger, &held).await.unwrap(), []);
}

#[tokio::test]
async fn of_what_is_known_only_the_own_row_is_read() {
    let store = store().await;
    let (groups, ada) = groups(&store, 2).await;
    let list = store.channels_of(&ada, 0, usize::MAX).await.unwrap();
    // Ahead of the store, as a gateway is.
    let ahead = |membership: &Membership| {
        let known = known(membership);
        let info = ChannelInfo { last_seq: 9, ..known.info };
        KnownChannel { info, last_at: Millis(1_000), delivered_by_all: 8, read_by_all: 7 }
    };
    let channels = list.iter().map(|membership| (membership.channel.id, ahead(membership))).collect();
    let held = Held { channels, asked: Mutex::default() };
    let expected: Vec<_> = list
        .iter()
        .map(|membership| Membership {
            channel: ChannelInfo { last_seq: 9, ..membership.channel.clone() },
            last_at: Millis(1_000),
            delivered_by_all: 8,
            read_by_all: 7,
            ..membership.clone()
        })
        .collect();
    let mut told = store.channels_known(&ada, &held).await.unwrap();
    told.sort_by_key(|membership| list.iter().position(|other| other.channel.id == membership.channel.id));
    assert_eq!(told, expected);

    // Nor are the rows of others missed.
    for owned in &groups {
        let others: Vec<_> = owned.state.members.keys().filter(|user| **user != ada).collect();
        for other in others {
            let delete = "DELETE FROM users_by_channel WHERE channel_id = ? AND username = ?";
            store.inner.cassandra.session.query_unpaged(delete, (owned.id.0, other.as_str())).await.unwrap();
        }
    }
    told = store.channels_known(&ada, &held).await.unwrap();
    told.sort_by_key(|membership| list.iter().position(|other| other.channel.id == membership.channel.id));
    assert_eq!(told, expected);
}

#[tokio::test]
async fn who_has_left_is_in_no_list_whatever_is_known() {
    let store = store().await;
    let (mut groups, ada) = groups(&store, 3).await;
    let before = store.channels_of(&ada, 0, usize::MAX).await.unwrap();
    let owned = &mut groups[1];
    let by = owned.state.members.keys().find(|user| **user != ada).unwrap().clone();
    let leave = change(owned.id, 3, &by, Change::Removed { members: vec![ada.clone()] });
    append(&store, &owned.batch(vec![leave])).await;
    let channels = before.iter().map(|membership| (membership.channel.id, known(membership))).collect();
    let held = Held { channels, asked: Mutex::default() };
    let list = store.channels_known(&ada, &held).await.unwrap();
    assert_eq!(list, store.channels_of(&ada, 0, usize::MAX).await.unwrap());
    assert!(list.len() == 2 && list.iter().all(|membership| membership.channel.id != owned.id));
}

/// A gateway whose events are late.
#[tokio::test]
async fn what_is_known_of_less_than_is_stored_is_read() {
    let store = store().await;
    let (groups, ada) = groups(&store, 2).await;
    let list = store.channels_of(&ada, 0, usize::MAX).await.unwrap();
    let late = |membership: &Membership| {
        let known = known(membership);
        let info = ChannelInfo { last_seq: 1, member_count: 1, ..known.info };
        KnownChannel { info, last_at: Millis(1), ..known }
    };
    let channels = list.iter().map(|membership| (membership.channel.id, late(membership))).collect();
    let held = Held { channels, asked: Mutex::default() };
    assert_eq!(store.channels_known(&ada, &held).await.unwrap(), list);
    assert_eq!(groups.len(), list.len());
}
