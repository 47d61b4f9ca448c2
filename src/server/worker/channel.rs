//! What an owner does with a task: pure decisions on the state of one channel.
//!
//! Nothing here waits. The same tasks in the same order from the same stored state make the same entries, which is
//! what makes a crash harmless.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::WorkerOptions;
use super::window::Window;
use crate::message::{Change, ChannelId, ChannelKind, Kind, Message, Role, Seq, Username};
use crate::server::events::Event;
use crate::server::queue::{ChangeTask, CreateTask, IndexTask, Origin, ReceiptsTask, SendTask, Tag, Task};
use crate::server::store::{ChannelBatch, ChannelState, Member, NewChannel};
use crate::wire::ErrorCode;

/// Entries in one flush, at most: bounds the size of a store's atomic batch.
const MAX_ENTRIES: usize = 500;

/// A channel in its owner's hands.
pub(super) struct Channel {
    pub(super) id: ChannelId,
    pub(super) loaded: Loaded,
    /// Tasks whose turn has not come, in order.
    pub(super) waiting: VecDeque<Waiting>,
    /// Answers of the store about sends that may be repeats.
    pub(super) found: HashMap<(Username, Uuid), Option<Seq>>,
    pub(super) looking: bool,
    pub(super) stored_seq: Seq,
    pub(super) flushing: bool,
    pending: Pending,
    pub(super) last_used: u64,
}

pub(super) struct Waiting {
    pub(super) tag: Tag,
    pub(super) task: Task,
    /// It may be in the store already.
    pub(super) look_up: bool,
    /// An earlier owner may have begun with it.
    pub(super) redelivered: bool,
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
    tags: Vec<Tag>,
    /// To be said when it is stored.
    afterwards: Vec<Event>,
}

/// What a decision asks of the outside at once.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) events: Vec<Event>,
    /// Stored by an owner that may have died before it asked for their indexing.
    pub(super) to_index: Vec<IndexTask>,
    /// Tasks that need nothing stored.
    pub(super) settled: Vec<Tag>,
}

