use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Lane;

/// Tasks kept in memory for a lane's consumer, at most. Beyond it the consumer reads them from the table.
const CAPACITY: usize = 4096;

/// The tails of the lanes that were ever consumed here.
#[derive(Default)]
pub(super) struct Tails {
    by_lane: Mutex<HashMap<Lane, Arc<Tail>>>,
    last_id: AtomicU64,
}

impl Tails {
    pub(super) fn of(&self, lane: Lane) -> Arc<Tail> {
        Arc::clone(self.by_lane.lock().entry(lane).or_default())
    }

    /// A committed task. Called in the order of the ids, by the writer alone.
    ///
    /// The tails are looked up now and not when the task was submitted: a consumer that came in between either gets
    /// the task here, or finds it in the table.
    pub(super) fn push(&self, lane: Lane, id: u64, payload: Bytes) {
        let expected = self.last_id.swap(id, Ordering::Relaxed) + 1;
        if id != expected {
            // Ids have no holes: another process enqueued in between, and its tasks come first.
            self.look_again();
        } else if let Some(tail) = self.by_lane.lock().get(&lane) {
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
#[derive(Default)]
pub(super) struct Tail {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    newest: VecDeque<(u64, Bytes)>,
    /// The table has tasks that are not here: it must be read before anything that is pushed from now on.
    table_first: bool,
    consumed: bool,
}

/// Where a consumer finds its next tasks.
pub(super) enum Next {
    Tasks(Vec<(u64, Bytes)>),
    ReadTable,
    Wait,
}

impl Tail {
    fn push(&self, id: u64, payload: Bytes) {
        let mut state = self.state.lock();
        if !state.consumed {
            return;
        }
        if state.newest.len() >= CAPACITY {
            state.newest.clear();
            state.table_first = true;
        } else if !state.table_first {
            state.newest.push_back((id, payload));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// A consumer begins: everything before it is in the table.
    pub(super) fn start_over(&self) {
        *self.state.lock() = State { newest: VecDeque::new(), table_first: true, consumed: true };
        self.changed.notify_one();
    }

    pub(super) fn stop(&self) {
        *self.state.lock() = State::default();
    }

    fn look_again(&self) {
        let mut state = self.state.lock();
        if !state.consumed {
            return;
        }
        // What is here is in the table too, and may come after what another process enqueued.
        state.newest.clear();
        state.table_first = true;
        drop(state);
        self.changed.notify_one();
    }

    /// What to do for the next `max` tasks after `cursor`. After [`Next::ReadTable`] the caller must call
    /// [`Tail::table_read`] if it did not read to the end.
    pub(super) fn next(&self, cursor: u64, max: usize) -> Next {
        let mut state = self.state.lock();
        if state.table_first {
            state.table_first = false;
            return Next::ReadTable;
        }
        while state.newest.front().is_some_and(|(id, _)| *id <= cursor) {
            state.newest.pop_front();
        }
        let count = state.newest.len().min(max);
        if count == 0 { Next::Wait } else { Next::Tasks(state.newest.drain(..count).collect()) }
    }

    /// The table holds more than was read, or could not be read.
    pub(super) fn table_unread(&self) {
        self.look_again();
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
