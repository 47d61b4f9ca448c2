use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::{Confirm, Delivery, QueueError, Tag, Unconfirmed};
use super::Lane;

/// Rows kept in memory for a lane's consumer, at most. Beyond it the consumer reads them from the table.
const CAPACITY: usize = 4096;

/// Bytes of tasks without a row that wait for a lane's consumer, at most; their number is bounded by the depth of the
/// queue. More are refused.
const MAX_WITHOUT_ROW: usize = 16 << 20;

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

    /// Tasks without a row, of all lanes.
    pub(super) fn unkept(&self) -> usize {
        self.by_lane.lock().values().map(|tail| tail.unkept()).sum()
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
/// A task has two ways to a consumer: by a row of the table, from the commit on, or handed over without one. What is
/// handed over waits for the rows before it. And none gets a row behind one that was handed over: it would outlive that in
/// a crash, and the sender of the other will ask again.
#[derive(Default)]
pub(super) struct Tail {
    state: Mutex<State>,
    changed: Notify,
    /// Tasks without a row, waiting or worked on.
    unkept: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    /// With a row.
    newest: VecDeque<Delivery>,
    /// Without one. Their turn is behind those that have one, here, in the table or on the way to it.
    handed_over: VecDeque<Delivery>,
    /// Of these.
    bytes: usize,
    /// The table has tasks that are not here: it must be read before any that is pushed from now on.
    table_first: bool,
    consumed: bool,
    /// Rows that are being written.
    on_the_way: usize,
    /// The next tag without a row, counted from the first of them.
    next: Tag,
}

/// Counts a task until it is neither waiting nor worked on.
struct Unkept(Arc<AtomicUsize>);

impl Unkept {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Unkept {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What becomes of a new task.
pub(super) enum Way {
    HandedOver,
    /// [`Tail::arrived`] must be called when its writing has ended.
    ByTable(Confirm),
}

/// Where a consumer finds its next tasks.
pub(super) enum Next {
    Tasks(Vec<Delivery>),
    ReadTable,
    Wait,
}

impl Tail {
    /// Hands a task over, if a consumer is there and could confirm it.
    ///
    /// Errors: [`QueueError::Overloaded`]; [`QueueError::Unavailable`] where it must not have a row yet.
    pub(super) fn admit(&self, payload: &Bytes, confirm: Confirm, disk_fails: bool) -> Result<Way, QueueError> {
        let mut state = self.state.lock();
        if !state.consumed || disk_fails {
            if self.unkept() > 0 {
                let why = if disk_fails { "the disk takes nothing now" } else { "its worker is being replaced" };
                return Err(QueueError::Unavailable(why.into()));
            }
            state.on_the_way += 1;
            return Ok(Way::ByTable(confirm));
        }
        if state.bytes > 0 && state.bytes + payload.len() > MAX_WITHOUT_ROW {
            return Err(QueueError::Overloaded);
        }
        let tag = WITHOUT_ROW + state.next;
        state.next += 1;
        state.bytes += payload.len();
        let unconfirmed = Some(Unconfirmed::new(confirm, Some(Box::new(Unkept::new(&self.unkept)))));
        state.handed_over.push_back(Delivery { tag, payload: payload.clone(), redelivered: false, unconfirmed });
        drop(state);
        self.changed.notify_one();
        Ok(Way::HandedOver)
    }

    /// A row of this lane is about to be written.
    pub(super) fn departs(&self) {
        self.state.lock().on_the_way += 1;
    }

    /// It is written, and was pushed; or it will never be.
    pub(super) fn arrived(&self) {
        let mut state = self.state.lock();
        state.on_the_way = state.on_the_way.saturating_sub(1);
        // What was handed over behind it has its turn.
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
        (state.consumed, state.table_first) = (true, true);
        drop(state);
        self.changed.notify_one();
    }

    /// Whatever was handed over and not consumed; the rest goes by the table. Where rows behind `cursor` come first,
    /// which the next owner will have, it is refused.
    pub(super) fn end_hand_over(&self, cursor: Tag) -> Vec<Delivery> {
        let mut state = self.state.lock();
        let rows_first =
            state.table_first || state.on_the_way > 0 || state.newest.back().is_some_and(|task| task.tag > cursor);
        let handed_over = state.end_hand_over();
        drop(state);
        if rows_first { Vec::new() } else { handed_over.into() }
    }

    /// The consumer ends. What was handed over is refused.
    pub(super) fn stop(&self) {
        let refused = self.state.lock().end_hand_over();
        // Their senders hear of it outside the lock.
        drop(refused);
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
        if state.table_first {
            state.table_first = false;
            return Next::ReadTable;
        }
        while state.newest.front().is_some_and(|task| task.tag <= cursor) {
            state.newest.pop_front();
        }
        let count = state.newest.len().min(max);
        if count > 0 {
            return Next::Tasks(state.newest.drain(..count).collect());
        }
        let count = state.handed_over.len().min(max);
        if count == 0 || state.on_the_way > 0 {
            return Next::Wait;
        }
        let tasks: Vec<Delivery> = state.handed_over.drain(..count).collect();
        state.bytes -= tasks.iter().map(|task| task.payload.len()).sum::<usize>();
        Next::Tasks(tasks)
    }

    /// The table holds more than was read, or could not be read.
    pub(super) fn table_unread(&self) {
        self.look_again();
    }

    /// Tasks without a row, waiting or worked on.
    pub(super) fn unkept(&self) -> usize {
        self.unkept.load(Ordering::Acquire)
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl State {
    fn end_hand_over(&mut self) -> VecDeque<Delivery> {
        self.consumed = false;
        self.newest.clear();
        self.bytes = 0;
        std::mem::take(&mut self.handed_over)
    }

    /// What is here of the table may come after what another process enqueued.
    fn read_table_first(&mut self) {
        self.newest.clear();
        self.table_first = true;
    }
}
