use super::super::plan::Plan;
use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Begin,
    Entries,
    Sends,
    Lists,
}

/// Entries and sends are written side by side: a process may die after either.
const ORDERS: [[Step; 4]; 2] =
    [[Step::Begin, Step::Entries, Step::Sends, Step::Lists], [Step::Begin, Step::Sends, Step::Entries, Step::Lists]];

async fn take(store: &CassandraStore, step: Step, batch: &ChannelBatch) {
    let inner = &store.inner;
    let plan = Plan::of(batch, inner.read_head(batch.channel).await.unwrap()).unwrap();
    let fresh = plan.fresh.iter().map(Arc::as_ref);
    match step {
        Step::Begin => inner.begin_channel(&plan).await.unwrap(),
        Step::Entries => inner.write_entries(plan.fresh).await.unwrap(),
        Step::Sends => inner.note_sends(batch.channel, fresh).await.unwrap(),
        Step::Lists if plan.changes_members() => inner.write_lists(&plan).await.unwrap(),
        Step::Lists => {}
    }
}

/// A process dies after some of the steps, and the next one loads the channel.
async fn die_and_load(
    store: &CassandraStore,
    steps: &[Step],
    owned: &Owned,
    before: Option<&ChannelState>,
    batch: &ChannelBatch,
) {
    for step in steps {
        take(store, *step, batch).await;
    }
    let next = another(store).await;
    let stored = next.channel(owned.id).await.unwrap();
    let is_in_the_log = steps.contains(&Step::Entries);
    let expected = if is_in_the_log { Some(&owned.state) } else { before };
    assert_eq!(stored.as_ref(), expected, "{steps:?}");
    if is_in_the_log {
        complete(&next, owned, batch).await;
    }
    // The tasks are delivered again, and done again.
    append(&next, batch).await;
    assert_eq!(another(store).await.channel(owned.id).await.unwrap().as_ref(), Some(&owned.state), "{steps:?}");
    complete(&next, owned, batch).await;
}

async fn complete(store: &CassandraStore, owned: &Owned, batch: &ChannelBatch) {
    let sends = batch.entries.iter().map(|entry| (entry.sender.clone(), entry.client_id)).collect();
    let found = store.find_sends(owned.id, sends).await.unwrap();
    let seqs: Vec<_> = batch.entries.iter().map(|entry| Some(Earlier::Stored(entry.seq))).collect();
    assert_eq!(found, seqs);
    for (user, member) in &batch.members {
        assert_eq!(store.role(owned.id, user).await.unwrap(), Some((ChannelKind::Group, member.role)));
        assert_eq!(store.memberships(user).await.unwrap(), [owned.id]);
        let listed = store.channels_of(user, 0, 10).await.unwrap();
        assert_eq!(listed[0].channel, owned.state.info(owned.id));
        assert_eq!((listed[0].delivered_seq, listed[0].read_seq), (member.delivered, member.read));
    }
    for user in &batch.departed {
        assert_eq!(store.role(owned.id, user).await.unwrap(), None);
        assert_eq!(store.memberships(user).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_crash_at_any_step_is_made_good() {
    let store = store().await;
    for order in ORDERS {
        for count in 0..=order.len() {
            let [ada, bob, cyd] = [(); 3].map(|()| somebody());
            let mut owned = Owned::new();
            let creation = owned.creation(&[&ada, &bob]);
            die_and_load(&store, &order[..count], &owned, None, &creation).await;
            let before = owned.state.clone();
            let id = owned.id;
            let added = Change::Added { members: vec![cyd.clone()] };
            let removed = Change::Removed { members: vec![bob.clone()] };
            let left = Change::Removed { members: vec![ada.clone()] };
            let batch = owned.batch(vec![
                change(id, 2, &ada, added),
                message(id, 3, &bob),
                change(id, 4, &ada, removed),
                change(id, 5, &ada, left),
                message(id, 6, &cyd),
            ]);
            assert_eq!(owned.state.members[&cyd].role, Role::Owner, "the heir");
            die_and_load(&store, &order[..count], &owned, Some(&before), &batch).await;
        }
    }
}
