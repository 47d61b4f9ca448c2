//! What an owner does with a task: pure decisions on the state of one channel.
//!
//! Nothing here waits. The same tasks in the same order from the same stored state make the same entries, which is
//! what makes a crash harmless.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;

mod members;
mod watermarks;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use self::watermarks::raise_watermarks;
use super::WorkerOptions;
use super::repeats::may_be_stored;
use super::window::Window;
use crate::message::{ChannelId, Message, Seq, Username};
use crate::server::events::Event;
use crate::server::queue::{IndexRange, SendTask, Tag, Task, Unconfirmed};
use crate::server::store::{ChannelBatch, ChannelState, Earlier, NewChannel, Refused};
use crate::wire::ErrorCode;

/// Entries in one flush, at most: bounds the size of a store's atomic batch. How many may wait for a flush, the prefetch
/// bounds.
/// Few in tests, so that these fill more than one.
const MAX_ENTRIES: usize = if cfg!(test) { 4 } else { 500 };

/// A channel in its owner's hands.
pub(super) struct Channel {
    pub(super) id: ChannelId,
    pub(super) loaded: Loaded,
    /// Tasks whose turn has not come, in order.
    pub(super) waiting: VecDeque<Waiting>,
    /// Answers of the store about sends that may be repeats.
    found: HashMap<(Username, Uuid), Option<Earlier>>,
    pub(super) looking: bool,
    pub(super) stored_seq: Seq,
    pub(super) flushing: bool,
    /// Entries up to here are said only when they are stored: they, or some before them, were made of tasks that are
    /// kept nowhere until then.
    unsaid_until: Seq,
    /// Full, and waiting for the flushes before them.
    sealed: VecDeque<Flush>,
    pending: Pending,
    pub(super) last_used: u64,
}

pub(super) struct Waiting {
    pub(super) tag: Tag,
    pub(super) task: Task,
    /// An earlier owner may have begun with it.
    pub(super) redelivered: bool,
    pub(super) unconfirmed: Option<Unconfirmed>,
}

/// What is known of the channel.
pub(super) enum Loaded {
    NotYet,
    Loading,
    Absent,
    Present(ChannelState),
}

/// Decided, published to live members, and not yet stored.
#[derive(Default)]
struct Pending {
    create: Option<NewChannel>,
    entries: Vec<Arc<Message>>,
    /// Members who are new, gone, or have new watermarks.
    dirty: BTreeSet<Username>,
    refused: Vec<Refused>,
    tags: Vec<Tag>,
    unconfirmed: Vec<Unconfirmed>,
    /// To be said when it is stored.
    afterwards: Vec<Event>,
}

/// What a decision asks of the outside at once.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) events: Vec<Event>,
    /// Stored by an owner that may have died before it asked for their indexing.
    pub(super) to_index: Vec<IndexRange>,
    /// Tasks that need nothing stored.
    pub(super) settled: Vec<Tag>,
    /// Of these, what is in memory alone. To be confirmed before the events.
    pub(super) confirmed: Vec<Unconfirmed>,
}

/// One flush.
pub(super) struct Flush {
    pub(super) batch: Arc<ChannelBatch>,
    pub(super) tags: Vec<Tag>,
    pub(super) unconfirmed: Vec<Unconfirmed>,
    pub(super) afterwards: Vec<Event>,
}

impl Channel {
    pub(super) fn new(id: ChannelId) -> Self {
        Self {
            id,
            loaded: Loaded::NotYet,
            waiting: VecDeque::new(),
            found: HashMap::new(),
            looking: false,
            stored_seq: 0,
            flushing: false,
            unsaid_until: 0,
            sealed: VecDeque::new(),
            pending: Pending::default(),
            last_used: 0,
        }
    }

