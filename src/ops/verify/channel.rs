//! One channel: its log from the first entry to the head, and whether the tables beside it say the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;

use super::finding::{Finding, Stay, What};
use super::suspects::IndexLook;
use crate::message::{ChannelId, Kind, Message, Seq, Username};
use crate::server::backends::Stored;
use crate::server::search::audit::Slice;
use crate::server::store::{ChannelState, Extent, Member, Page};

/// Entries read at once.
const PAGE: usize = 500;
/// Holes that are told apart in a channel; what comes behind is told as one.
const HOLES: usize = 100;
/// Entries that are compared with the index at once: no more are kept.
const COMPARED: usize = 4_000;

/// Where a channel's log begins.
fn first_seq(extent: &Extent) -> Seq {
    extent.purged_seq + 1
}

/// Looks at channels.
pub struct Eyes {
    pub stored: Arc<Stored>,
    /// Above so many members what all have is not worked out.
    pub max_receipt_members: usize,
    /// Entries that were looked at the first time.
    pub entries: AtomicU64,
}

/// What a look at a channel brought.
#[derive(Default)]
pub struct Seen {
    /// As of which it was judged.
    pub head: Seq,
    pub findings: Vec<Finding>,
    /// What is still to be compared with the index.
    pub slices: Vec<Slice>,
}

impl Eyes {
    /// The channel as it is now; `index` for a look that compares with the index, too, as far as slices are many: the
    /// rest is given back. What is found may be under way: only what is found again is so.
    pub async fn look(&self, id: ChannelId, index: Option<&IndexLook>, thorough: bool) -> anyhow::Result<Seen> {
        let audit = &self.stored.audit;
        let Some(extent) = audit.extent(id).await? else { return Ok(Seen::default()) };
        let Some(state) = audit.picture(id).await? else { return Ok(Seen::default()) };
        let (mut log, slices) = self.walk(id, &extent, &state, index).await?;
        let mut found = std::mem::take(&mut log.holes);
        if let Some(next) = audit.next_seq(id, state.last_seq, Seq::MAX).await? {
            found.push(What::HeadBehind { head: state.last_seq, next });
        }
        let is_judged = found.is_empty();
        if is_judged {
            members(&log, &state, &mut found);
        }
        let are_members_right = found.is_empty();
        // Of a head that is behind, all that came after it seems to be ahead.
        if !found.iter().any(|what| matches!(what, What::HeadBehind { .. })) {
            watermarks(&log, &state, is_judged, &mut found);
        }
        if are_members_right && found.is_empty() {
            self.by_all(&state, &mut found);
        }
        let right = if is_judged { &log.replay } else { &state };
        let others = if thorough { log.others(right) } else { Vec::new() };
        self.lists(id, right, others, &mut found).await?;
        let findings = found.into_iter().map(|what| Finding { channel: Some(id), what }).collect();
        Ok(Seen { head: state.last_seq, findings, slices })
    }

    async fn walk(
        &self,
        id: ChannelId,
        extent: &Extent,
        state: &ChannelState,
        index: Option<&IndexLook>,
    ) -> anyhow::Result<(Log, Vec<Slice>)> {
        let (store, head) = (&self.stored.store, state.last_seq);
        let mut log = Log::new(extent, state);
        let mut expected = first_seq(extent);
        let (mut slices, mut compared_to, mut kept) = (Vec::new(), 0, 0);
        while expected <= head {
            let page = store.messages(id, Page::After(expected - 1), PAGE).await?;
            let (is_short, mut entries) = (page.len() < PAGE, Vec::new());
            let before = expected;
            for entry in page.into_iter().take_while(|entry| entry.seq <= head) {
                log.hole(expected, entry.seq);
                log.take_in(&entry);
                expected = entry.seq + 1;
                if index.is_some() && entry.kind == Kind::Text {
                    entries.push((entry.seq, entry.id));
                }
            }
            if is_short && expected <= head {
                let next = self.stored.audit.next_seq(id, expected - 1, head).await?.unwrap_or(head + 1);
                log.hole(expected, next);
                expected = next;
            }
            // What is found there and can't be read would be looked for without end.
            anyhow::ensure!(expected > before, "entry {expected} of the channel {id} can't be read");
            let Some(index) = index else { continue };
            self.entries.fetch_add(expected - before, Ordering::Relaxed);
            kept += entries.len();
            let through = if expected > head { Seq::MAX } else { expected - 1 };
            slices.push(Slice { channel: id, after: compared_to, through, entries });
            compared_to = expected - 1;
            if kept >= COMPARED {
                index.compare(std::mem::take(&mut slices)).await?;
                kept = 0;
            }
        }
        if index.is_some() && compared_to == 0 && head > 0 {
            // Everything was purged: nothing of it belongs in the index.
            slices.push(Slice { channel: id, after: 0, through: Seq::MAX, entries: Vec::new() });
        }
        Ok((log, slices))
    }

