//! Random tasks, worked on in random steps with crashes between any two of them: the outcome must be that of a run
//! without any, and at no moment may anything be said that is not so.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::message::Millis;
use crate::message::{Change, ChannelKind, Kind};
use crate::server::queue::{ChangeTask, CreateTask, Origin, QueueError, ReceiptsTask};
use crate::server::store::Member;
use crate::wire::ErrorCode;

const USERS: [&str; 5] = ["ada", "bob", "cyd", "dan", "eve"];
const CHANNEL: ChannelId = ChannelId(Uuid::from_u128(7));

fn options() -> WorkerOptions {
    WorkerOptions { prefetch: 12, max_members: 4, max_receipt_members: 3, dedup_window: 12, cached_channels: 10 }
}

/// When the task with this tag was: far enough from the ones before for clocks to matter.
fn accepted_at(tag: Tag) -> Millis {
    Millis(1_700_000_000_000 + tag as i64 * 25_000)
}

fn user(name: &str) -> Username {
    Username::new(name).unwrap()
}

/// What a crash leaves: the stored prefix, and the tasks that are not acknowledged.
#[derive(Default)]
struct Outside {
    state: Option<ChannelState>,
    log: Vec<Arc<Message>>,
    queue: Vec<(Tag, Task)>,
    /// The newest task that was handed to anybody.
    delivered: Tag,
    indexed: BTreeSet<Seq>,
    refused: Vec<Refused>,
    /// Acknowledgements under way, in order: a crash may lose the last of them.
    acknowledged: Vec<Tag>,
    /// All that was ever published, each with the head of the store at that moment.
    said: Vec<(Event, Seq)>,
    /// In memory alone until their effects are stored, or need not be.
    handed_over: BTreeSet<Tag>,
    /// Of these, those whose effects are there.
    effective: BTreeSet<Tag>,
    /// Of these, those whose senders know that.
    confirmed: Arc<Mutex<Vec<Tag>>>,
    /// Lost in a crash, with their senders none the wiser: as if they had never been asked for.
    vanished: BTreeSet<Tag>,
    /// Stored, and not said before a crash, after which those who were there look into the store.
    unsaid: BTreeSet<Seq>,
    words_lost: bool,
    /// How much was said when the task with this tag was first handed to anybody.
    said_before: BTreeMap<Tag, usize>,
}

impl Outside {
    fn head(&self) -> Seq {
        self.log.len() as Seq
    }

    fn find(&self, sender: &Username, client_id: Uuid) -> Option<Seq> {
        let is_it = |entry: &&Arc<Message>| entry.sender == *sender && entry.client_id == client_id;
        self.log.iter().find(is_it).map(|entry| entry.seq)
    }

    fn find_earlier(&self, sender: &Username, client_id: Uuid) -> Option<Earlier> {
        let is_it = |refused: &&Refused| refused.sender == *sender && refused.client_id == client_id;
        let stored = self.find(sender, client_id).map(Earlier::Stored);
        stored.or_else(|| self.refused.iter().find(is_it).map(|refused| Earlier::Refused(refused.code)))
    }

    fn say(&mut self, events: Vec<Event>) {
        let head = self.head();
        for event in events {
            self.check_said(&event);
            self.said.push((event, head));
        }
    }

    /// What is announced as stored is stored; what was ever at a seq is always there.
    fn check_said(&self, event: &Event) {
        match event {
            Event::Message(message) => {
                let earlier = self.said.iter().filter_map(|(event, _)| match event {
                    Event::Message(earlier) | Event::Stored(earlier) if earlier.seq == message.seq => Some(earlier),
                    _ => None,
                });
                for earlier in earlier {
                    assert_eq!(earlier, message, "one seq, two messages");
                }
            }
            Event::Stored(message) => {
                assert_eq!(self.log.get(message.seq as usize - 1), Some(message), "stored, it is said");
                self.check_said(&Event::Message(Arc::clone(message)));
            }
            Event::Persisted { seq, sender, client_id, .. } => {
                assert_eq!(self.find(sender, *client_id), Some(*seq), "persisted but not stored");
            }
            Event::Rejected { sender, client_id, .. } => {
                assert_eq!(self.find(sender, *client_id), None, "refused but stored");
            }
            Event::MembersChanged { seq, .. } => assert!(*seq <= self.head(), "changed but not stored"),
            Event::Joined { joined_seq, channel, .. } => {
                assert!(*joined_seq <= self.head(), "joined but not stored");
                assert_eq!(channel.id, CHANNEL);
            }
            Event::Watermarks { delivered, read, .. } => {
                assert!(delivered.max(read) <= &Some(self.head()), "received but not stored");
            }
            Event::Typing { .. } | Event::Purged { .. } => panic!("a worker does nothing of that: {event:?}"),
            Event::Refused { .. } => {}
        }
    }

