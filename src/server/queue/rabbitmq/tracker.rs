//! Which deliveries of an AMQP channel are in hand, and which acknowledgements the broker still has to be told.
//!
//! Delivery tags count from 1 on a channel. "All up to n" costs the broker and the network as much as a single one, so
//! what is done is held back until everything before it is done too. A task that takes long must not let the rest
//! use up the prefetch: beyond a bound, and after a time, what is held back is acknowledged one by one.

use std::collections::VecDeque;

use bytes::Bytes;
use lapin::types::FieldTable;

use super::super::Tag;
use crate::message::Millis;

/// A `basic.ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ack {
    pub tag: Tag,
    pub multiple: bool,
}

/// What is kept of a task that is in hand.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct InHand {
    pub payload: Bytes,
    pub at: Option<Millis>,
    pub headers: Option<FieldTable>,
}

#[derive(Debug)]
enum State {
    InHand(InHand),
    /// Not told the broker yet.
    Done,
    Acknowledged,
}

#[derive(Debug)]
pub(super) struct Tracker {
    /// All up to here are settled.
    base: Tag,
    /// The ones after it, in order.
    states: VecDeque<State>,
    /// Of these, `Done`.
    held: usize,
    max_held: usize,
}

impl Tracker {
    pub(super) fn new(prefetch: usize) -> Self {
        Self { base: 0, states: VecDeque::new(), held: 0, max_held: prefetch / 4 }
    }

    /// The next delivery. `false` if it is not the next one.
    pub(super) fn delivered(&mut self, tag: Tag, task: InHand) -> bool {
        let is_next = tag == self.base + self.states.len() as Tag + 1;
        if is_next {
            self.states.push_back(State::InHand(task));
        }
        is_next
    }

    pub(super) fn in_hand(&self, tag: Tag) -> Option<&InHand> {
        match self.states.get(self.place(tag)?) {
            Some(State::InHand(task)) => Some(task),
            _ => None,
        }
    }

