//! Random batches, good and bad, and kills, against a store and against a map in memory.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use proptest_state_machine::{ReferenceStateMachine, Sequential, StateMachineTest};
use tokio::runtime::Runtime;

use super::*;

const CHANNELS: u128 = 3;
const USERS: [&str; 4] = ["ada", "bob", "cyd", "dan"];

pub fn compare<B: Backend>() {
    let config = ProptestConfig {
        cases: B::CASES,
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new(config.clone());
    let outcome = runner.run(&sequences::<B>(), |(state, transitions, seen)| {
        Comparison::<B>::test_sequential(config.clone(), state, transitions, seen);
        Ok(())
    });
    if let Err(difference) = outcome {
        panic!("{difference}");
    }
}

fn sequences<B: Backend>() -> Sequences {
    let first = || Just(Model { sees_repeated_sends: B::SEES_REPEATED_SENDS, ..Model::default() }).boxed();
    Sequential::new((1..40).into(), first, Model::preconditions, Model::transitions, Model::apply)
}

type Sequences = Sequential<Model, Step, BoxedStrategy<Model>, BoxedStrategy<Step>>;

#[derive(Debug, Clone)]
enum Step {
    Append(ChannelBatch),
    Kill,
}

/// What a store is, without anything that makes it durable or fast.
#[derive(Debug, Clone, Default)]
struct Model {
    channels: BTreeMap<ChannelId, Stored>,
    /// See [`Backend::SEES_REPEATED_SENDS`].
    sees_repeated_sends: bool,
    /// Of the last step.
    accepted: bool,
    /// Batches that were accepted: any of them may be written once more, at any time.
    history: Vec<ChannelBatch>,
}

#[derive(Debug, Clone)]
struct Stored {
    state: ChannelState,
    log: Vec<Arc<Message>>,
    last_at: i64,
}

impl Model {
    fn repeats_a_send(&self, batch: &ChannelBatch) -> bool {
        let stored = self.channels.get(&batch.channel);
        let head = stored.map_or(0, |stored| stored.log.len() as Seq);
        let fresh: Vec<_> = batch.entries.iter().filter(|entry| entry.seq > head).collect();
        let distinct: BTreeSet<_> = fresh.iter().map(|entry| (&entry.sender, entry.client_id)).collect();
        distinct.len() < fresh.len() || fresh.iter().any(|entry| stored.is_some_and(|stored| stored.has_send(entry)))
    }

    fn append(&mut self, batch: &ChannelBatch) -> bool {
        let stored = self.channels.get(&batch.channel);
        let Some(mut next) = stored.cloned().or_else(|| batch.create.as_ref().map(Stored::new)) else { return false };
        let head = next.log.len();
        let mut last = None;
        for entry in &batch.entries {
            let seq = entry.seq as usize;
            if seq == 0 || seq > next.log.len() + 1 || last.is_some_and(|last: usize| seq != last + 1) {
                return false;
            }
            last = Some(seq);
            match next.log.get(seq - 1) {
                Some(there) if there.id != entry.id => return false,
                Some(_) => {}
                None if next.has_send(entry) => return false,
                None => next.log.push(Arc::clone(entry)),
            }
        }
        next.last_at = next.log.iter().map(|entry| entry.at.0).max().unwrap_or(0);
        next.state.last_seq = next.log.len() as Seq;
        next.state.delivered_by_all = next.state.delivered_by_all.max(batch.delivered_by_all);
        next.state.read_by_all = next.state.read_by_all.max(batch.read_by_all);
        let is_news = stored.is_none() || next.log.len() > head;
        next.change_members(batch, is_news);
        self.channels.insert(batch.channel, next);
        true
    }
}

impl Stored {
    fn new(create: &NewChannel) -> Self {
        let NewChannel { kind, name } = create.clone();
        let members = BTreeMap::new();
        let state = ChannelState { kind, name, last_seq: 0, members, delivered_by_all: 0, read_by_all: 0 };
        Self { state, log: Vec::new(), last_at: 0 }
    }

    fn has_send(&self, entry: &Message) -> bool {
        self.log.iter().any(|other| (&other.sender, other.client_id) == (&entry.sender, entry.client_id))
    }

    fn change_members(&mut self, batch: &ChannelBatch, is_news: bool) {
        for (user, new) in &batch.members {
            let old = self.state.members.get(user);
            if !is_news && old.is_none_or(|old| old.joined_seq != new.joined_seq) {
                continue;
            }
            let mut member = if is_news { new.clone() } else { old.cloned().unwrap() };
            member.delivered = new.delivered.max(old.map_or(0, |old| old.delivered));
            member.read = new.read.max(old.map_or(0, |old| old.read));
            self.state.members.insert(user.clone(), member);
        }
        if is_news {
            self.state.members.retain(|user, _| !batch.departed.contains(user));
        }
    }
}

/// What to spoil in a batch that would fit.
#[derive(Debug, Clone, Copy)]
enum Spoil {
    Nothing,
    AnId,
    AClientId,
    ASeq,
    TheOrder,
}

fn batches(model: &Model) -> impl Strategy<Value = ChannelBatch> + use<> {
    let model = model.clone();
    let spoil = prop_oneof![
        6 => Just(Spoil::Nothing),
        1 => select(vec![Spoil::AnId, Spoil::AClientId, Spoil::ASeq, Spoil::TheOrder]),
    ];
    let fresh = prop::collection::vec((select(&USERS[..]), any::<u64>(), 1..1_000_000_i64), 0..4);
    let members = prop::collection::btree_map(select(&USERS[..]), (any::<bool>(), 0..6_u64, 0..9_u64, 0..9_u64), 0..3);
    let departed = prop::collection::btree_set(select(&USERS[..]), 0..2);
    let choice = (0..CHANNELS, any::<bool>(), 0..3_usize, spoil, any::<prop::sample::Index>());
    (choice, fresh, members, departed, (0..9_u64, 0..9_u64)).prop_map(
        move |(choice, fresh, members, departed, by_all)| {
            let (channel, create, overlap, spoil, spoilt) = choice;
            let channel = ChannelId(Uuid::from_u128(channel));
            let there = model.channels.get(&channel).map(|stored| &stored.state.members);
            let log = model.channels.get(&channel).map_or(&[][..], |stored| &stored.log);
            let mut new: Vec<Message> =
                log[log.len() - overlap.min(log.len())..].iter().map(|entry| entry.as_ref().clone()).collect();
            for (sender, id, at) in fresh {
                let seq = new.last().map_or(log.len() as Seq, |entry| entry.seq) + 1;
                let (id, client_id, at) = (Uuid::from_u64_pair(1, id), Uuid::from_u64_pair(2, id), Millis(at));
                new.push(Message { seq, id, client_id, at, ..text(channel, seq, sender).as_ref().clone() });
            }
            if !new.is_empty() {
                let index = spoilt.index(new.len());
                match spoil {
                    Spoil::Nothing => {}
                    Spoil::AnId => new[index].id = Uuid::nil(),
                    // An id stands for its content: only a new entry can be another.
                    Spoil::AClientId if new[index].seq <= log.len() as Seq => {}
                    Spoil::AClientId => {
                        let other = log.first().cloned().unwrap_or_else(|| Arc::new(new[0].clone()));
                        (new[index].client_id, new[index].sender) = (other.client_id, other.sender.clone());
                    }
                    Spoil::ASeq => new[index].seq += 1,
                    Spoil::TheOrder => new.swap(0, index),
                }
            }
            let departed: BTreeSet<_> = departed.into_iter().filter(|user| !members.contains_key(user)).collect();
            // What an owner says of members, who begin with an entry of the batch or go on as they are. Of a batch
            // without a new entry anything may be left by now but for a membership that is still to begin.
            let head = log.len() as Seq;
            let fresh = new.last().map_or(0, |last| last.seq.saturating_sub(head));
            let is_there = |name: &str| there.is_some_and(|there| there.contains_key(&user(name)));
            let changes = !departed.is_empty() || members.iter().any(|(name, m)| m.1 == 0 || !is_there(name));
            let to_member = |(name, (is_owner, choice, delivered, read)): (&str, (bool, Seq, Seq, Seq))| {
                let role = if is_owner { Role::Owner } else { Role::Member };
                let old = there.and_then(|there| there.get(&user(name)));
                let (delivered, read) = match old {
                    Some(old) => (delivered.max(old.delivered), read.max(old.read)),
                    None => (delivered, read),
                };
                let member = match old {
                    Some(old) if fresh == 0 || choice > 0 => {
                        let role = if changes { role } else { old.role };
                        Member { role, joined_seq: old.joined_seq, delivered, read }
                    }
                    _ if fresh > 0 => Member { role, joined_seq: head + 1 + choice % fresh, delivered, read },
                    _ => Member { role, joined_seq: choice % (head + 1), delivered, read },
                };
                (user(name), member)
            };
            ChannelBatch {
                create: create.then_some(NewChannel { kind: ChannelKind::Group, name: None }),
                members: members.into_iter().map(to_member).collect(),
                departed: departed.into_iter().map(user).collect(),
                delivered_by_all: by_all.0,
                read_by_all: by_all.1,
                ..entries(channel, new.into_iter().map(Arc::new).collect())
            }
        },
    )
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(model: &Self) -> BoxedStrategy<Step> {
        let new = batches(model).prop_map(Step::Append);
        if model.history.is_empty() {
            return new.boxed();
        }
        let late = select(model.history.clone()).prop_map(Step::Append);
        prop_oneof![12 => new, 4 => late, 1 => Just(Step::Kill)].boxed()
    }

    /// A store that leaves repeated sends to the owner is not given any, not even while a failure is made smaller.
    fn preconditions(model: &Self, step: &Step) -> bool {
        let Step::Append(batch) = step else { return true };
        model.sees_repeated_sends || !model.repeats_a_send(batch)
    }

    fn apply(mut model: Self, step: &Step) -> Self {
        if let Step::Append(batch) = step {
            model.accepted = model.append(batch);
            if model.accepted {
                model.history.push(batch.clone());
            }
        }
        model
    }
}

struct Comparison<B>(PhantomData<B>);

struct Tested<B> {
    runtime: Runtime,
    backend: B,
}

impl<B: Backend> StateMachineTest for Comparison<B> {
    type SystemUnderTest = Tested<B>;
    type Reference = Model;

    fn init_test(_: &Model) -> Tested<B> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let backend = runtime.block_on(B::fresh());
        Tested { runtime, backend }
    }

    fn apply(tested: Tested<B>, model: &Model, step: Step) -> Tested<B> {
        let Tested { runtime, backend } = tested;
        let backend = match step {
            Step::Append(batch) => {
                let outcome = runtime.block_on(append(&*backend.store(), &batch));
                let expected = if model.accepted { Ok(()) } else { Err(StoreError::Conflict(batch.channel)) };
                assert_eq!(outcome, expected, "{batch:#?}");
                backend
            }
            Step::Kill => runtime.block_on(backend.after_kill()),
        };
        Tested { runtime, backend }
    }

    fn check_invariants(tested: &Tested<B>, model: &Model) {
        tested.runtime.block_on(same(&*tested.backend.store(), model));
    }
}

