use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::{Confirm, Delivery, Tag, Unconfirmed};
use super::Lane;

/// Tasks kept in memory for a lane's consumer, at most. Beyond it the consumer reads them from the table.
const CAPACITY: usize = 4096;

/// Tags of tasks that have no row begin here. The ids of rows are far from it.
const WITHOUT_ROW: Tag = 1 << 63;

/// Whether the task is in the table.
pub(super) fn has_row(tag: Tag) -> bool {
    tag < WITHOUT_ROW
}

/// The tails of the lanes that were ever used here.
#[derive(Default)]
pub(super) struct Tails {
    by_lane: Mutex<HashMap<Lane, Arc<Tail>>>,
    last_id: AtomicU64,
}

impl Tails {
    pub(super) fn of(&self, lane: Lane) -> Arc<Tail> {
        Arc::clone(self.by_lane.lock().entry(lane).or_default())
    }

    /// A committed task of a lane. Called in the order of the ids, by the writer alone.
    pub(super) fn push(&self, tail: &Tail, id: u64, payload: Bytes) {
        let expected = self.last_id.swap(id, Ordering::Relaxed) + 1;
        if id != expected {
            // Ids have no holes: another process enqueued in between, and its tasks come first.
            self.look_again();
        } else {
            tail.push(id, payload);
        }
    }

    /// Another process may have enqueued.
    pub(super) fn look_again(&self) {
        for tail in self.by_lane.lock().values() {
            tail.look_again();
        }
    }
}

/// The newest tasks of a lane that this process enqueued, from the moment somebody here consumes it.
///
/// A task has two ways to a consumer: by a row of the table, from the commit on, or handed over at once without one. The
/// second is open only while nothing is on the first, so that none overtakes another.
#[derive(Default)]
pub(super) struct Tail {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Those without a row first, then those with one.
    newest: VecDeque<Delivery>,
    /// The table has tasks that are not here: it must be read before any row that is pushed from now on.
    table_first: bool,
    consumed: bool,
    /// Rows that are being written.
    on_the_way: usize,
    /// Some task took the way by the table, and may not be consumed yet.
    by_table: bool,
    handed_over: u64,
}

/// Where a consumer finds its next tasks.
pub(super) enum Next {
    Tasks(Vec<Delivery>),
    ReadTable,
    Wait,
}

impl Tail {
    /// Hands a task over to the consumer, or gives its confirm back: then it goes by the table, and [`Tail::arrived`]
    /// must be called when that has ended.
    pub(super) fn hand_over(&self, payload: &Bytes, confirm: Confirm) -> Option<Confirm> {
        let mut state = self.state.lock();
        if !state.consumed || state.by_table || state.newest.len() >= CAPACITY {
            state.goes_by_table();
            return Some(confirm);
        }
        let tag = WITHOUT_ROW + state.handed_over;
        state.handed_over += 1;
        let unconfirmed = Some(Unconfirmed::new(confirm));
        state.newest.push_back(Delivery { tag, payload: payload.clone(), redelivered: false, unconfirmed });
        drop(state);
        self.changed.notify_one();
        None
    }

    /// A row of this lane is about to be written.
    pub(super) fn departs(&self) {
        self.state.lock().goes_by_table();
    }

    /// It is written, and was pushed; or it will never be.
    pub(super) fn arrived(&self) {
        let mut state = self.state.lock();
        state.on_the_way = state.on_the_way.saturating_sub(1);
        // A consumer that waits opens the other way again.
        let is_last = state.on_the_way == 0 && state.consumed;
        drop(state);
        if is_last {
            self.changed.notify_one();
        }
    }

    fn push(&self, id: u64, payload: Bytes) {
        let mut state = self.state.lock();
        if !state.consumed {
            return;
        }
        if state.newest.len() >= CAPACITY {
            state.read_table_first();
        } else if !state.table_first {
            state.newest.push_back(Delivery { tag: id, payload, redelivered: false, unconfirmed: None });
        }
        drop(state);
        self.changed.notify_one();
    }

    /// A consumer begins: everything before it is in the table.
    pub(super) fn start_over(&self) {
        self.stop();
        let mut state = self.state.lock();
        (state.consumed, state.table_first, state.by_table) = (true, true, true);
        drop(state);
        self.changed.notify_one();
    }

    /// Whatever was handed over and not consumed; the rest goes by the table.
    pub(super) fn end_hand_over(&self) -> Vec<Delivery> {
        let mut state = self.state.lock();
        state.consumed = false;
        let mut left = std::mem::take(&mut state.newest);
        drop(state);
        left.retain(|task| !has_row(task.tag));
        left.into()
    }

    /// The consumer ends. What was handed over is refused.
    pub(super) fn stop(&self) {
        drop(self.end_hand_over());
    }

    fn look_again(&self) {
        let mut state = self.state.lock();
        if !state.consumed {
            return;
        }
        state.read_table_first();
        drop(state);
        self.changed.notify_one();
    }

    /// What to do for the next `max` tasks after `cursor`. After [`Next::ReadTable`] the caller must call
    /// [`Tail::table_unread`] if it did not read to the end.
    pub(super) fn next(&self, cursor: Tag, max: usize) -> Next {
        let mut state = self.state.lock();
        while state.newest.front().is_some_and(|task| task.tag <= cursor) {
            state.newest.pop_front();
        }
        let count = state.newest.len().min(max);
        if count > 0 {
            return Next::Tasks(state.newest.drain(..count).collect());
        }
        if state.table_first {
            state.table_first = false;
            return Next::ReadTable;
        }
        // Whatever took the way by the table is consumed.
        state.by_table = state.on_the_way > 0;
        Next::Wait
    }

    /// The table holds more than was read, or could not be read.
    pub(super) fn table_unread(&self) {
        self.look_again();
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl State {
    fn goes_by_table(&mut self) {
        self.by_table = true;
        self.on_the_way += 1;
    }

    /// What is here of the table may come after what another process enqueued.
    fn read_table_first(&mut self) {
        self.newest.retain(|task| !has_row(task.tag));
        (self.table_first, self.by_table) = (true, true);
    }
}