    fn store(&mut self, batch: &ChannelBatch) {
        for (entry, expected) in batch.entries.iter().zip(self.head() + 1..) {
            assert_eq!(entry.seq, expected, "a hole, or an entry over another");
            assert_eq!(self.find_earlier(&entry.sender, entry.client_id), None, "stored twice, or after a refusal");
            self.log.push(Arc::clone(entry));
        }
        for refused in &batch.refused {
            assert_eq!(self.find(&refused.sender, refused.client_id), None, "refused after it was stored");
        }
        self.refused.extend(batch.refused.iter().cloned());
        if let Some(NewChannel { kind, name }) = batch.create.clone() {
            assert!(self.state.is_none(), "made twice");
            let members = BTreeMap::new();
            self.state = Some(ChannelState { kind, name, last_seq: 0, members, delivered_by_all: 0, read_by_all: 0 });
        }
        let head = self.head();
        let Some(state) = &mut self.state else {
            return assert!(batch.entries.is_empty() && batch.members.is_empty(), "no such channel");
        };
        state.last_seq = head;
        assert!(batch.delivered_by_all >= state.delivered_by_all && batch.read_by_all >= state.read_by_all);
        (state.delivered_by_all, state.read_by_all) = (batch.delivered_by_all, batch.read_by_all);
        for (user, member) in &batch.members {
            if let Some(old) = state.members.get(user).filter(|old| old.joined_seq == member.joined_seq) {
                assert!(member.delivered >= old.delivered && member.read >= old.read, "a watermark went back");
            }
            assert!(member.read <= member.delivered && member.delivered <= head);
            state.members.insert(user.clone(), member.clone());
        }
        state.members.retain(|user, _| !batch.departed.contains(user));
        let stored: BTreeMap<_, _> =
            state.members.iter().map(|(user, member)| (user.clone(), member.joined_seq)).collect();
        assert_eq!(stored, members_by(&self.log), "members are what the log says");
    }

    fn unconfirmed(&self, tag: Tag) -> Option<Unconfirmed> {
        let confirmed = Arc::clone(&self.confirmed);
        let confirm = move |outcome: Result<(), QueueError>| {
            if outcome.is_ok() {
                confirmed.lock().push(tag);
            }
        };
        self.handed_over.contains(&tag).then(|| Unconfirmed::new(Box::new(confirm), None))
    }

    fn take_effect(&mut self, tags: &[Tag]) {
        self.effective.extend(tags.iter().filter(|tag| self.handed_over.contains(tag)));
    }

    fn check_confirmed(&self) {
        let confirmed = self.confirmed.lock();
        let known: BTreeSet<Tag> = confirmed.iter().copied().collect();
        assert_eq!(known.len(), confirmed.len(), "confirmed twice");
        assert!(known.is_subset(&self.effective), "confirmed and not kept");
    }

    /// What is in memory alone is gone.
    fn forget_the_unkept(&mut self) {
        let gone = |tag: &Tag| self.handed_over.contains(tag) && *tag <= self.delivered;
        let gone: BTreeSet<Tag> = self.queue.iter().map(|(tag, _)| *tag).filter(gone).collect();
        for (tag, task) in self.queue.extract_if(.., |(tag, _)| gone.contains(tag)) {
            if !self.effective.contains(&tag) {
                self.vanished.insert(tag);
            } else if let Task::Send(send) = task {
                // Found at the next start.
                let is_it = |entry: &&Arc<Message>| entry.sender == send.sender && entry.client_id == send.client_id;
                self.indexed.extend(self.log.iter().find(is_it).map(|entry| entry.seq));
            }
        }
    }

