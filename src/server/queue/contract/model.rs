//! Random work of two processes, with kills, against queues and against lists in memory.

use std::collections::VecDeque;
use std::marker::PhantomData;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use tokio::runtime::Runtime;

use super::*;

const PROCESSES: usize = 2;
const LANES: usize = 2;
const PREFETCH: usize = 6;

pub fn compare<B: Backend>() {
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config.clone());
    let outcome = runner.run(&Model::sequential_strategy(1..50), |(state, transitions, seen)| {
        Comparison::<B>::test_sequential(config.clone(), state, transitions, seen);
        Ok(())
    });
    if let Err(difference) = outcome {
        panic!("{difference}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Enqueue {
        process: usize,
        lane: usize,
        count: usize,
    },
    Consume {
        process: usize,
        lane: usize,
    },
    /// All that can be had, at most this many.
    Take {
        lane: usize,
        max: usize,
    },
    /// Those of the handed out whose place is set.
    Acknowledge {
        lane: usize,
        which: Vec<bool>,
    },
    DeadLetter {
        lane: usize,
        place: usize,
    },
    Drop {
        lane: usize,
    },
    Kill {
        process: usize,
    },
    KillAll,
}

#[derive(Debug, Clone, Default)]
struct Model {
    lanes: [ModelLane; LANES],
    last: usize,
    /// What the last step must have handed out.
    taken: Vec<Waiting>,
    acknowledged: Vec<usize>,
}

#[derive(Debug, Clone, Default)]
struct ModelLane {
    /// Not acknowledged, in order.
    tasks: VecDeque<Waiting>,
    dead: u64,
    consumer: Option<ModelConsumer>,
}

#[derive(Debug, Clone, PartialEq)]
struct Waiting {
    number: usize,
    was_delivered: bool,
    /// It came after the consumer: nobody can have had it.
    is_new: bool,
}

#[derive(Debug, Clone)]
struct ModelConsumer {
    process: usize,
    /// Numbers, in order.
    handed_out: Vec<usize>,
    cursor: usize,
}

impl ModelLane {
    fn end_consumer(&mut self) {
        self.consumer = None;
        for task in &mut self.tasks {
            task.is_new = false;
        }
    }

    fn available(&self) -> usize {
        let Some(consumer) = &self.consumer else { return 0 };
        let unseen = self.tasks.iter().filter(|task| task.number > consumer.cursor).count();
        unseen.min(PREFETCH - consumer.handed_out.len())
    }

    fn remove(&mut self, number: usize) {
        self.tasks.retain(|task| task.number != number);
        if let Some(consumer) = &mut self.consumer {
            consumer.handed_out.retain(|handed| *handed != number);
        }
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        let (process, lane) = (0..PROCESSES, 0..LANES);
        prop_oneof![
            6 => (process.clone(), lane.clone(), 1..6_usize)
                .prop_map(|(process, lane, count)| Step::Enqueue { process, lane, count }),
            5 => (process.clone(), lane.clone()).prop_map(|(process, lane)| Step::Consume { process, lane }),
            8 => (lane.clone(), 1..5_usize).prop_map(|(lane, max)| Step::Take { lane, max }),
            5 => (lane.clone(), prop::collection::vec(any::<bool>(), PREFETCH))
                .prop_map(|(lane, which)| Step::Acknowledge { lane, which }),
            1 => (lane.clone(), 0..PREFETCH).prop_map(|(lane, place)| Step::DeadLetter { lane, place }),
            1 => lane.prop_map(|lane| Step::Drop { lane }),
            1 => process.prop_map(|process| Step::Kill { process }),
            1 => Just(Step::KillAll),
        ]
        .boxed()
    }