    fn by_all(&self, state: &ChannelState, found: &mut Vec<What>) {
        let least = |mark: fn(&Member) -> Seq| state.members.values().map(mark).min();
        let (Some(least_delivered), Some(least_read)) = (least(|member| member.delivered), least(|member| member.read))
        else {
            return;
        };
        let (delivered, read) = (state.delivered_by_all, state.read_by_all);
        let is_kept = state.members.len() <= self.max_receipt_members;
        let is_wrong = |told: Seq, least: Seq| told > least || (is_kept && told < least);
        if is_wrong(delivered, least_delivered) || is_wrong(read, least_read) {
            found.push(What::ByAll { delivered, read, least_delivered, least_read });
        }
    }

    /// `others`: who once was a member.
    async fn lists(
        &self,
        id: ChannelId,
        right: &ChannelState,
        others: Vec<Username>,
        found: &mut Vec<What>,
    ) -> anyhow::Result<()> {
        let users: Vec<Username> = right.members.keys().cloned().chain(others).collect();
        let listed = self.stored.audit.listed(id, users.clone()).await.context("the lists of users can't be read")?;
        for (user, listed) in users.into_iter().zip(listed) {
            match (right.members.get(&user), listed) {
                (Some(member), listed) if listed != Some(member.joined_seq) => {
                    found.push(What::NotListed { user, joined_seq: member.joined_seq });
                }
                (None, Some(_)) => found.push(What::Listed { user }),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What the log says, up to where it was read.
struct Log {
    /// Members as the entries made them.
    replay: ChannelState,
    /// Whether it was read from its very beginning: if not, who was there before is taken from the members.
    is_whole: bool,
    holes: Vec<What>,
    seen: std::collections::BTreeSet<Username>,
}

/// Users who once were members, at most: those of the other lists are found by walking through these.
const SEEN: usize = 10_000;

impl Log {
    fn new(extent: &Extent, state: &ChannelState) -> Self {
        let mut replay = ChannelState { last_seq: extent.purged_seq, ..state.clone() };
        replay.members.retain(|_, member| member.joined_seq <= extent.purged_seq);
        Self { replay, is_whole: extent.purged_seq == 0, holes: Vec::new(), seen: std::collections::BTreeSet::new() }
    }

    fn take_in(&mut self, entry: &Message) {
        let concerned = self.replay.apply(entry);
        if entry.kind == Kind::System && self.seen.len() < SEEN {
            self.seen.extend(concerned);
        }
    }

    /// From `expected` up to before `next` nothing is there.
    fn hole(&mut self, expected: Seq, next: Seq) {
        if next <= expected {
            return;
        }
        let (first, last) = (expected, next - 1);
        let are_many = self.holes.len() >= HOLES;
        match self.holes.last_mut() {
            Some(What::Hole { last: end, .. }) if are_many || *end + 1 == first => *end = last,
            _ => self.holes.push(What::Hole { first, last }),
        }
    }

    fn others(&self, members: &ChannelState) -> Vec<Username> {
        self.seen.iter().filter(|user| !members.members.contains_key(*user)).cloned().collect()
    }
}

/// The channel's members against those of the log.
fn members(log: &Log, state: &ChannelState, found: &mut Vec<What>) {
    for (user, right) in &log.replay.members {
        let there = state.members.get(user);
        let same_stay = there.filter(|there| there.joined_seq == right.joined_seq);
        if same_stay.is_some_and(|there| !log.is_whole || there.role == right.role) {
            continue;
        }
        // Watermarks that are there count for this stay alone.
        let known = |mark: fn(&Member) -> Seq| same_stay.map_or(0, mark).max(mark(right)).min(state.last_seq);
        let member =
            Member { delivered: known(|member| member.delivered), read: known(|member| member.read), ..right.clone() };
        let (user, joined_seq) = (user.clone(), right.joined_seq);
        let found_stay = there.map(|there| Stay { joined_seq: there.joined_seq, role: there.role });
        found.push(What::Member { user, joined_seq, member, found: found_stay });
    }
    for (user, there) in &state.members {
        if !log.replay.members.contains_key(user) {
            found.push(What::NoMember { user: user.clone(), joined_seq: there.joined_seq });
        }
    }
}

/// Each member's against what the log leaves room for.
fn watermarks(log: &Log, state: &ChannelState, is_judged: bool, found: &mut Vec<What>) {
    for (user, there) in &state.members {
        // One's own messages are no news to oneself: with the whole log it is known how far that goes.
        let least = log.replay.members.get(user).filter(|right| is_judged && log.is_whole && same_stay(right, there));
        let before = there.joined_seq.saturating_sub(1);
        let bounded = |mark: fn(&Member) -> Seq| {
            mark(there).max(before).max(least.map_or(0, mark)).min(state.last_seq.max(before))
        };
        let read = bounded(|member| member.read);
        // What is read has been delivered.
        let delivered = bounded(|member| member.delivered).max(read);
        if (delivered, read) != (there.delivered, there.read) {
            let member = Member { delivered, read, ..there.clone() };
            found.push(What::Watermarks { user: user.clone(), delivered: there.delivered, read: there.read, member });
        }
    }
}

fn same_stay(one: &Member, other: &Member) -> bool {
    one.joined_seq == other.joined_seq
}