async fn same(store: &dyn Store, model: &Model) {
    for id in (0..CHANNELS).map(|n| ChannelId(Uuid::from_u128(n))) {
        let stored = model.channels.get(&id);
        assert_eq!(store.channel(id).await.unwrap().as_ref(), stored.map(|stored| &stored.state));
        let expected: Vec<Message> =
            stored.into_iter().flat_map(|stored| &stored.log).map(|entry| entry.as_ref().clone()).collect();
        assert_eq!(log(store, id).await, expected);
        let sends = expected.iter().map(|entry| (entry.sender.clone(), entry.client_id)).collect();
        let seqs: Vec<_> = expected.iter().map(|entry| Some(Earlier::Stored(entry.seq))).collect();
        assert_eq!(store.find_sends(id, sends).await.unwrap(), seqs);
    }
    for name in USERS.map(user) {
        let listed = store.channels_of(&name, 0, 100).await.unwrap();
        assert!(listed.is_sorted_by(|a, b| a.last_at >= b.last_at), "{listed:?}");
        let mut listed: Vec<_> =
            listed.into_iter().map(|m| (m.channel.id, m.last_at.0, m.delivered_seq, m.read_seq)).collect();
        listed.sort();
        let mut expected = Vec::new();
        for (id, stored) in &model.channels {
            if let Some(member) = stored.state.members.get(&name) {
                expected.push((*id, stored.last_at, member.delivered, member.read));
            }
        }
        assert_eq!(listed, expected);
        assert_eq!(store.channel_counts(vec![name]).await.unwrap(), [expected.len()]);
    }
}
