//! A corner of a store that others use, too: the contract's users and channels under names of their own.

use super::super::{Extent, Membership, PurgeRecord, Removed};
use super::*;
use crate::message::Change;
use crate::wire::frame::ChannelInfo;

/// Translates names and ids on the way in and on the way out.
pub struct Renamed<S: ?Sized = dyn Store> {
    pub inner: Arc<S>,
    pub corner: Corner,
}

#[derive(Debug, Clone)]
pub struct Corner {
    /// Before every username: the order of names stays.
    prefix: String,
    mask: u128,
}

impl Corner {
    pub fn new() -> Self {
        let mask = Uuid::new_v4().as_u128();
        Self { prefix: format!("t{:07x}.", mask as u32 >> 4), mask }
    }

    pub fn id(&self, id: ChannelId) -> ChannelId {
        ChannelId(Uuid::from_u128(id.0.as_u128() ^ self.mask))
    }

    pub fn name(&self, name: &Username) -> Username {
        user(&format!("{}{name}", self.prefix))
    }

    fn back(&self, name: &Username) -> Username {
        user(name.as_str().strip_prefix(&self.prefix).unwrap())
    }

    fn entry(&self, entry: &Message, name: impl Fn(&Username) -> Username) -> Message {
        let names = |members: Vec<Username>| members.iter().map(&name).collect();
        let body = match Change::of(entry) {
            None => entry.body.clone(),
            Some(Change::Created { members }) => Change::Created { members: names(members) }.to_body(),
            Some(Change::Added { members }) => Change::Added { members: names(members) }.to_body(),
            Some(Change::Removed { members }) => Change::Removed { members: names(members) }.to_body(),
        };
        Message { channel: self.id(entry.channel), sender: name(&entry.sender), body, ..entry.clone() }
    }

    fn info(&self, info: ChannelInfo) -> ChannelInfo {
        let members = info.members.iter().map(|name| self.back(name)).collect();
        ChannelInfo { id: self.id(info.id), members, ..info }
    }

    fn batch(&self, batch: &ChannelBatch) -> ChannelBatch {
        let entry = |entry: &Arc<Message>| Arc::new(self.entry(entry, |name| self.name(name)));
        let refused = |refused: &Refused| Refused { sender: self.name(&refused.sender), ..refused.clone() };
        ChannelBatch {
            channel: self.id(batch.channel),
            entries: batch.entries.iter().map(entry).collect(),
            members: batch.members.iter().map(|(name, member)| (self.name(name), member.clone())).collect(),
            departed: batch.departed.iter().map(|name| self.name(name)).collect(),
            refused: batch.refused.iter().map(refused).collect(),
            ..batch.clone()
        }
    }
}

#[async_trait]
impl Store for Renamed<dyn Store> {
    async fn channel(&self, id: ChannelId) -> Result<Option<ChannelState>, StoreError> {
        let state = self.inner.channel(self.corner.id(id)).await?;
        Ok(state.map(|state| {
            let members = state.members.into_iter().map(|(name, member)| (self.corner.back(&name), member)).collect();
            ChannelState { members, ..state }
        }))
    }

    async fn append(&self, batch: Arc<ChannelBatch>) -> Result<(), StoreError> {
        let outcome = self.inner.append(Arc::new(self.corner.batch(&batch))).await;
        outcome.map_err(|error| match error {
            StoreError::Conflict(id) => StoreError::Conflict(self.corner.id(id)),
            other => other,
        })
    }

    async fn find_sends(
        &self,
        id: ChannelId,
        sends: Vec<(Username, Uuid)>,
    ) -> Result<Vec<Option<Earlier>>, StoreError> {
        let sends = sends.iter().map(|(name, client_id)| (self.corner.name(name), *client_id)).collect();
        self.inner.find_sends(self.corner.id(id), sends).await
    }

    async fn messages(&self, id: ChannelId, page: Page, limit: usize) -> Result<Vec<Message>, StoreError> {
        let messages = self.inner.messages(self.corner.id(id), page, limit).await?;
        Ok(messages.iter().map(|entry| self.corner.entry(entry, |name| self.corner.back(name))).collect())
    }

    async fn role(&self, id: ChannelId, user: &Username) -> Result<Option<(ChannelKind, Role)>, StoreError> {
        self.inner.role(self.corner.id(id), &self.corner.name(user)).await
    }

    async fn channels_of(&self, user: &Username, offset: usize, limit: usize) -> Result<Vec<Membership>, StoreError> {
        let listed = self.inner.channels_of(&self.corner.name(user), offset, limit).await?;
        let back = |listed: Membership| Membership { channel: self.corner.info(listed.channel.clone()), ..listed };
        Ok(listed.into_iter().map(back).collect())
    }

    async fn memberships(&self, user: &Username) -> Result<Vec<ChannelId>, StoreError> {
        let ids = self.inner.memberships(&self.corner.name(user)).await?;
        Ok(ids.into_iter().map(|id| self.corner.id(id)).collect())
    }

    async fn channel_counts(&self, users: Vec<Username>) -> Result<Vec<usize>, StoreError> {
        self.inner.channel_counts(users.iter().map(|name| self.corner.name(name)).collect()).await
    }
}

#[async_trait]
impl Scan for Renamed<dyn Scan> {
    async fn parts(&self, wanted: usize) -> Result<Vec<Part>, StoreError> {
        self.inner.parts(wanted).await
    }

    async fn channels(&self, part: Part, after: Option<Cursor>, limit: usize) -> Result<Vec<Scanned>, StoreError> {
        let found = self.inner.channels(part, after, limit).await?;
        // Cursors are the store's own.
        Ok(found.into_iter().map(|found| Scanned { channel: self.corner.id(found.channel), ..found }).collect())
    }
}

#[async_trait]
impl Purge for Renamed<dyn Purge> {
    async fn extent(&self, id: ChannelId) -> Result<Option<Extent>, StoreError> {
        self.inner.extent(self.corner.id(id)).await
    }

    async fn remove(&self, id: ChannelId, through: Seq, limit: usize) -> Result<Removed, StoreError> {
        self.inner.remove(self.corner.id(id), through, limit).await
    }

    async fn keep(&self, record: PurgeRecord) -> Result<(), StoreError> {
        self.inner.keep(PurgeRecord { channel: self.corner.id(record.channel), ..record }).await
    }

    async fn records(&self, of: Option<ChannelId>, limit: usize) -> Result<Vec<PurgeRecord>, StoreError> {
        let found = self.inner.records(of.map(|id| self.corner.id(id)), limit).await?;
        let back = |record: PurgeRecord| PurgeRecord { channel: self.corner.id(record.channel), ..record };
        Ok(found.into_iter().map(back).collect())
    }
}
