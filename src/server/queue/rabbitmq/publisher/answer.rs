//! What is owed to whoever published: exactly one answer, whatever becomes of the channel.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::super::{Confirm, QueueError};
use crate::message::Millis;

/// Bounds what waits for a confirm.
#[derive(Clone)]
pub(super) struct Window {
    used: Arc<AtomicUsize>,
    size: usize,
}

impl Window {
    pub(super) fn new(size: usize) -> Self {
        Self { used: Arc::default(), size }
    }

    /// What follows from work that was taken has as much room again: it is bounded by that work.
    pub(super) fn capacity(&self) -> usize {
        self.size * 2
    }

    pub(super) fn place(&self, may_be_refused: bool) -> Option<Place> {
        let limit = if may_be_refused { self.size } else { self.capacity() };
        let place = Place(Arc::clone(&self.used));
        (self.used.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

/// Given back when it is dropped.
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Dropped without an answer, it says that the outcome is unknown.
pub(super) struct Answer {
    place: Option<Place>,
    /// Of db_tasks.
    is_task: bool,
    confirm: Option<Confirm>,
}

impl Answer {
    pub(super) fn new(place: Place, is_task: bool, confirm: Confirm) -> Self {
        Self { place: Some(place), is_task, confirm: Some(confirm) }
    }

    pub(super) fn give(mut self, outcome: Result<(), QueueError>) {
        self.give_once(outcome);
    }

    /// Nothing was published, and the caller is told otherwise.
    pub(super) fn forget(mut self) {
        self.confirm = None;
    }

    fn give_once(&mut self, outcome: Result<(), QueueError>) {
        let Some(confirm) = self.confirm.take() else { return };
        // Before the one who asked can ask again.
        self.place = None;
        let is_accepted = outcome.is_ok();
        confirm(outcome);
        if self.is_task && is_accepted {
            crate::crash_point!("after_accept");
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.give_once(Err(QueueError::Unavailable("the connection with RabbitMQ ended before the confirm".into())));
    }
}

/// The `message-id` of a publish: when it was made, and its number on its channel. A returned message is known by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server::queue::rabbitmq) struct PublishId {
    pub at: Millis,
    pub number: u64,
}

impl fmt::Display for PublishId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at.0, self.number)
    }
}

impl FromStr for PublishId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (at, number) = text.rsplit_once('-').ok_or(())?;
        match (at.parse(), number.parse()) {
            (Ok(at), Ok(number)) => Ok(Self { at: Millis(at), number }),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn an_answer_is_given_exactly_once() {
        let window = Window::new(1);
        let given = Arc::new(Mutex::new(Vec::new()));
        let answer = || {
            let given = Arc::clone(&given);
            let confirm: Confirm = Box::new(move |outcome| given.lock().push(outcome));
            Answer::new(window.place(true).unwrap(), true, confirm)
        };
        answer().give(Err(QueueError::Overloaded));
        drop(answer());
        answer().forget();
        let given = given.lock();
        assert_eq!(given.len(), 2);
        assert_eq!(given[0], Err(QueueError::Overloaded));
        assert!(matches!(given[1], Err(QueueError::Unavailable(_))));
    }

    #[test]
    fn what_follows_from_taken_work_has_room_of_its_own() {
        let window = Window::new(1);
        let first = window.place(true).unwrap();
        assert!(window.place(true).is_none());
        let _follow_up = window.place(false).unwrap();
        assert!(window.place(false).is_none());
        drop(first);
        assert!(window.place(true).is_none(), "the follow-up counts");
        assert!(window.place(false).is_some());
    }

    #[test]
    fn a_publish_id_comes_back_as_it_was() {
        for id in [PublishId { at: Millis(1_700_000_000_123), number: 7 }, PublishId { at: Millis(-5), number: 0 }] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!("nothing of ours".parse::<PublishId>(), Err(()));
    }
}
