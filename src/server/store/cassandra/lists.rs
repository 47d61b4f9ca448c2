//! The channels of a user.

use std::cmp::Reverse;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use uuid::Uuid;

use super::heads::Head;
use super::partition::{PartitionRow, READINGS, changes_too_fast, picture};
use super::{CONCURRENCY, Inner, StoreError};
use crate::message::{ChannelId, Seq, Username};
use crate::server::store::{Known, KnownChannel, LISTED_MEMBERS, Member, Membership};
use crate::wire::frame::ChannelInfo;

impl Inner {
    pub(super) async fn memberships(&self, user: &Username) -> Result<Vec<ChannelId>, StoreError> {
        let rows: Vec<(Uuid,)> = self.rows(&self.statements.channels_of, (user.as_str(),)).await?;
        Ok(rows.into_iter().map(|(id,)| ChannelId(id)).collect())
    }

    pub(super) async fn channel_counts(&self, users: Vec<Username>) -> Result<Vec<usize>, StoreError> {
        let count = |user: Username| async move {
            let rows: Vec<(i64,)> = self.rows(&self.statements.count_channels, (user.as_str(),)).await?;
            Ok::<_, StoreError>(rows.first().map_or(0, |(count,)| *count as usize))
        };
        let counts: Vec<_> = users.into_iter().map(count).collect();
        stream::iter(counts).buffered(CONCURRENCY).try_collect().await
    }

    /// The most recently active first.
    pub(super) async fn list(&self, user: &Username, known: Option<&dyn Known>) -> Result<Vec<Membership>, StoreError> {
        let ids = self.memberships(user).await?;
        let read = |id: ChannelId| {
            let known = known.and_then(|known| known.channel(id));
            async move {
                match known {
                    Some(known) => self.membership_known(id, user, known).await,
                    None => self.membership(id, user).await,
                }
            }
        };
        let memberships: Vec<_> = ids.into_iter().map(read).collect();
        let found: Vec<Option<Membership>> =
            stream::iter(memberships).buffer_unordered(CONCURRENCY).try_collect().await?;
        let mut found: Vec<Membership> = found.into_iter().flatten().collect();
        found.sort_unstable_by_key(|membership| Reverse((membership.last_at, membership.channel.id)));
        Ok(found)
    }

    async fn membership_known(
        &self,
        id: ChannelId,
        user: &Username,
        known: KnownChannel,
    ) -> Result<Option<Membership>, StoreError> {
        let Some((_, last_seq, member)) = self.member(id, user).await? else { return Ok(None) };
        if last_seq > known.info.last_seq {
            // Events are late, or don't come: what they brought is out of date.
            return self.membership(id, user).await;
        }
        let KnownChannel { info, last_at, delivered_by_all, read_by_all } = known;
        let Member { delivered, read, .. } = member;
        Ok(Some(Membership {
            channel: info,
            last_at,
            delivered_seq: delivered,
            read_seq: read,
            delivered_by_all,
            read_by_all,
        }))
    }

    /// `None` if the user is not in it: the list may say so a moment before, and a moment after.
    async fn membership(&self, id: ChannelId, user: &Username) -> Result<Option<Membership>, StoreError> {
        // Rows without a role are rare leftovers: a few more rows than members that are listed.
        const ROWS: i32 = LISTED_MEMBERS as i32 + 20;
        for _ in 0..READINGS {
            let rows: Vec<PartitionRow> = self.rows(&self.statements.first_members, (id.0, ROWS)).await?;
            let is_all = rows.len() < ROWS as usize;
            let Some(first) = picture(&rows)? else { return Ok(None) };
            let Some(head) = first.head else { return Ok(None) };
            let (own, count) = if is_all {
                (first.members.get(user).cloned(), first.members.len())
            } else {
                let own = self.member(id, user).await?.filter(|(_, last_seq, _)| *last_seq == head.last_seq);
                let Some(count) = self.count_members(id, head.last_seq).await? else { continue };
                (own.map(|(_, _, member)| member), count)
            };
            let Some(Member { delivered, read, .. }) = own else { return Ok(None) };
            let Head { last_seq, last_at, delivered_by_all, read_by_all } = head;
            let members = first.members.into_keys().take(LISTED_MEMBERS).collect();
            let channel = ChannelInfo {
                id,
                kind: first.kind,
                name: first.name,
                members,
                member_count: count,
                last_seq,
                purged_seq: first.purged_seq,
            };
            return Ok(Some(Membership {
                channel,
                last_at,
                delivered_seq: delivered,
                read_seq: read,
                delivered_by_all,
                read_by_all,
            }));
        }
        Err(changes_too_fast())
    }

    /// `None` if the head is another by now.
    async fn count_members(&self, id: ChannelId, head: Seq) -> Result<Option<usize>, StoreError> {
        let rows: Vec<(i64, Option<i64>)> = self.rows(&self.statements.count_members, (id.0,)).await?;
        Ok(rows.first().filter(|(_, last_seq)| *last_seq == Some(head as i64)).map(|(count, _)| *count as usize))
    }
}