    fn acknowledge(&mut self, tags: &[Tag]) {
        for tag in tags {
            assert!(self.queue.iter().any(|(waiting, _)| waiting == tag), "not in the queue");
            assert!(!self.acknowledged.contains(tag), "acknowledged twice");
        }
        self.acknowledged.extend(tags);
    }

    /// All but the last `lost` acknowledgements arrive.
    fn let_acknowledgements_arrive(&mut self, lost: usize) {
        let arrive = self.acknowledged.len().saturating_sub(lost);
        let arrived: Vec<Tag> = self.acknowledged.drain(..).take(arrive).collect();
        self.queue.retain(|(tag, _)| !arrived.contains(tag));
    }
}

/// Who is in the channel since when, by its log alone.
fn members_by(log: &[Arc<Message>]) -> BTreeMap<Username, Seq> {
    let mut members = BTreeMap::new();
    for entry in log {
        match Change::of(entry) {
            Some(Change::Created { members: joined } | Change::Added { members: joined }) => {
                for user in joined {
                    assert_eq!(members.insert(user, entry.seq), None, "added twice");
                }
            }
            Some(Change::Removed { members: left }) => {
                for user in left {
                    assert!(members.remove(&user).is_some(), "removed twice");
                }
            }
            None => assert!(members.contains_key(&entry.sender), "{} is no member", entry.sender),
        }
    }
    members
}

type Found = ((Username, Uuid), Option<Earlier>);

/// A process that owns the channel. All of it is lost in a crash.
struct Owner {
    channel: Channel,
    window: Window,
    /// Tasks up to here may have been delivered to an earlier owner.
    inherited: Tag,
    cursor: Tag,
    answer: Option<Vec<Found>>,
    flush: Option<Flush>,
    is_stored: bool,
    is_said: bool,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Deliver(usize),
    Load,
    Ask,
    Answer,
    Advance,
    Flush,
    Store,
    Say,
    Finish,
    /// With so many of the last acknowledgements lost.
    Crash(usize),
}

impl Owner {
    fn new(outside: &Outside) -> Self {
        Self {
            channel: Channel::new(CHANNEL),
            window: Window::new(options().dedup_window, accepted_at(outside.delivered)),
            inherited: outside.delivered,
            cursor: 0,
            answer: None,
            flush: None,
            is_stored: false,
            is_said: false,
        }
    }

