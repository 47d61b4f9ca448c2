//! How far the members have come.

use super::{Channel, Effects, Loaded};
use crate::message::{ChannelId, Seq};
use crate::server::events::Event;
use crate::server::queue::ReceiptsTask;
use crate::server::store::{ChannelState, Member};
use crate::server::worker::WorkerOptions;

impl Channel {
    /// `again`: what it raised may be stored since an earlier delivery, and nobody was told.
    pub(super) fn receipts(&mut self, receipts: &ReceiptsTask, again: bool, effects: &mut Effects) -> bool {
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
}

/// What all members have, as it was last worked out.
pub(super) fn watermarks(channel: ChannelId, state: &ChannelState) -> Option<Event> {
    let known = |seq: Seq| (seq > 0).then_some(seq);
    let (delivered, read) = (known(state.delivered_by_all), known(state.read_by_all));
    (delivered.is_some() || read.is_some()).then_some(Event::Watermarks { channel, delivered, read })
}

/// The minimum over the members, if it has risen. Not worked out for large channels: it is a walk over all members,
/// and one who is away would hold it back for ever.
pub(super) fn raise_watermarks(id: ChannelId, state: &mut ChannelState, options: &WorkerOptions) -> Option<Event> {
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