    fn preconditions(model: &Self, step: &Step) -> bool {
        let consumer = |lane: usize| model.lanes[lane].consumer.as_ref();
        match step {
            Step::Enqueue { .. } | Step::Kill { .. } | Step::KillAll => true,
            Step::Consume { lane, .. } => consumer(*lane).is_none(),
            Step::Take { lane, .. } => model.lanes[*lane].available() > 0,
            Step::Acknowledge { lane, .. } => consumer(*lane).is_some_and(|consumer| !consumer.handed_out.is_empty()),
            Step::DeadLetter { lane, place } => {
                consumer(*lane).is_some_and(|consumer| *place < consumer.handed_out.len())
            }
            Step::Drop { lane } => consumer(*lane).is_some(),
        }
    }

    fn apply(mut model: Self, step: &Step) -> Self {
        model.taken.clear();
        model.acknowledged.clear();
        match step {
            Step::Enqueue { lane, count, .. } => {
                let lane = &mut model.lanes[*lane];
                for _ in 0..*count {
                    model.last += 1;
                    let is_new = lane.consumer.is_some();
                    lane.tasks.push_back(Waiting { number: model.last, was_delivered: false, is_new });
                }
            }
            Step::Consume { process, lane } => {
                let consumer = ModelConsumer { process: *process, handed_out: Vec::new(), cursor: 0 };
                model.lanes[*lane].consumer = Some(consumer);
            }
            Step::Take { lane, max } => {
                let lane = &mut model.lanes[*lane];
                let count = lane.available().min(*max);
                let Some(consumer) = &mut lane.consumer else { return model };
                for task in lane.tasks.iter_mut().filter(|task| task.number > consumer.cursor).take(count) {
                    model.taken.push(task.clone());
                    task.was_delivered = true;
                    consumer.handed_out.push(task.number);
                }
                consumer.cursor = consumer.handed_out.last().copied().unwrap_or(consumer.cursor);
            }
            Step::Acknowledge { lane, which } => {
                let lane = &mut model.lanes[*lane];
                let Some(consumer) = &lane.consumer else { return model };
                let chosen = consumer.handed_out.iter().zip(which).filter(|(_, chosen)| **chosen);
                model.acknowledged = chosen.map(|(number, _)| *number).collect();
                for number in &model.acknowledged {
                    lane.remove(*number);
                }
            }
            Step::DeadLetter { lane, place } => {
                let lane = &mut model.lanes[*lane];
                let Some(consumer) = &lane.consumer else { return model };
                let number = consumer.handed_out[*place];
                model.acknowledged = vec![number];
                lane.remove(number);
                lane.dead += 1;
            }
            Step::Drop { lane } => model.lanes[*lane].end_consumer(),
            Step::Kill { process } => {
                for lane in &mut model.lanes {
                    if lane.consumer.as_ref().is_some_and(|consumer| consumer.process == *process) {
                        lane.end_consumer();
                    }
                }
            }
            Step::KillAll => model.lanes.iter_mut().for_each(ModelLane::end_consumer),
        }
        model
    }
}

struct Comparison<B>(PhantomData<B>);

struct Tested<B: Backend> {
    parts: Parts<B>,
    runtime: Runtime,
}

struct Parts<B: Backend> {
    // Ended before the backend is.
    consumers: [Option<TestedConsumer>; LANES],
    processes: Vec<B::Process>,
    backend: B,
    last: usize,
}

struct TestedConsumer {
    process: usize,
    consumer: Box<dyn Consumer>,
    handed_out: Vec<(usize, super::super::Tag)>,
}

impl<B: Backend> Parts<B> {
    async fn on(backend: B, last: usize) -> Self {
        let mut processes = Vec::new();
        for _ in 0..PROCESSES {
            processes.push(backend.open(Settings::default()).await.unwrap());
        }
        Self { consumers: [None, None], processes, backend, last }
    }

    async fn take(&mut self, place: usize, expected: &[Waiting]) {
        let tested = self.consumers[place].as_mut().unwrap();
        let taken = take(&mut *tested.consumer, expected.len()).await;
        for (delivery, expected) in taken.into_iter().zip(expected) {
            assert_eq!(delivery.payload, expected.number.to_string());
            if expected.was_delivered || expected.is_new {
                assert_eq!(delivery.redelivered, expected.was_delivered, "{expected:?}");
            }
            tested.handed_out.push((expected.number, delivery.tag));
        }
    }