    /// Nothing in hand: it can be forgotten and read again.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && !self.looking
            && !self.flushing
            && !matches!(self.loaded, Loaded::Loading)
            && self.nothing_waits()
    }

    /// Whether all that was decided is.
    fn is_stored(&self) -> bool {
        !self.flushing && self.nothing_waits()
    }

    fn nothing_waits(&self) -> bool {
        self.sealed.is_empty() && self.pending.tags.is_empty()
    }

    /// The store's answer to what the channel is.
    pub(super) fn set_loaded(&mut self, state: Option<ChannelState>) {
        self.stored_seq = state.as_ref().map_or(0, |state| state.last_seq);
        self.loaded = state.map_or(Loaded::Absent, Loaded::Present);
    }

    /// The sends at the front of the line that must be looked up before they get their turn.
    pub(super) fn to_look_up(&self, window: &Window) -> Vec<(Username, Uuid)> {
        let unknown = |waiting: &Waiting| {
            let (sender, client_id) = identity(&waiting.task)?;
            let key = (sender.clone(), client_id);
            let known = window.get(self.id, sender, client_id).is_some()
                || self.found.contains_key(&key)
                || !must_look_up(waiting, window);
            (!known).then_some(key)
        };
        self.waiting.iter().filter_map(unknown).take(MAX_ENTRIES).collect()
    }

    /// What the store says about these sends.
    pub(super) fn set_found(&mut self, answers: Vec<((Username, Uuid), Option<Earlier>)>) {
        self.looking = false;
        let in_line: HashSet<(&Username, Uuid)> =
            self.waiting.iter().filter_map(|waiting| identity(&waiting.task)).collect();
        let asked = answers.into_iter().filter(|((sender, client_id), _)| in_line.contains(&(sender, *client_id)));
        self.found.extend(asked);
    }

    /// Gives all tasks their turn whose turn it can be.
    pub(super) fn advance(&mut self, window: &mut Window, options: &WorkerOptions, effects: &mut Effects) {
        if matches!(self.loaded, Loaded::NotYet | Loaded::Loading) {
            return;
        }
        while let Some(next) = self.waiting.front() {
            let repeat_of = match identity(&next.task) {
                None => None,
                Some((sender, client_id)) => {
                    // Good for one turn: the next with the same identity is a repeat of this one.
                    let found = self.found.remove(&(sender.clone(), client_id));
                    match window.get(self.id, sender, client_id) {
                        Some(known) => Some(known),
                        None if !must_look_up(next, window) => None,
                        None => match found {
                            Some(found) => found.filter(|found| self.is_in_the_log(*found)),
                            None => return,
                        },
                    }
                }
            };
            let Some(waiting) = self.waiting.pop_front() else { return };
            self.take_turn(waiting, repeat_of, window, options, effects);
            if self.pending.entries.len() >= MAX_ENTRIES {
                self.seal(options);
            }
        }
    }

    /// A process may have died after it noted a send's seq and before it stored the entry.
    fn is_in_the_log(&self, found: Earlier) -> bool {
        match found {
            Earlier::Stored(seq) => self.state().is_some_and(|state| seq <= state.last_seq),
            Earlier::Refused(_) => true,
        }
    }

    fn take_turn(
        &mut self,
        waiting: Waiting,
        repeat_of: Option<Earlier>,
        window: &mut Window,
        options: &WorkerOptions,
        effects: &mut Effects,
    ) {
        let Waiting { tag, task, redelivered, unconfirmed } = waiting;
        if unconfirmed.is_some() {
            self.unsaid_until = self.state().map_or(0, |state| state.last_seq) + 1;
        }
        let needs_store = match task {
            Task::Send(send) => self.send(send, repeat_of, redelivered, window, effects),
            Task::Create(create) => self.create(create, repeat_of, window, effects),
            Task::Change(change) => self.change(change, repeat_of, window, options, effects),
            Task::Receipts(receipts) => self.receipts(&receipts, redelivered, effects),
            // Never in a lane of db_tasks; whoever put it there gets nothing for it.
            Task::Index(_) | Task::Search(_) => false,
        };
        // What is decided already may rest on what is not stored yet, and would be lost with it: so if this task is in
        // memory alone, or one before it is. (Of those that are kept, all would come again.)
        let rests_on_memory = unconfirmed.is_some() || self.unsaid_until > self.stored_seq;
        if needs_store || (rests_on_memory && !self.is_stored()) {
            self.pending.tags.push(tag);
            self.pending.unconfirmed.extend(unconfirmed);
        } else {
            effects.settled.push(tag);
            effects.confirmed.extend(unconfirmed);
        }
    }

    /// Whether something must be stored before the task is done; so for all that follow.
    fn send(
        &mut self,
        send: SendTask,
        repeat_of: Option<Earlier>,
        redelivered: bool,
        window: &mut Window,
        effects: &mut Effects,
    ) -> bool {
        let SendTask { channel, client_id, at, .. } = send;
        match repeat_of {
            None => {}
            Some(Earlier::Stored(seq)) => {
                let persisted = Event::Persisted { channel, seq, sender: send.sender, client_id };
                if seq > self.stored_seq {
                    // The first attempt's own `persisted` may have been said by now: its flush says so before it ends.
                    return self.say_once_stored([persisted], effects);
                }
                effects.events.push(persisted);
                if redelivered {
                    IndexRange::append(&mut effects.to_index, IndexRange { channel, first: seq, last: seq });
                }
                return false;
            }
            Some(Earlier::Refused(code)) => {
                let code = code.unwrap_or(ErrorCode::NotAMember);
                let rejected = Event::Rejected { channel, sender: send.sender, client_id, code };
                return self.say_once_stored([rejected], effects);
            }
        }
        let is_member = self.state().is_some_and(|state| state.members.contains_key(&send.sender));
        if !is_member {
            let code = ErrorCode::NotAMember;
            let rejected = Event::Rejected { channel, sender: send.sender.clone(), client_id, code };
            let refused = Refused { sender: send.sender, client_id, code: Some(code), at };
            return self.refuse(refused, rejected, window);
        }
        let Some(entry) = self.append(|seq| send.into_message(seq)) else { return false };
        let seq = entry.seq;
        window.insert(channel, &entry.sender, client_id, at, Earlier::Stored(seq));
        if self.waits_for_store(seq) {
            self.pending.afterwards.push(Event::Stored(entry));
        } else {
            let sender = entry.sender.clone();
            self.pending.afterwards.push(Event::Persisted { channel, seq, sender, client_id });
            effects.events.push(Event::Message(entry));
        }
        true
    }

    /// Keeps in mind that a request was refused: judged again after later changes, it might be possible. That must be
    /// waited for.
    fn refuse(&mut self, refused: Refused, said: Event, window: &mut Window) -> bool {
        let Refused { sender, client_id, code, at } = &refused;
        window.insert(self.id, sender, *client_id, *at, Earlier::Refused(*code));
        self.pending.refused.push(refused);
        self.pending.afterwards.push(said);
        true
    }

    /// Says at once what was decided, if all that was decided is stored; else when it is. Whether that must be waited
    /// for.
    fn say_once_stored(&mut self, events: impl IntoIterator<Item = Event>, effects: &mut Effects) -> bool {
        let is_stored = self.is_stored();
        let said = if is_stored { &mut effects.events } else { &mut self.pending.afterwards };
        said.extend(events);
        !is_stored
    }

    /// The next entry, and the news of it.
    fn append_change(&mut self, entry: impl FnOnce(Seq) -> Message, effects: &mut Effects) -> Seq {
        let Some(entry) = self.append(entry) else { return 0 };
        let seq = entry.seq;
        let said = if self.waits_for_store(seq) { &mut self.pending.afterwards } else { &mut effects.events };
        said.push(Event::Message(entry));
        seq
    }

    /// The next entry, of which nobody knows yet. `None` where there is no channel.
    fn append(&mut self, entry: impl FnOnce(Seq) -> Message) -> Option<Arc<Message>> {
        let Loaded::Present(state) = &mut self.loaded else { return None };
        let entry = Arc::new(entry(state.last_seq + 1));
        self.pending.dirty.extend(state.apply(&entry));
        self.pending.entries.push(Arc::clone(&entry));
        Some(entry)
    }

    /// Whether the newest entry must not be said before it is stored; those behind it wait, too.
    fn waits_for_store(&mut self, seq: Seq) -> bool {
        let waits = self.unsaid_until > self.stored_seq;
        if waits {
            self.unsaid_until = self.unsaid_until.max(seq);
        }
        waits
    }

    /// The store can't be written: who waits for that is told.
    pub(super) fn refuse_unconfirmed(&mut self, why: &str) {
        let waiting = self.waiting.iter_mut().filter_map(|waiting| waiting.unconfirmed.as_mut());
        let sealed = self.sealed.iter_mut().flat_map(|flush| &mut flush.unconfirmed);
        for task in waiting.chain(sealed).chain(&mut self.pending.unconfirmed) {
            task.refuse(why.to_owned());
        }
    }

    /// What is to be stored next, if anything is and no flush of this channel is under way.
    pub(super) fn next_flush(&mut self, options: &WorkerOptions) -> Option<Flush> {
        if self.flushing {
            return None;
        }
        if self.sealed.is_empty() {
            self.seal(options);
        }
        let next = self.sealed.pop_front();
        self.flushing = next.is_some();
        next
    }

    /// Makes a flush of what is pending. Members and watermarks are those of this moment: what comes later belongs to a
    /// later flush.
    fn seal(&mut self, options: &WorkerOptions) {
        if self.pending.tags.is_empty() {
            return;
        }
        let Pending { create, entries, dirty, refused, tags, unconfirmed, mut afterwards } =
            std::mem::take(&mut self.pending);
        let mut batch = ChannelBatch {
            channel: self.id,
            create,
            entries,
            members: Vec::new(),
            departed: Vec::new(),
            delivered_by_all: 0,
            read_by_all: 0,
            refused,
        };
        if let Loaded::Present(state) = &mut self.loaded {
            afterwards.extend(raise_watermarks(self.id, state, options));
            (batch.delivered_by_all, batch.read_by_all) = (state.delivered_by_all, state.read_by_all);
            for user in dirty {
                match state.members.get(&user) {
                    Some(member) => batch.members.push((user, member.clone())),
                    None => batch.departed.push(user),
                }
            }
        }
        self.sealed.push_back(Flush { batch: Arc::new(batch), tags, unconfirmed, afterwards });
    }

    pub(super) fn flushed(&mut self, batch: &ChannelBatch) {
        self.flushing = false;
        if let Some(last) = batch.entries.last() {
            self.stored_seq = last.seq;
        }
    }

    fn state(&self) -> Option<&ChannelState> {
        match &self.loaded {
            Loaded::Present(state) => Some(state),
            _ => None,
        }
    }
}

/// Asked anew each time: what the window has lost meanwhile, only the store remembers.
fn must_look_up(waiting: &Waiting, window: &Window) -> bool {
    may_be_stored(&waiting.task, waiting.redelivered, window.remembers_since())
}

/// What a second run of the task is recognised by.
fn identity(task: &Task) -> Option<(&Username, Uuid)> {
    match task {
        Task::Send(send) => Some((&send.sender, send.client_id)),
        Task::Change(change) => Some((&change.by, change.id)),
        Task::Create(create) => create.members.first().map(|creator| (creator, create.id)),
        Task::Receipts(_) | Task::Index(_) | Task::Search(_) => None,
    }
}