    /// Those that the broker counts as not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.states.iter().filter(|state| !matches!(state, State::Acknowledged)).count()
    }

    /// When the oldest one in hand was enqueued.
    pub(super) fn oldest(&self) -> Option<Millis> {
        self.states.iter().find_map(|state| match state {
            State::InHand(task) => task.at,
            _ => None,
        })
    }

    /// What to tell the broker now that these are done. Tags that are not in hand are passed over.
    pub(super) fn done(&mut self, tags: &[Tag]) -> Vec<Ack> {
        for tag in tags {
            if let Some(place) = self.place(*tag)
                && let Some(state @ State::InHand(_)) = self.states.get_mut(place)
            {
                *state = State::Done;
                self.held += 1;
            }
        }
        let mut acks = Vec::from_iter(self.prefix());
        if self.held > self.max_held {
            acks.extend(self.all_held());
        }
        acks
    }

    /// As [`done`](Self::done), and holds nothing back.
    pub(super) fn all_held(&mut self) -> Vec<Ack> {
        let base = self.base;
        let held = self.states.iter_mut().zip(1..).filter(|(state, _)| matches!(state, State::Done));
        let acks = held.map(|(state, place)| {
            *state = State::Acknowledged;
            Ack { tag: base + place, multiple: false }
        });
        let acks = acks.collect();
        self.held = 0;
        acks
    }

    pub(super) fn holds_back(&self) -> bool {
        self.held > 0
    }

    /// One acknowledgement for all that is done from the beginning on. It names one that the broker knows as delivered:
    /// naming one that was acknowledged before is an error that closes the channel.
    fn prefix(&mut self) -> Option<Ack> {
        let mut last = None;
        let mut count = 0;
        while let Some(State::Done | State::Acknowledged) = self.states.front() {
            self.base += 1;
            if matches!(self.states.pop_front(), Some(State::Done)) {
                last = Some(self.base);
                count += 1;
            }
        }
        self.held -= count;
        last.map(|tag| Ack { tag, multiple: count > 1 })
    }

    fn place(&self, tag: Tag) -> Option<usize> {
        usize::try_from(tag.checked_sub(self.base + 1)?).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn one(tag: Tag) -> Ack {
        Ack { tag, multiple: false }
    }

    fn up_to(tag: Tag) -> Ack {
        Ack { tag, multiple: true }
    }

    fn task() -> InHand {
        InHand { payload: Bytes::new(), at: None, headers: None }
    }

    fn with(prefetch: usize, delivered: Tag) -> Tracker {
        let mut tracker = Tracker::new(prefetch);
        for tag in 1..=delivered {
            assert!(tracker.delivered(tag, task()));
        }
        tracker
    }

    #[test]
    fn what_is_done_in_order_takes_one_acknowledgement() {
        let mut tracker = with(40, 5);
        assert_eq!(tracker.done(&[1]), [one(1)]);
        assert_eq!(tracker.done(&[3, 2, 4]), [up_to(4)]);
        assert_eq!(tracker.unacknowledged(), 1);
    }

    #[test]
    fn what_comes_out_of_order_waits_for_what_is_before_it() {
        let mut tracker = with(40, 5);
        assert_eq!(tracker.done(&[2, 4]), []);
        assert!(tracker.holds_back());
        assert_eq!(tracker.unacknowledged(), 5);
        assert_eq!(tracker.done(&[1]), [up_to(2)]);
        assert_eq!(tracker.done(&[3]), [up_to(4)]);
        assert!(!tracker.holds_back());
    }

    #[test]
    fn one_that_takes_long_does_not_hold_up_the_rest() {
        let mut tracker = with(8, 8);
        assert_eq!(tracker.done(&[2, 3]), []);
        assert_eq!(tracker.done(&[5]), [one(2), one(3), one(5)]);
        assert_eq!(tracker.done(&[4]), []);
        assert_eq!(tracker.all_held(), [one(4)]);
        // 2 to 5 are known already: naming one of them would be an error.
        assert_eq!(tracker.done(&[1]), [one(1)]);
        assert_eq!(tracker.done(&[6, 7]), [up_to(7)]);
    }

    #[test]
    fn strange_tags_are_passed_over() {
        let mut tracker = with(8, 2);
        assert_eq!(tracker.done(&[0, 7]), []);
        assert_eq!(tracker.done(&[1, 1]), [one(1)]);
        assert_eq!(tracker.done(&[1]), []);
        assert!(!tracker.delivered(4, task()));
    }

    /// What a broker makes of it: each tag is acknowledged once, and only when it was done.
    fn told(open: &mut BTreeSet<Tag>, done: &BTreeSet<Tag>, acks: Vec<Ack>) {
        for Ack { tag, multiple } in acks {
            assert!(open.contains(&tag), "{tag} is unknown to the broker");
            let acknowledged: Vec<Tag> = if multiple { open.range(..=tag).copied().collect() } else { vec![tag] };
            for tag in acknowledged {
                assert!(done.contains(&tag), "{tag} was not done");
                open.remove(&tag);
            }
        }
    }

    proptest! {
        #[test]
        fn a_broker_gets_each_acknowledgement_once(
            steps in prop::collection::vec((0..40_u64, any::<bool>()), 1..120),
            prefetch in 1..40_usize,
        ) {
            let mut tracker = with(prefetch, 40);
            let (mut open, mut done): (BTreeSet<Tag>, BTreeSet<Tag>) = ((1..=40).collect(), BTreeSet::new());
            for (tag, flush) in steps {
                done.insert(tag + 1);
                let acks = tracker.done(&[tag + 1]);
                told(&mut open, &done, acks);
                if flush {
                    let acks = tracker.all_held();
                    told(&mut open, &done, acks);
                    prop_assert_eq!(open.len(), 40 - done.len());
                }
                prop_assert_eq!(tracker.unacknowledged(), open.len());
                prop_assert!(open.len() <= 40 - done.len() + prefetch / 4);
            }
        }
    }
}