    /// The tags of these, which are no longer handed out.
    fn settle(&mut self, place: usize, numbers: &[usize]) -> Vec<super::super::Tag> {
        let handed_out = &mut self.consumers[place].as_mut().unwrap().handed_out;
        let tags = handed_out.extract_if(.., |(number, _)| numbers.contains(number)).map(|(_, tag)| tag);
        tags.collect()
    }

    async fn step(mut self, model: &Model, step: Step) -> Self {
        match step {
            Step::Enqueue { process, lane: place, count } => {
                let numbers = (self.last + 1..self.last + 1 + count).map(|n| n.to_string());
                enqueue_all(&*self.processes[process].queue(), lane(place as u16), numbers).await;
                self.last += count;
            }
            Step::Consume { process, lane: place } => {
                let queue = self.processes[process].queue();
                let consumer = consume_with(&*queue, lane(place as u16), PREFETCH).await;
                self.consumers[place] = Some(TestedConsumer { process, consumer, handed_out: Vec::new() });
            }
            Step::Take { lane, .. } => self.take(lane, &model.taken).await,
            Step::Acknowledge { lane: place, .. } => {
                let tags = self.settle(place, &model.acknowledged);
                let tested = self.consumers[place].as_mut().unwrap();
                tested.consumer.acknowledge(&tags);
                let depth = model.lanes[place].tasks.len() as u64;
                until_depth(&*self.processes[tested.process].queue(), lane(place as u16), depth).await;
            }
            Step::DeadLetter { lane: place, .. } => {
                let tags = self.settle(place, &model.acknowledged);
                self.consumers[place].as_mut().unwrap().consumer.dead_letter(tags[0], "no good").await.unwrap();
            }
            Step::Drop { lane } => self.consumers[lane] = None,
            Step::Kill { process } => {
                let mut own = Vec::new();
                for consumer in &mut self.consumers {
                    if let Some(ended) = consumer.take_if(|consumer| consumer.process == process) {
                        own.push(ended.consumer);
                    }
                }
                let next = self.backend.open(Settings::default()).await.unwrap();
                std::mem::replace(&mut self.processes[process], next).kill(own).await;
            }
            Step::KillAll => {
                let Self { backend, last, .. } = self;
                return Self::on(backend.after_kill().await, last).await;
            }
        }
        self
    }
}

impl<B: Backend> StateMachineTest for Comparison<B> {
    type SystemUnderTest = Tested<B>;
    type Reference = Model;

    fn init_test(_: &Model) -> Tested<B> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let parts = runtime.block_on(async { Parts::on(B::fresh().await, 0).await });
        Tested { parts, runtime }
    }

    fn apply(tested: Tested<B>, model: &Model, step: Step) -> Tested<B> {
        let Tested { parts, runtime } = tested;
        let parts = runtime.block_on(parts.step(model, step));
        Tested { parts, runtime }
    }

    fn check_invariants(tested: &Tested<B>, model: &Model) {
        let parts = &tested.parts;
        let mut dead_letters = 0;
        for (place, expected) in model.lanes.iter().enumerate() {
            let lane = lane(place as u16);
            // Whoever consumes a lane knows it best.
            let process = expected.consumer.as_ref().map_or(0, |consumer| consumer.process);
            let queue = parts.processes[process].queue();
            // A dropped consumer gives its lane back beside its owner.
            let actual = tested.runtime.block_on(async {
                let given_back = async {
                    loop {
                        let actual = stats_of(&*queue, lane).await;
                        let depth = expected.tasks.len() as u64;
                        if actual.consumer.is_some() == expected.consumer.is_some() && actual.depth == depth {
                            return actual;
                        }
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                timeout(PATIENCE, given_back).await.unwrap_or_else(|_| panic!("{expected:?}"))
            });
            dead_letters += actual.dead_letters;
        }
        assert_eq!(dead_letters, model.lanes.iter().map(|lane| lane.dead).sum::<u64>());
    }
}