    /// Whether anything was done.
    fn step(&mut self, step: Step, outside: &mut Outside) -> bool {
        match step {
            Step::Deliver(count) => {
                let in_hand = |tag: &Tag| *tag <= self.cursor && !outside.acknowledged.contains(tag);
                let in_hand = outside.queue.iter().filter(|(tag, _)| in_hand(tag)).count();
                let count = count.min(options().prefetch - in_hand);
                let next = outside.queue.iter().filter(|(tag, _)| *tag > self.cursor).take(count);
                let next: Vec<_> = next.cloned().collect();
                for (tag, task) in &next {
                    self.cursor = *tag;
                    outside.delivered = outside.delivered.max(*tag);
                    let said = outside.said.len();
                    outside.said_before.entry(*tag).or_insert(said);
                    let redelivered = *tag <= self.inherited;
                    let unconfirmed = outside.unconfirmed(*tag);
                    self.channel.waiting.push_back(Waiting { tag: *tag, task: task.clone(), redelivered, unconfirmed });
                }
                !next.is_empty()
            }
            Step::Load => {
                let needed = matches!(self.channel.loaded, Loaded::NotYet);
                if needed {
                    self.channel.set_loaded(outside.state.clone());
                }
                needed
            }
            Step::Ask => {
                let asked = self.channel.to_look_up(&self.window);
                if self.channel.looking || asked.is_empty() {
                    return false;
                }
                self.channel.looking = true;
                let answer = |key: (Username, Uuid)| {
                    let found = outside.find_earlier(&key.0, key.1);
                    (key, found)
                };
                self.answer = Some(asked.into_iter().map(answer).collect());
                true
            }
            Step::Answer => {
                let Some(answer) = self.answer.take() else { return false };
                self.channel.set_found(answer);
                true
            }
            Step::Advance => {
                let before = self.channel.waiting.len();
                let mut effects = Effects::default();
                self.channel.advance(&mut self.window, &options(), &mut effects);
                outside.take_effect(&effects.settled);
                super::super::flush::confirm(effects.confirmed);
                outside.check_confirmed();
                outside.say(effects.events);
                for task in effects.to_index {
                    assert!((1..=outside.head()).contains(&task.first) && task.last <= outside.head());
                    outside.indexed.extend(task.first..=task.last);
                }
                outside.acknowledge(&effects.settled);
                before != self.channel.waiting.len()
            }
            Step::Flush => {
                if self.flush.is_none() {
                    self.flush = self.channel.next_flush(&options());
                    (self.is_stored, self.is_said) = (false, false);
                    return self.flush.is_some();
                }
                false
            }
            Step::Store => {
                let Some(flush) = self.flush.as_ref().filter(|_| !self.is_stored) else { return false };
                outside.store(&flush.batch);
                outside.take_effect(&flush.tags);
                self.is_stored = true;
                true
            }
            Step::Say => {
                let Some(flush) = self.flush.as_mut().filter(|_| self.is_stored && !self.is_said) else { return false };
                super::super::flush::confirm(std::mem::take(&mut flush.unconfirmed));
                outside.check_confirmed();
                outside.say(std::mem::take(&mut flush.afterwards));
                self.is_said = true;
                true
            }
            Step::Finish => {
                let Some(flush) = self.flush.take_if(|_| self.is_said) else { return false };
                outside.indexed.extend(flush.batch.entries.iter().map(|entry| entry.seq));
                outside.acknowledge(&flush.tags);
                self.channel.flushed(&flush.batch);
                true
            }
            Step::Crash(_) => unreachable!("ends the owner"),
        }
    }

    fn die(self, outside: &mut Outside) {
        let Some(flush) = self.flush.filter(|_| self.is_stored && !self.is_said) else { return };
        outside.words_lost |= !flush.unconfirmed.is_empty();
        outside.unsaid.extend(flush.afterwards.iter().filter_map(|event| match event {
            Event::Message(message) | Event::Stored(message) => Some(message.seq),
            _ => None,
        }));
    }

    fn finish(&mut self, outside: &mut Outside) {
        let all = [
            Step::Deliver(usize::MAX),
            Step::Load,
            Step::Ask,
            Step::Answer,
            Step::Advance,
            Step::Flush,
            Step::Store,
            Step::Say,
            Step::Finish,
        ];
        while all.into_iter().fold(false, |busy, step| self.step(step, outside) | busy) {}
        outside.let_acknowledgements_arrive(0);
        assert!(outside.queue.is_empty(), "{:?}", outside.queue);
        assert!(self.channel.is_idle());
    }
}

fn run(tasks: &[(Tag, Task)], handed_over: &BTreeSet<Tag>, steps: &[Step]) -> Outside {
    let mut outside = Outside { queue: tasks.to_vec(), handed_over: handed_over.clone(), ..Outside::default() };
    let mut owner = Owner::new(&outside);
    for step in steps {
        match step {
            Step::Crash(lost) => {
                outside.let_acknowledgements_arrive(*lost);
                std::mem::replace(&mut owner, Owner::new(&outside)).die(&mut outside);
                outside.forget_the_unkept();
            }
            step => {
                owner.step(*step, &mut outside);
            }
        }
    }
    owner.finish(&mut outside);
    outside
}

