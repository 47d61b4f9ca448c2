use super::*;

/// An owner that was paused at this moment and still takes it for the present.
async fn paused(store: &CassandraStore, id: ChannelId) -> CassandraStore {
    let paused = another(store).await;
    paused.channel(id).await.unwrap();
    paused
}

#[tokio::test]
async fn a_paused_owner_brings_nobody_back_and_removes_nobody() {
    let now = store().await;
    let [ada, bob] = [(); 2].map(|()| somebody());
    let mut owned = Owned::new();
    let id = owned.id;
    append(&now, &owned.creation(&[&ada, &bob])).await;
    let mut receipt = owned.batch(Vec::new());
    receipt.create = None;
    receipt.members = vec![(bob.clone(), owned.state.members[&bob].clone())];
    receipt.members[0].1.delivered = 1;
    let bobs = || vec![bob.clone()];
    let mut late = Vec::new();
    let mut held = Vec::new();
    for seq in 2..=7 {
        // What each owner would still write: from its present on, one entry, or as many as came since.
        held.push((paused(&now, id).await, seq));
        let what = if seq % 2 == 0 { Change::Removed { members: bobs() } } else { Change::Added { members: bobs() } };
        let batch = owned.batch(vec![change(id, seq, &ada, what)]);
        append(&now, &batch).await;
        late.push(batch);
        let expected = owned.state.clone();
        for (owner, from) in &held {
            let behind = late[*from as usize - 2].clone();
            owner.append(Arc::new(behind)).await.unwrap();
            owner.append(Arc::new(receipt.clone())).await.unwrap();
            assert_eq!(another(&now).await.channel(id).await.unwrap().as_ref(), Some(&expected), "{seq}, from {from}");
            let is_member = expected.members.contains_key(&bob);
            assert_eq!(now.memberships(&bob).await.unwrap().len(), usize::from(is_member), "{seq}, from {from}");
            assert_eq!(now.channels_of(&bob, 0, 1).await.unwrap().len(), usize::from(is_member));
        }
        // Each writes once: after that it knows better.
        held.clear();
        for from in 2..=seq {
            let owner = another(&now).await;
            let head = super::super::heads::Head {
                last_seq: from - 1,
                last_at: Millis(from as i64 - 1),
                delivered_by_all: 0,
                read_by_all: 0,
            };
            owner.inner.heads.raise(id, head);
            held.push((owner, from));
        }
    }
}

#[tokio::test]
async fn timestamps_are_seqs() {
    let store = store().await;
    let [ada, bob] = [(); 2].map(|()| somebody());
    let mut owned = Owned::new();
    append(&store, &owned.creation(&[&ada, &bob])).await;
    let batch = owned.batch((2..=9).map(|seq| message(owned.id, seq, &ada)).collect());
    append(&store, &batch).await;
    append(&another(&store).await, &batch).await;
    let times = "SELECT writetime(last_seq), writetime(last_at), writetime(delivered_seq), writetime(role)
        FROM users_by_channel WHERE channel_id = ? AND username = ?";
    let session = &store.inner.cassandra.session;
    let result = session.query_unpaged(times, (owned.id.0, ada.as_str())).await.unwrap().into_rows_result().unwrap();
    let row: (i64, i64, i64, i64) = result.single_row().unwrap();
    assert_eq!(row, (9, 9, 9, 1));
}
