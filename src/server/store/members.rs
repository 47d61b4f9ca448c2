//! What an entry does to its channel: the one place that says so, for the owner that appends it and for a store that
//! has to work out again what an entry meant.

use std::collections::BTreeSet;

use super::{ChannelState, Member};
use crate::message::{Change, ChannelKind, Message, Role, Seq, Username};

impl ChannelState {
    /// Takes in the next entry. The members whom it concerns: who came, who went, who has a new role or new
    /// watermarks.
    pub fn apply(&mut self, entry: &Message) -> BTreeSet<Username> {
        self.last_seq = entry.seq;
        let mut concerned = match Change::of(entry) {
            Some(change) => self.change(change, &entry.sender, entry.seq),
            None => BTreeSet::new(),
        };
        if let Some(sender) = self.members.get_mut(&entry.sender) {
            // One's own message is no news to oneself; but nothing before it is taken as seen.
            for mark in [&mut sender.delivered, &mut sender.read] {
                if *mark + 1 == entry.seq {
                    *mark = entry.seq;
                    concerned.insert(entry.sender.clone());
                }
            }
        }
        concerned
    }

    fn change(&mut self, change: Change, by: &Username, seq: Seq) -> BTreeSet<Username> {
        // Everything before the entry that adds it counts as seen: it was not there.
        let newcomer = |role| Member { role, joined_seq: seq, delivered: seq - 1, read: seq - 1 };
        match change {
            Change::Created { members } => {
                for user in &members {
                    let is_owner = self.kind == ChannelKind::Direct || user == by;
                    let role = if is_owner { Role::Owner } else { Role::Member };
                    self.members.entry(user.clone()).or_insert(newcomer(role));
                }
                members.into_iter().collect()
            }
            Change::Added { members } => {
                for user in &members {
                    self.members.entry(user.clone()).or_insert(newcomer(Role::Member));
                }
                members.into_iter().collect()
            }
            Change::Removed { members } => {
                for user in &members {
                    self.members.remove(user);
                }
                let heir = self.heir();
                members.into_iter().chain(heir).collect()
            }
        }
    }

    /// A group that its last owner left goes to the member who has been there longest.
    fn heir(&mut self) -> Option<Username> {
        if self.members.values().any(|member| member.role == Role::Owner) {
            return None;
        }
        let (user, member) = self.members.iter_mut().min_by_key(|(_, member)| member.joined_seq)?;
        member.role = Role::Owner;
        Some(user.clone())
    }
}
