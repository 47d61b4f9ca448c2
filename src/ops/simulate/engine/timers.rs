//! What is to be done later, the earliest first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Timers by their due time in nanoseconds; those of the same time in the order in which they were set.
#[derive(Debug)]
pub struct Timers<T> {
    heap: BinaryHeap<Entry<T>>,
    set: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: u64,
    order: u64,
    timer: T,
}

impl<T> Timers<T> {
    pub fn set(&mut self, at: u64, timer: T) {
        self.set += 1;
        self.heap.push(Entry { at, order: self.set, timer });
    }

    /// When the earliest is due.
    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// Takes the earliest, if its time has come.
    pub fn due(&mut self, now: u64) -> Option<T> {
        (self.next()? <= now).then(|| self.heap.pop().map(|entry| entry.timer))?
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), set: 0 }
    }
}

impl<T> Ord for Entry<T> {
    /// The heap gives its greatest: that is the earliest here.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_equal_ones_in_their_order() {
        let mut timers = Timers::default();
        for (at, name) in [(30, "c"), (10, "a"), (20, "b1"), (20, "b2"), (40, "d")] {
            timers.set(at, name);
        }
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.due(9), None);
        let due: Vec<_> = std::iter::from_fn(|| timers.due(30)).collect();
        assert_eq!(due, ["a", "b1", "b2", "c"]);
        assert_eq!(timers.next(), Some(40));
    }
}