fn users(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Username>> {
    prop::collection::vec(select(&USERS[..]), count).prop_map(|names| names.into_iter().map(user).collect())
}

fn tasks() -> impl Strategy<Value = Vec<Task>> {
    let origin = Origin { session: Uuid::nil(), reference: Some(1) };
    let kind = prop_oneof![4 => Just(ChannelKind::Group), 1 => Just(ChannelKind::Direct)];
    let create = (kind, users(1..5)).prop_map({
        let origin = origin.clone();
        move |(kind, members)| {
            let origin = origin.clone();
            Task::Create(CreateTask {
                channel: CHANNEL,
                id: Uuid::nil(),
                kind,
                name: None,
                members,
                at: Millis(0),
                origin,
            })
        }
    });
    let create = create.boxed();
    // Few client_ids: many a send is a repeat, with or without saying so.
    let send = (select(&USERS[..]), 0..12_u128, any::<bool>()).prop_map(|(sender, client_id, retry)| {
        Task::Send(SendTask {
            channel: CHANNEL,
            id: Uuid::nil(),
            sender: user(sender),
            client_id: Uuid::from_u128(client_id),
            kind: Kind::Text,
            body: String::new(),
            at: Millis(0),
            retry,
        })
    });
    let send = send.boxed();
    let change = (select(&USERS[..]), users(0..3), users(0..3), 0..8_u8).prop_map(move |(by, add, remove, which)| {
        let (add, remove) = match which {
            0 => (add, remove),
            1..4 => (add, Vec::new()),
            4 => (Vec::new(), vec![user(by)]),
            _ => (Vec::new(), remove),
        };
        let origin = origin.clone();
        Task::Change(ChangeTask { channel: CHANNEL, id: Uuid::nil(), by: user(by), add, remove, at: Millis(0), origin })
    });
    let marks = prop::collection::vec((select(&USERS[..]), 0..30_u64, 0..30_u64), 0..4);
    let receipts = marks.prop_map(|marks| {
        let marks = marks.into_iter().map(|(name, delivered, read)| (user(name), delivered, read)).collect();
        Task::Receipts(ReceiptsTask { channel: CHANNEL, marks })
    });
    let any_task = prop_oneof![1 => create.clone(), 8 => send.clone(), 3 => change, 3 => receipts];
    let tasks = (prop::option::weighted(0.2, send), create, prop::collection::vec(any_task, 0..40));
    tasks.prop_map(|(early, create, rest)| {
        let mut tasks: Vec<Task> = early.into_iter().chain([create]).chain(rest).collect();
        // Each accepted task is one of its own, whatever its client_id.
        let mut client_ids: HashMap<Uuid, Uuid> = HashMap::new();
        for ((tag, id), task) in (1..).zip((1000..).map(Uuid::from_u128)).zip(&mut tasks) {
            let at = accepted_at(tag);
            match task {
                Task::Send(send) => {
                    // Made when it is used first, by a clock that is right, ahead or behind; or of no known time.
                    let choice = send.client_id;
                    let made = client_ids.entry(choice).or_insert_with(|| match choice.as_u128() % 4 {
                        0 => choice,
                        1 => made_at(at.0, choice),
                        2 => made_at(at.0 + 50_000, choice),
                        _ => made_at(at.0 - 500_000, choice),
                    });
                    (send.id, send.at, send.client_id) = (id, at, *made);
                }
                Task::Create(create) => (create.id, create.at) = (id, at),
                Task::Change(change) => (change.id, change.at) = (id, at),
                Task::Receipts(_) | Task::Index(_) | Task::Search(_) => {}
            }
        }
        tasks
    })
}

/// A version 7 of that moment.
fn made_at(millis: i64, choice: Uuid) -> Uuid {
    Uuid::from_u128((millis as u128) << 80 | 7 << 76 | 2 << 62 | choice.as_u128())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..6_usize).prop_map(Step::Deliver),
        4 => Just(Step::Load),
        4 => Just(Step::Ask),
        4 => Just(Step::Answer),
        6 => Just(Step::Advance),
        5 => Just(Step::Flush),
        5 => Just(Step::Store),
        4 => Just(Step::Say),
        4 => Just(Step::Finish),
        2 => (0..12_usize).prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn crashes_make_no_difference(
        tasks in tasks(),
        handed_over in prop_oneof![Just(0), any::<u64>(), Just(u64::MAX)],
        steps in steps(),
    ) {
        let mut tasks: Vec<(Tag, Task)> = (1..).zip(tasks).collect();
        let handed_over = (1..64).filter(|tag| handed_over >> tag & 1 == 1).collect();
        let disturbed = run(&tasks, &handed_over, &steps);
        // What vanished may as well never have been.
        tasks.retain(|(tag, _)| !disturbed.vanished.contains(tag));
        let undisturbed = run(&tasks, &BTreeSet::new(), &[]);
        prop_assert_eq!(&disturbed.log, &undisturbed.log);
        check_states(disturbed.state.as_ref(), undisturbed.state.as_ref());
        check_told(&tasks, &undisturbed);
        check_told(&tasks, &disturbed);
    }
}

