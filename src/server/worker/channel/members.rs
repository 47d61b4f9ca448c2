//! Who is in the channel: making it, and changing its members.

use std::collections::{BTreeMap, BTreeSet};

use super::watermarks::watermarks;
use super::{Channel, Effects, Loaded};
use crate::message::{Change, ChannelKind, Kind, Message, Role, Seq, Username};
use crate::server::events::Event;
use crate::server::queue::{ChangeTask, CreateTask, Origin};
use crate::server::store::{ChannelState, Earlier, NewChannel, Refused};
use crate::server::worker::WorkerOptions;
use crate::server::worker::window::Window;
use crate::wire::ErrorCode;

impl Channel {
    pub(super) fn create(
        &mut self,
        create: CreateTask,
        repeat_of: Option<Earlier>,
        window: &mut Window,
        effects: &mut Effects,
    ) -> bool {
        let CreateTask { channel, id, kind, name, members, at, origin } = create;
        let members = without_repeats(members);
        let Some(creator) = members.first().cloned() else { return false };
        if let Loaded::Present(state) = &self.loaded {
            let joined: Vec<Username> = match repeat_of {
                // Done again: whoever did it first may have died before anybody was told.
                Some(Earlier::Stored(seq)) => {
                    members.into_iter().filter(|user| joined_with(state, user, seq)).collect()
                }
                // Asked for again: the requester alone is told, unless it has left since.
                _ => members.into_iter().take(1).filter(|user| state.members.contains_key(user)).collect(),
            };
            let Some(joined_seq) = joined.first().and_then(|user| state.members.get(user)).map(|m| m.joined_seq) else {
                return false;
            };
            let joined = Event::Joined { channel: state.info(channel), joined, joined_seq, origin: Some(origin) };
            return self.say_once_stored([joined], effects);
        }
        self.loaded = Loaded::Present(ChannelState {
            kind,
            name: name.clone(),
            last_seq: 0,
            members: BTreeMap::new(),
            delivered_by_all: 0,
            read_by_all: 0,
        });
        self.pending.create = Some(NewChannel { kind, name });
        let body = Change::Created { members: members.clone() }.to_body();
        let sender = creator.clone();
        let entry = |seq| Message { channel, seq, id, sender, client_id: id, kind: Kind::System, body, at };
        let seq = self.append_change(entry, effects);
        window.insert(channel, &creator, id, at, Earlier::Stored(seq));
        if let Some(info) = self.state().map(|state| state.info(channel)) {
            let origin = Some(origin);
            self.pending.afterwards.push(Event::Joined { channel: info, joined: members, joined_seq: 1, origin });
        }
        true
    }

    pub(super) fn change(
        &mut self,
        change: ChangeTask,
        repeat_of: Option<Earlier>,
        window: &mut Window,
        options: &WorkerOptions,
        effects: &mut Effects,
    ) -> bool {
        match repeat_of {
            None => {}
            Some(Earlier::Stored(seq)) => return self.change_again(change, seq, effects),
            Some(Earlier::Refused(code)) => {
                let said = self.refused_before(change, code);
                return self.say_once_stored([said], effects);
            }
        }
        let ChangeTask { channel, id, by, add, remove, at, origin } = change;
        let (add, remove) = (without_repeats(add), without_repeats(remove));
        if let Err((code, message)) = self.may_change(&by, &add, &remove, options) {
            let refused = Refused { sender: by, client_id: id, code: Some(code), at };
            return self.refuse(refused, Event::Refused { origin, code, message }, window);
        }
        let Loaded::Present(state) = &self.loaded else { return false };
        let added: Vec<Username> = add.into_iter().filter(|user| !state.members.contains_key(user)).collect();
        let removed: Vec<Username> = remove.into_iter().filter(|user| state.members.contains_key(user)).collect();
        if added.is_empty() && removed.is_empty() {
            let (seq, info) = (state.last_seq, state.info(channel));
            let refused = Refused { sender: by.clone(), client_id: id, code: None, at };
            let said = members_changed(info, seq, Vec::new(), Vec::new(), by, origin);
            return self.refuse(refused, said, window);
        }
        let seq = state.last_seq + 1;
        let body = if removed.is_empty() {
            Change::Added { members: added.clone() }.to_body()
        } else {
            Change::Removed { members: removed.clone() }.to_body()
        };
        let sender = by.clone();
        let entry = |seq| Message { channel, seq, id, sender, client_id: id, kind: Kind::System, body, at };
        self.append_change(entry, effects);
        window.insert(channel, &by, id, at, Earlier::Stored(seq));
        if let Some(info) = self.state().map(|state| state.info(channel)) {
            if !added.is_empty() {
                let (channel, joined) = (info.clone(), added.clone());
                self.pending.afterwards.push(Event::Joined { channel, joined, joined_seq: seq, origin: None });
            }
            self.pending.afterwards.push(members_changed(info, seq, added, removed, by, origin));
        }
        true
    }

    fn refused_before(&self, change: ChangeTask, code: Option<ErrorCode>) -> Event {
        let ChangeTask { channel, by, origin, .. } = change;
        match (code, self.state()) {
            (None, Some(state)) => {
                members_changed(state.info(channel), state.last_seq, Vec::new(), Vec::new(), by, origin)
            }
            (code, _) => {
                let code = code.unwrap_or(ErrorCode::Conflict);
                Event::Refused { origin, code, message: "this change was refused before".into() }
            }
        }
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