/// One flush.
pub(super) struct Flush {
    pub(super) batch: Arc<ChannelBatch>,
    pub(super) tags: Vec<Tag>,
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
            && self.pending.tags.is_empty()
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
            let known =
                !waiting.look_up || window.get(self.id, sender, client_id).is_some() || self.found.contains_key(&key);
            (!known).then_some(key)
        };
        self.waiting.iter().filter_map(unknown).take(MAX_ENTRIES).collect()
    }

    /// Gives all tasks their turn whose turn it can be.
    pub(super) fn advance(&mut self, window: &mut Window, options: &WorkerOptions, effects: &mut Effects) {
        if matches!(self.loaded, Loaded::NotYet | Loaded::Loading) {
            return;
        }
        while let Some(next) = self.waiting.front() {
            if self.pending.entries.len() >= MAX_ENTRIES {
                return;
            }
            let repeat_of = match identity(&next.task) {
                None => None,
                Some((sender, client_id)) => match window.get(self.id, sender, client_id) {
                    Some(seq) => Some(seq),
                    None if !next.look_up => None,
                    None => match self.found.get(&(sender.clone(), client_id)) {
                        Some(found) => *found,
                        None => return,
                    },
                },
            };
            let Some(waiting) = self.waiting.pop_front() else { return };
            self.take_turn(waiting, repeat_of, window, options, effects);
        }
        // Nobody waits any more who could ask for these.
        self.found.clear();
    }

    fn take_turn(
        &mut self,
        waiting: Waiting,
        repeat_of: Option<Seq>,
        window: &mut Window,
        options: &WorkerOptions,
        effects: &mut Effects,
    ) {
        let Waiting { tag, task, redelivered, .. } = waiting;
        let needs_store = match task {
            Task::Send(send) => self.send(send, repeat_of, redelivered, window, effects),
            Task::Create(create) => self.create(create, repeat_of, window, effects),
            Task::Change(change) => self.change(change, repeat_of, window, options, effects),
            Task::Receipts(receipts) => self.receipts(&receipts, redelivered, effects),
            // Never in a lane of db_tasks; whoever put it there gets nothing for it.
            Task::Index(_) => false,
        };
        if needs_store {
            self.pending.tags.push(tag);
        } else {
            effects.settled.push(tag);
        }
    }

    /// Whether something must be stored before the task is done; so for all that follow.
    fn send(
        &mut self,
        send: SendTask,
        repeat_of: Option<Seq>,
        redelivered: bool,
        window: &mut Window,
        effects: &mut Effects,
    ) -> bool {
        let SendTask { channel, client_id, .. } = send;
        if let Some(seq) = repeat_of {
            // Not stored yet: the first attempt's own `persisted` is still to come, and goes to the same sockets.
            if seq <= self.stored_seq {
                effects.events.push(Event::Persisted { channel, seq, sender: send.sender, client_id });
                if redelivered {
                    index_again(&mut effects.to_index, channel, seq);
                }
            }
            return false;
        }
        let is_member = self.state().is_some_and(|state| state.members.contains_key(&send.sender));
        if !is_member {
            let code = ErrorCode::NotAMember;
            effects.events.push(Event::Rejected { channel, sender: send.sender, client_id, code });
            return false;
        }
        let sender = send.sender.clone();
        let seq = self.append(|seq| send.into_message(seq), effects);
        window.insert(channel, &sender, client_id, seq);
        self.pending.afterwards.push(Event::Persisted { channel, seq, sender, client_id });
        true
    }

    fn create(
        &mut self,
        create: CreateTask,
        repeat_of: Option<Seq>,
        window: &mut Window,
        effects: &mut Effects,
    ) -> bool {
        let CreateTask { channel, id, kind, name, members, at, origin } = create;
        let members = without_repeats(members);
        let Some(creator) = members.first().cloned() else { return false };
        if let Loaded::Present(state) = &self.loaded {
            let joined: Vec<Username> = match repeat_of {
                // Done again: whoever did it first may have died before anybody was told.
                Some(seq) => members.into_iter().filter(|user| joined_with(state, user, seq)).collect(),
                // Asked for again: the requester alone is told, unless it has left since.
                None => members.into_iter().take(1).filter(|user| state.members.contains_key(user)).collect(),
            };
            let Some(joined_seq) = joined.first().and_then(|user| state.members.get(user)).map(|m| m.joined_seq) else {
                return false;
            };
            let joined = Event::Joined { channel: state.info(channel), joined, joined_seq, origin: Some(origin) };
            return self.say_once_stored([joined], effects);
        }
        let role = |user: &Username| match kind {
            ChannelKind::Direct => Role::Owner,
            ChannelKind::Group if *user == creator => Role::Owner,
            ChannelKind::Group => Role::Member,
        };
        let joined = members
            .iter()
            .map(|user| (user.clone(), Member { role: role(user), joined_seq: 1, delivered: 0, read: 0 }))
            .collect();
        self.loaded = Loaded::Present(ChannelState {
            kind,
            name: name.clone(),
            last_seq: 0,
            members: joined,
            delivered_by_all: 0,
            read_by_all: 0,
        });
        self.pending.create = Some(NewChannel { kind, name });
        self.pending.dirty.extend(members.iter().cloned());
        let body = Change::Created { members: members.clone() }.to_body();
        let sender = creator.clone();
        let entry = |seq| Message { channel, seq, id, sender, client_id: id, kind: Kind::System, body, at };
        let seq = self.append(entry, effects);
        window.insert(channel, &creator, id, seq);
        if let Some(info) = self.state().map(|state| state.info(channel)) {
            let origin = Some(origin);
            self.pending.afterwards.push(Event::Joined { channel: info, joined: members, joined_seq: 1, origin });
        }
        true
    }

    fn change(
        &mut self,
        change: ChangeTask,
        repeat_of: Option<Seq>,
        window: &mut Window,
        options: &WorkerOptions,
        effects: &mut Effects,
    ) -> bool {
        if let Some(seq) = repeat_of {
            return self.change_again(change, seq, effects);
        }
        let ChangeTask { channel, id, by, add, remove, at, origin } = change;
        let (add, remove) = (without_repeats(add), without_repeats(remove));
        if let Err((code, message)) = self.may_change(&by, &add, &remove, options) {
            effects.events.push(Event::Refused { origin, code, message });
            return false;
        }
        let Loaded::Present(state) = &mut self.loaded else { return false };
        let added: Vec<Username> = add.into_iter().filter(|user| !state.members.contains_key(user)).collect();
        let removed: Vec<Username> = remove.into_iter().filter(|user| state.members.contains_key(user)).collect();
        if added.is_empty() && removed.is_empty() {
            // Settled at once: delivered again after later changes are stored, it might find something to change.
            let (seq, info) = (self.stored_seq, state.info(channel));
            effects.events.push(members_changed(info, seq, Vec::new(), Vec::new(), by, origin));
            return false;
        }
        let seq = state.last_seq + 1;
        for user in &added {
            // Everything before the entry that adds it counts as seen: it was not there.
            let member = Member { role: Role::Member, joined_seq: seq, delivered: seq - 1, read: seq - 1 };
            state.members.insert(user.clone(), member);
        }
        for user in &removed {
            state.members.remove(user);
        }
        let heir = heir(state);
        self.pending.dirty.extend(added.iter().chain(&removed).cloned().chain(heir));
        let body = if removed.is_empty() {
            Change::Added { members: added.clone() }.to_body()
        } else {
            Change::Removed { members: removed.clone() }.to_body()
        };
        let sender = by.clone();
        let entry = |seq| Message { channel, seq, id, sender, client_id: id, kind: Kind::System, body, at };
        self.append(entry, effects);
        window.insert(channel, &by, id, seq);
        if let Some(info) = self.state().map(|state| state.info(channel)) {
            if !added.is_empty() {
                let (channel, joined) = (info.clone(), added.clone());
                self.pending.afterwards.push(Event::Joined { channel, joined, joined_seq: seq, origin: None });
            }
            self.pending.afterwards.push(members_changed(info, seq, added, removed, by, origin));
        }
        true
    }

    /// The change is in the log, but whoever put it there may have died before anybody was told. It may well not be
    /// possible any more, and part of it undone: only what still holds is said.
    fn change_again(&mut self, change: ChangeTask, seq: Seq, effects: &mut Effects) -> bool {
        let Some(state) = self.state() else { return false };
        let ChangeTask { channel, by, add, remove, origin, .. } = change;
        let mut added = without_repeats(add);
        added.retain(|user| joined_with(state, user, seq));
        let mut removed = without_repeats(remove);
        removed.retain(|user| !state.members.contains_key(user));
        let info = state.info(channel);
        let joined = (!added.is_empty()).then(|| {
            let (channel, joined) = (info.clone(), added.clone());
            Event::Joined { channel, joined, joined_seq: seq, origin: None }
        });
        let watermarks = watermarks(channel, state);
        let changed = members_changed(info, seq, added, removed, by, origin);
        self.say_once_stored(joined.into_iter().chain([changed]).chain(watermarks), effects)
    }

    /// Says at once what was decided, if all that was decided is stored; else when it is. Whether that must be waited
    /// for.
    fn say_once_stored(&mut self, events: impl IntoIterator<Item = Event>, effects: &mut Effects) -> bool {
        let is_stored = !self.flushing && self.pending.tags.is_empty();
        let said = if is_stored { &mut effects.events } else { &mut self.pending.afterwards };
        said.extend(events);
        !is_stored
    }

    fn may_change(
        &self,
        by: &Username,
        add: &[Username],
        remove: &[Username],
        options: &WorkerOptions,
    ) -> Result<(), (ErrorCode, String)> {
        let Some((state, member)) = self.state().and_then(|state| Some((state, state.members.get(by)?))) else {
            return Err((ErrorCode::NotAMember, "not a member of this channel".into()));
        };
        if state.kind == ChannelKind::Direct {
            return Err((ErrorCode::Conflict, "a direct channel always has the same two members".into()));
        }
        if !add.is_empty() && !remove.is_empty() {
            // An entry says one of the two.
            return Err((ErrorCode::Invalid, "members are added or removed, not both at once".into()));
        }
        if member.role != Role::Owner && remove.iter().any(|user| user != by) {
            return Err((ErrorCode::Forbidden, "only an owner of the channel removes others".into()));
        }
        let coming = add.iter().filter(|user| !state.members.contains_key(user)).count();
        if state.members.len() + coming > options.max_members {
            return Err((ErrorCode::TooLarge, format!("a channel has at most {} members", options.max_members)));
        }
        Ok(())
    }

    /// `again`: what it raised may be stored since an earlier delivery, and nobody was told.
    fn receipts(&mut self, receipts: &ReceiptsTask, again: bool, effects: &mut Effects) -> bool {
        let Loaded::Present(state) = &mut self.loaded else { return false };
        let head = state.last_seq;
        let mut raised = false;
        for (user, delivered, read) in &receipts.marks {
            let Some(member) = state.members.get_mut(user) else { continue };
            // What is read has been delivered.
            let delivered = (*delivered).max(*read).min(head);
            let read = (*read).min(head);
            if delivered > member.delivered || read > member.read {
                member.delivered = member.delivered.max(delivered);
                member.read = member.read.max(read);
                self.pending.dirty.insert(user.clone());
                raised = true;
            }
        }
        if again && let Some(watermarks) = watermarks(self.id, state) {
            if raised {
                self.pending.afterwards.push(watermarks);
            } else {
                return self.say_once_stored([watermarks], effects);
            }
        }
        raised
    }

    fn append(&mut self, entry: impl FnOnce(Seq) -> Message, effects: &mut Effects) -> Seq {
        let Loaded::Present(state) = &mut self.loaded else { return 0 };
        state.last_seq += 1;
        let seq = state.last_seq;
        let entry = Arc::new(entry(seq));
        if let Some(sender) = state.members.get_mut(&entry.sender) {
            // One's own message is no news to oneself; but nothing before it is taken as seen.
            if sender.delivered == seq - 1 {
                sender.delivered = seq;
                self.pending.dirty.insert(entry.sender.clone());
            }
            if sender.read == seq - 1 {
                sender.read = seq;
                self.pending.dirty.insert(entry.sender.clone());
            }
        }
        self.pending.entries.push(Arc::clone(&entry));
        effects.events.push(Event::Message(entry));
        seq
    }

    /// What is to be stored next, if anything is and no flush of this channel is under way.
    pub(super) fn next_flush(&mut self, options: &WorkerOptions) -> Option<Flush> {
        if self.flushing || self.pending.tags.is_empty() {
            return None;
        }
        let Loaded::Present(state) = &mut self.loaded else { return None };
        let Pending { create, entries, dirty, tags, mut afterwards } = std::mem::take(&mut self.pending);
        afterwards.extend(raise_watermarks(self.id, state, options));
        let (members, departed): (Vec<_>, Vec<_>) =
            dirty.into_iter().partition(|user| state.members.contains_key(user));
        let members =
            members.into_iter().filter_map(|user| state.members.get(&user).cloned().map(|m| (user, m))).collect();
        let batch = ChannelBatch {
            channel: self.id,
            create,
            entries,
            members,
            departed,
            delivered_by_all: state.delivered_by_all,
            read_by_all: state.read_by_all,
        };
        self.flushing = true;
        Some(Flush { batch: Arc::new(batch), tags, afterwards })
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

/// What a second run of the task is recognised by.
fn identity(task: &Task) -> Option<(&Username, Uuid)> {
    match task {
        Task::Send(send) => Some((&send.sender, send.client_id)),
        Task::Change(change) => Some((&change.by, change.id)),
        Task::Create(create) => create.members.first().map(|creator| (creator, create.id)),
        Task::Receipts(_) | Task::Index(_) => None,
    }
}

/// One task for entries that follow each other.
fn index_again(tasks: &mut Vec<IndexTask>, channel: ChannelId, seq: Seq) {
    match tasks.last_mut() {
        Some(last) if last.channel == channel && last.last + 1 == seq => last.last = seq,
        _ => tasks.push(IndexTask { channel, first: seq, last: seq }),
    }
}

/// The first of each.
fn without_repeats(mut users: Vec<Username>) -> Vec<Username> {
    let mut seen = BTreeSet::new();
    users.retain(|user| seen.insert(user.clone()));
    users
}

/// Whether the user is a member since that very entry.
fn joined_with(state: &ChannelState, user: &Username, seq: Seq) -> bool {
    state.members.get(user).is_some_and(|member| member.joined_seq == seq)
}

/// What all members have, as it was last worked out.
fn watermarks(channel: ChannelId, state: &ChannelState) -> Option<Event> {
    let known = |seq: Seq| (seq > 0).then_some(seq);
    let (delivered, read) = (known(state.delivered_by_all), known(state.read_by_all));
    (delivered.is_some() || read.is_some()).then_some(Event::Watermarks { channel, delivered, read })
}

fn members_changed(
    channel: crate::wire::frame::ChannelInfo,
    seq: Seq,
    added: Vec<Username>,
    removed: Vec<Username>,
    by: Username,
    origin: Origin,
) -> Event {
    Event::MembersChanged { channel, seq, added, removed, by, origin: Some(origin) }
}

/// A group that its last owner left goes to the member who has been there longest.
fn heir(state: &mut ChannelState) -> Option<Username> {
    if state.members.values().any(|member| member.role == Role::Owner) {
        return None;
    }
    let (user, member) = state.members.iter_mut().min_by_key(|(_, member)| member.joined_seq)?;
    member.role = Role::Owner;
    Some(user.clone())
}

/// The minimum over the members, if it has risen. Not worked out for large channels: it is a walk over all members,
/// and one who is away would hold it back for ever.
fn raise_watermarks(id: ChannelId, state: &mut ChannelState, options: &WorkerOptions) -> Option<Event> {
    if state.members.is_empty() || state.members.len() > options.max_receipt_members {
        return None;
    }
    let lowest = |mark: fn(&Member) -> Seq| state.members.values().map(mark).min().unwrap_or(0);
    let (delivered, read) = (lowest(|member| member.delivered), lowest(|member| member.read));
    let risen = |new: Seq, old: Seq| (new > old).then_some(new);
    let (delivered, read) = (risen(delivered, state.delivered_by_all), risen(read, state.read_by_all));
    if delivered.is_none() && read.is_none() {
        return None;
    }
    state.delivered_by_all = delivered.unwrap_or(state.delivered_by_all);
    state.read_by_all = read.unwrap_or(state.read_by_all);
    Some(Event::Watermarks { channel: id, delivered, read })
}
