use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Gateway, Refusal, Session, queued};
use crate::message::{ChannelId, ChannelKind, Millis, Role, Username};
use crate::server::auth::AccountsError;
use crate::server::queue::{ChangeTask, CreateTask, Family, Lane, Origin, QueueError, Task};
use crate::wire::request::CreateChannel;
use crate::wire::{ErrorCode, Frame};

impl Gateway {
    pub(super) async fn create_channel(
        &self,
        session: &Arc<Session>,
        reference: Option<u64>,
        create: CreateChannel,
    ) -> Result<Option<Frame>, Refusal> {
        let CreateChannel { kind, name, members: others } = create;
        let me = session.username().clone();
        let mut members = vec![me.clone()];
        for other in others {
            if !members.contains(&other) {
                members.push(other);
            }
        }
        let channel = match kind {
            ChannelKind::Direct => direct(&members, name.as_deref())?,
            ChannelKind::Group => self.group(&members, name.as_deref())?,
        };
        // Being in it already, as with a direct channel that is asked for again, needs no more checks.
        if session.room(channel).is_none() {
            self.check_joining(channel, &members).await?;
        }
        let origin = Origin { session: session.id, reference };
        let task = CreateTask { channel, id: Uuid::now_v7(), kind, name, members, at: Millis::now(), origin };
        self.queue_task(channel, Task::Create(task), session, reference).await
    }

    fn group(&self, members: &[Username], name: Option<&str>) -> Result<ChannelId, Refusal> {
        if !self.config.features.groups {
            return Err(Refusal::new(ErrorCode::Forbidden, "groups are switched off on this server"));
        }
        let limits = &self.config.channels;
        match name {
            None => return Err(Refusal::new(ErrorCode::Invalid, "a group has a name")),
            Some(name) if name.trim().is_empty() => {
                return Err(Refusal::new(ErrorCode::Invalid, "a group's name is not empty"));
            }
            Some(name) if name.len() > limits.max_name_bytes => {
                let message = format!("a name has at most {} bytes", limits.max_name_bytes);
                return Err(Refusal::new(ErrorCode::TooLarge, message));
            }
            Some(_) => {}
        }
        if members.len() > limits.max_members {
            let message = format!("a channel has at most {} members", limits.max_members);
            return Err(Refusal::new(ErrorCode::TooLarge, message));
        }
        Ok(ChannelId::new_group())
    }

    /// Whether these users exist, and may be in one more channel.
    async fn check_joining(&self, channel: ChannelId, users: &[Username]) -> Result<(), Refusal> {
        if let Some(missing) = self.auth.accounts().missing(users).await?.first() {
            return Err(Refusal::new(ErrorCode::NotFound, format!("there is no user {missing}")));
        }
        let most = self.config.channels.max_per_user;
        let counted = Instant::now();
        let counts = self.store.channel_counts(users.to_vec()).await?;
        self.joining.admit(channel, users, &counts, counted, most).map_err(|user| {
            Refusal::new(ErrorCode::TooLarge, format!("{user} is in {most} channels, which is the most"))
        })
    }

    /// Checks what can be checked now; the owner checks again when the change's turn comes.
    pub(super) async fn change_members(
        &self,
        session: &Arc<Session>,
        reference: Option<u64>,
        channel: ChannelId,
        add: Vec<Username>,
        remove: Vec<Username>,
    ) -> Result<Option<Frame>, Refusal> {
        let me = session.username();
        if session.room(channel).is_none() {
            return Err(Refusal::not_a_member());
        }
        let (kind, role) = self.store.role(channel, me).await?.ok_or_else(Refusal::not_a_member)?;
        if kind == ChannelKind::Direct {
            return Err(Refusal::new(ErrorCode::Conflict, "a direct channel always has the same two members"));
        }
        if add.is_empty() && remove.is_empty() {
            return Err(Refusal::new(ErrorCode::Invalid, "members is empty"));
        }
        let most = self.config.channels.max_members;
        if add.len() > most || remove.len() > most {
            return Err(Refusal::new(ErrorCode::TooLarge, format!("a channel has at most {most} members")));
        }
        if role != Role::Owner && remove.iter().any(|user| user != me) {
            return Err(Refusal::new(ErrorCode::Forbidden, "only an owner of the channel removes others"));
        }
        if !add.is_empty() {
            self.check_joining(channel, &add).await?;
        }
        let origin = Origin { session: session.id, reference };
        let (id, by) = (Uuid::now_v7(), me.clone());
        let task = ChangeTask { channel, id, by, add, remove, at: Millis::now(), origin };
        self.queue_task(channel, Task::Change(task), session, reference).await
    }

    /// The confirm itself puts the reply into the outbox, so that it is there before what comes of the task.
    async fn queue_task(
        &self,
        channel: ChannelId,
        task: Task,
        session: &Arc<Session>,
        reference: Option<u64>,
    ) -> Result<Option<Frame>, Refusal> {
        let payload = task.encode().map_err(|error| Refusal::new(ErrorCode::TooLarge, error.to_string()))?;
        let shard = channel.shard(self.queue.shards(Family::DbTasks));
        let (tell, outcome) = oneshot::channel();
        let session = Arc::clone(session);
        let confirm = move |result: Result<(), QueueError>| {
            if result.is_ok() {
                session.push(&queued(reference, channel));
            }
            // The one who waits is gone only with the whole server.
            let _ = tell.send(result);
        };
        self.queue.enqueue(Lane { family: Family::DbTasks, shard }, payload, Box::new(confirm))?;
        outcome.await.unwrap_or(Err(QueueError::Closed))?;
        Ok(None)
    }
}

fn direct(members: &[Username], name: Option<&str>) -> Result<ChannelId, Refusal> {
    if name.is_some() {
        return Err(Refusal::new(ErrorCode::Invalid, "a direct channel has no name"));
    }
    match members {
        [me, other] => Ok(ChannelId::direct(me, other)),
        _ => Err(Refusal::new(ErrorCode::Invalid, "a direct channel has exactly one other member")),
    }
}

impl From<AccountsError> for Refusal {
    fn from(error: AccountsError) -> Self {
        tracing::warn!(%error, "accounts can't be read");
        Self::new(ErrorCode::Unavailable, "accounts can't be read now").retry(Duration::from_secs(1))
    }
}