/// A row behind a task that is in memory alone is judged on what that made, and must not be done with before it is stored.
#[test]
fn a_kept_task_does_not_rest_on_one_that_may_vanish() {
    let create = |tag: Tag, creator| {
        Task::Create(CreateTask {
            channel: CHANNEL,
            id: Uuid::from_u128(1_000 + u128::from(tag)),
            kind: ChannelKind::Group,
            name: None,
            members: vec![user(creator)],
            at: accepted_at(tag),
            origin: Origin { session: Uuid::nil(), reference: None },
        })
    };
    let tasks = [(1, create(1, "dan")), (2, create(2, "ada"))];
    let steps = [Step::Load, Step::Deliver(2), Step::Advance, Step::Say, Step::Finish, Step::Crash(0)];
    let disturbed = run(&tasks, &BTreeSet::from([1]), &steps);
    assert_eq!(disturbed.vanished, BTreeSet::from([1]));
    let undisturbed = run(&tasks[1..], &BTreeSet::new(), &[]);
    assert_eq!(disturbed.log.len(), 1);
    assert_eq!(disturbed.log, undisturbed.log);
}

#[test]
fn who_asks_again_while_the_answer_leaves_is_answered_again() {
    let send = |tag: Tag| SendTask {
        channel: CHANNEL,
        id: Uuid::from_u128(u128::from(tag)),
        sender: user("ada"),
        client_id: made_at(accepted_at(2).0, Uuid::nil()),
        kind: Kind::Text,
        body: String::new(),
        at: accepted_at(tag),
        retry: tag > 2,
    };
    let create = CreateTask {
        channel: CHANNEL,
        id: Uuid::from_u128(1),
        kind: ChannelKind::Group,
        name: None,
        members: vec![user("ada")],
        at: accepted_at(1),
        origin: Origin { session: Uuid::nil(), reference: None },
    };
    let tasks = [Task::Create(create), Task::Send(send(2)), Task::Send(send(3)), Task::Send(send(4))];
    let tasks: Vec<(Tag, Task)> = (1..).zip(tasks).collect();
    let first = [Step::Deliver(2), Step::Load, Step::Advance, Step::Flush, Step::Store, Step::Say];
    let again = [Step::Deliver(1), Step::Ask, Step::Answer, Step::Advance, Step::Finish];
    let more = [Step::Flush, Step::Deliver(1), Step::Ask, Step::Answer, Step::Advance];
    let outside = run(&tasks, &BTreeSet::new(), &[first.as_slice(), &again, &more].concat());
    check_told(&tasks, &outside);
    assert_eq!(outside.log.len(), 2);
}

/// The same but for watermarks: a receipt for entries that are yet to come counts up to the head, and when it is
/// delivered again the head is further.
fn check_states(disturbed: Option<&ChannelState>, undisturbed: Option<&ChannelState>) {
    let (Some(disturbed), Some(undisturbed)) = (disturbed, undisturbed) else {
        return assert_eq!(disturbed, undisturbed);
    };
    let without_marks = |state: &ChannelState| {
        let mut state = ChannelState { delivered_by_all: 0, read_by_all: 0, ..state.clone() };
        for member in state.members.values_mut() {
            (member.delivered, member.read) = (0, 0);
        }
        state
    };
    assert_eq!(without_marks(disturbed), without_marks(undisturbed));
    for (user, member) in &disturbed.members {
        let expected = &undisturbed.members[user];
        assert!(
            member.delivered >= expected.delivered && member.read >= expected.read,
            "{user} {member:?} {expected:?}"
        );
    }
    // What all have had depends on when it is worked out: somebody who comes between two flushes has had nothing.
}

