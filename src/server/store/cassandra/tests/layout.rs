use super::super::rows::BUCKET;
use super::*;
use crate::server::store::Refused;

/// A group whose log seems to end at `head`.
async fn group_at(store: &CassandraStore, head: Seq) -> (Owned, Username) {
    let ada = somebody();
    let mut owned = Owned::new();
    append(store, &owned.creation(&[&ada])).await;
    let values = (head as i64, head as i64, scylla::value::CqlTimestamp(0), owned.id.0);
    store.inner.write(&store.inner.statements.set_head, values).await.unwrap();
    store.inner.heads.forget(owned.id);
    owned.state.last_seq = head;
    (owned, ada)
}

fn seqs(messages: Vec<Message>) -> Vec<Seq> {
    messages.into_iter().map(|message| message.seq).collect()
}

#[tokio::test]
async fn a_flush_and_a_page_may_cross_the_border_of_a_bucket() {
    let store = store().await;
    let (mut owned, ada) = group_at(&store, BUCKET - 11).await;
    let id = owned.id;
    let batch = owned.batch((BUCKET - 10..BUCKET + 10).map(|seq| message(id, seq, &ada)).collect());
    append(&store, &batch).await;
    append(&another(&store).await, &batch).await;
    let end = BUCKET + 10;
    for edge in BUCKET - 8..end {
        for limit in [1, 2, 5, 20] {
            let after = seqs(store.messages(id, Page::After(edge), limit).await.unwrap());
            assert_eq!(after, (edge + 1..end).take(limit).collect::<Vec<_>>(), "after {edge}, {limit}");
        }
        for limit in [1, 2] {
            let before = seqs(store.messages(id, Page::Before(edge), limit).await.unwrap());
            assert_eq!(before, (edge - limit as u64..edge).collect::<Vec<_>>(), "before {edge}, {limit}");
        }
    }
    for far in [end, end + BUCKET, end + 50 * BUCKET, i64::MAX as Seq, Seq::MAX] {
        let before = seqs(store.messages(id, Page::Before(far), 15).await.unwrap());
        assert_eq!(before, (end - 15..end).collect::<Vec<_>>(), "before {far}");
    }
}

#[tokio::test]
async fn a_large_flush_is_cut_into_several_mutations() {
    let store = store().await;
    let (mut owned, ada) = group_at(&store, 1).await;
    let id = owned.id;
    let large = |seq| Message { body: "x".repeat(16 << 10), ..message(id, seq, &ada) };
    let batch = owned.batch((2..502).map(large).collect());
    append(&store, &batch).await;
    let stored = store.messages(id, Page::After(1), 1_000).await.unwrap();
    assert!(stored.iter().eq(batch.entries.iter().map(Arc::as_ref)));
    assert_eq!(another(&store).await.channel(id).await.unwrap(), Some(owned.state));
}

#[tokio::test]
async fn of_two_entries_with_one_seq_everyone_takes_the_same() {
    let store = store().await;
    let (mut owned, ada) = group_at(&store, 1).await;
    let id = owned.id;
    let batch = owned.batch((2..=5).map(|seq| message(id, seq, &ada)).collect());
    append(&store, &batch).await;
    let log: Vec<Message> = batch.entries.iter().map(|entry| entry.as_ref().clone()).collect();
    for other in [Uuid::nil(), Uuid::max()] {
        let seq = if other.is_nil() { 3 } else { 4 };
        let double = Message { id: other, body: "another".into(), ..message(id, seq, &ada) };
        store.inner.write_entries(&[Arc::new(double)]).await.unwrap();
    }
    let mut expected = log.clone();
    let pages = async |limit: usize| {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while let Some(last) = Some(up.last().map_or(1, |last: &Message| last.seq)).filter(|last| *last < 5) {
            up.extend(store.messages(id, Page::After(last), limit).await.unwrap());
        }
        while let Some(first) = Some(down.first().map_or(6, |first: &Message| first.seq)).filter(|first| *first > 2) {
            let page = store.messages(id, Page::Before(first), limit).await.unwrap();
            down.splice(..0, page.into_iter().filter(|message| message.seq > 1));
        }
        (up, down)
    };
    let (first, _) = pages(10).await;
    assert_eq!(first[1].id, Uuid::nil());
    expected[1] = first[1].clone();
    for limit in 1..=5 {
        let (up, down) = pages(limit).await;
        assert_eq!(up, expected, "{limit}");
        assert_eq!(down, expected, "{limit}");
    }
    // The writer of the entry that lost finds that out.
    let outcome = another(&store).await.append(Arc::new(batch)).await;
    assert_eq!(outcome, Err(StoreError::Conflict(id)));
}

#[tokio::test]
async fn what_became_of_a_send_is_forgotten_in_time() {
    let store = store().await;
    let (mut owned, ada) = group_at(&store, 1).await;
    let id = owned.id;
    let mut batch = owned.batch(vec![message(id, 2, &ada), message(id, 3, &ada)]);
    let client_id = Uuid::new_v4();
    batch.refused = vec![Refused { sender: ada.clone(), client_id, code: None, at: Millis(0) }];
    batch.refused.push(Refused {
        client_id: Uuid::new_v4(),
        code: Some(crate::wire::ErrorCode::Forbidden),
        ..batch.refused[0].clone()
    });
    append(&store, &batch).await;
    let left = "SELECT ttl(seq), ttl(code) FROM sends_by_client_id WHERE channel_id = ? AND sender = ?";
    let session = &store.inner.cassandra.session;
    let result = session.query_unpaged(left, (id.0, ada.as_str())).await.unwrap().into_rows_result().unwrap();
    let rows: Vec<(Option<i32>, Option<i32>)> = result.rows().unwrap().map(Result::unwrap).collect();
    let ttls: Vec<i32> = rows.iter().filter_map(|(seq, code)| seq.or(*code)).collect();
    // The creation had one, too; a refusal without a code has no column that could tell.
    assert_eq!((rows.len(), ttls.len()), (5, 4));
    assert!(ttls.iter().all(|left| (1..=TTL.as_secs() as i32).contains(left)), "{ttls:?}");
}
