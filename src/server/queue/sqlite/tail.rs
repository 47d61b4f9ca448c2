use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Tasks kept in memory for a lane's consumer, at most. Beyond it the consumer reads them from the table.
const CAPACITY: usize = 4096;

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
    /// A committed task.
    pub(super) fn push(&self, id: u64, payload: Bytes) {
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

    /// Another process wrote to the table, or the consumer's standing changed.
    pub(super) fn look_again(&self) {
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