/// Everybody learned, at last, what became of what; who asked again, by an answer that came after that.
fn check_told(tasks: &[(Tag, Task)], outside: &Outside) {
    let confirmed = outside.confirmed.lock();
    let told_since =
        |since: usize, is_it: &dyn Fn(&Event) -> bool| outside.said[since..].iter().any(|(event, _)| is_it(event));
    let told = |is_it: &dyn Fn(&Event) -> bool| told_since(0, is_it);
    for (tag, task) in tasks {
        let Task::Send(send) = task else { continue };
        if outside.handed_over.contains(tag) && !confirmed.contains(tag) {
            continue;
        }
        let told = |is_it: &dyn Fn(&Event) -> bool| told_since(outside.said_before[tag], is_it);
        let (sender, client_id) = (&send.sender, send.client_id);
        let answered = match outside.find(sender, client_id) {
            Some(seq) => {
                let persisted = Event::Persisted { channel: CHANNEL, seq, sender: sender.clone(), client_id };
                let stored = |event: &Event| matches!(event, Event::Stored(message) if message.seq == seq);
                told(&|event| *event == persisted || stored(event))
            }
            None => {
                let code = ErrorCode::NotAMember;
                let rejected = Event::Rejected { channel: CHANNEL, sender: sender.clone(), client_id, code };
                told(&|event| *event == rejected)
            }
        };
        assert!(answered, "{sender} never learned about {client_id}");
    }
    for entry in &outside.log {
        assert!(entry.kind == Kind::System || outside.indexed.contains(&entry.seq), "{} can't be found", entry.seq);
        let is_it =
            |event: &Event| matches!(event, Event::Message(message) | Event::Stored(message) if message == entry);
        assert!(outside.unsaid.contains(&entry.seq) || told(&is_it));
    }
    let Some(state) = &outside.state else { return };
    for (member, Member { joined_seq, .. }) in &state.members {
        let is_it = |event: &Event| matches!(event, Event::Joined { joined, joined_seq: seq, .. } if seq == joined_seq && joined.contains(member));
        assert!(outside.unsaid.contains(joined_seq) || told(&is_it), "{member} never learned of the channel");
    }
    // The last removal of each who is not there any more: gateways must stop delivering to them.
    let mut last_removals: BTreeMap<Username, Seq> = BTreeMap::new();
    for entry in &outside.log {
        if let Some(Change::Removed { members }) = Change::of(entry) {
            last_removals.extend(members.into_iter().map(|user| (user, entry.seq)));
        }
    }
    for (gone, last) in last_removals.iter().filter(|(user, _)| !state.members.contains_key(*user)) {
        let is_it = |event: &Event| matches!(event, Event::MembersChanged { seq, removed, .. } if seq == last && removed.contains(gone));
        assert!(outside.unsaid.contains(last) || told(&is_it), "no gateway learned that {gone} is gone");
    }
    let marks = |which: fn(&Event) -> Option<Seq>| outside.said.iter().filter_map(move |(event, _)| which(event));
    let delivered = marks(|event| match event {
        Event::Watermarks { delivered, .. } => *delivered,
        _ => None,
    });
    let read = marks(|event| match event {
        Event::Watermarks { read, .. } => *read,
        _ => None,
    });
    // In a channel of one, its own sends raise it, and there is nobody to be told.
    let always_had_two = (1..=outside.log.len()).all(|head| members_by(&outside.log[..head]).len() > 1);
    if always_had_two && !outside.words_lost {
        assert_eq!(delivered.max().unwrap_or(0), state.delivered_by_all);
        assert_eq!(read.max().unwrap_or(0), state.read_by_all);
    }
}
