use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _};

use super::room::Room;
use super::{Gateway, Session, fill};
use crate::message::Seq;
use crate::server::auth::{Identity, Standing};
use crate::server::store::{Membership, Page, StoreError};
use crate::wire::frame::{ChannelSummary, Error, Welcome};
use crate::wire::{Encoding, ErrorCode};

/// Channels in a welcome, at most; the rest by `GET /api/v1/channels`.
const MAX_LISTED: usize = 200;
/// What the server says it is.
const SERVER: &str = concat!("aula/", env!("CARGO_PKG_VERSION"));

/// A session that receives events from now on. Its frames wait until the welcome is written. Leaves when dropped.
pub struct Connected {
    pub(super) gateway: Arc<Gateway>,
    pub session: Arc<Session>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.gateway.sessions.remove(&self.session);
        self.session.leave_all();
    }
}

impl Gateway {
    /// Makes a session: enters it in the rooms of its user's channels, and only then reads what to tell it, so that
    /// nothing falls between the two. The welcome is the first frame to be written.
    pub async fn connect(
        self: &Arc<Self>,
        identity: Identity,
        encoding: Encoding,
    ) -> Result<(Connected, Box<Welcome>), Error> {
        let session = Arc::new(Session::new(identity, encoding, &self.config.session));
        if !self.sessions.add(&session, self.config.session.max_per_user) {
            let most = self.config.session.max_per_user;
            return Err(error(ErrorCode::RateLimited, format!("a user has at most {most} connections: close one")));
        }
        // From here on the guard undoes what was done.
        let connected = Connected { gateway: Arc::clone(self), session: Arc::clone(&session) };
        // In turn: when thousands come back at once, the store gets no more to do than it can bear.
        let _turn = self.welcomes.acquire().await;
        // Taken back between the look at the token and the session's entry, nobody would close it.
        let Identity { username, session_id, token_id, .. } = &session.identity;
        match self.auth.accounts().standing(username, *session_id, *token_id).await {
            Ok(Standing::Active) => {}
            Ok(_) => {
                let message = "the token was revoked or the account disabled".into();
                let error = error(ErrorCode::Unauthorized, message);
                return Err(Error { retry: false, retry_after_ms: None, ..error });
            }
            Err(accounts_error) => {
                tracing::warn!(error = %accounts_error, "a connection can't be checked");
                return Err(error(ErrorCode::Unavailable, "accounts can't be read now: try again".into()));
            }
        }
        let welcome = self.welcome(&session).await.map_err(|store_error| {
            tracing::warn!(error = %store_error, "a connection can't be welcomed");
            error(ErrorCode::Unavailable, "the channels can't be read now: try again".into())
        })?;
        Ok((connected, welcome))
    }

    async fn welcome(&self, session: &Arc<Session>) -> Result<Box<Welcome>, StoreError> {
        let user = session.username();
        let (began, misses) = (Instant::now(), self.misses.load(Ordering::SeqCst));
        // All of them, even if `channels.max_per_user` was lowered since they were joined.
        let memberships = self.store.channels_known(user, &self.rooms).await?;
        session.expect_rooms(memberships.len());
        let mut channels = Vec::with_capacity(memberships.len().min(MAX_LISTED));
        let mut with_messages = Vec::with_capacity(self.config.welcome.channels);
        for (index, (room, membership)) in self.rooms_of(memberships, began).await.into_iter().enumerate() {
            // Just being removed: as if it were removed already.
            let Some(last_seq) = room.join(session, membership.channel.last_seq) else { continue };
            room.raise(Some(membership.delivered_by_all), Some(membership.read_by_all));
            let (delivered_by_all, read_by_all) = room.watermarks();
            let membership = Membership { delivered_by_all, read_by_all, ..membership };
            if index >= MAX_LISTED {
                continue;
            }
            if channels.len() < self.config.welcome.channels {
                with_messages.push((room, last_seq));
            }
            channels.push(summary(membership, last_seq));
        }
        let newest = with_messages
            .iter()
            .map(|(room, last_seq)| self.page(room, Page::Before(last_seq + 1), self.config.welcome.messages));
        for (summary, (messages, _more)) in channels.iter_mut().zip(try_join_all(newest).await?) {
            summary.messages = Some(messages);
        }
        // Behind the welcome: what was joined since the list was read.
        while let Some(joined) = session.next_joined() {
            for (info, coming) in joined {
                if !session.has_lost(info.id) {
                    self.enter(session, &info, coming, None);
                }
            }
        }
        // The list may be older than what was missed, and the repair of that may not have seen the session in its rooms.
        if self.misses.load(Ordering::SeqCst) != misses {
            self.repairs.notify_one();
        }
        Ok(Box::new(Welcome {
            session: session.id,
            username: user.clone(),
            server: SERVER.to_owned(),
            features: self.features(),
            channels,
        }))
    }

    /// The rooms of a list that was read after `began`, with all that it counts as stored.
    async fn rooms_of(&self, memberships: Vec<Membership>, began: Instant) -> Vec<(Arc<Room>, Membership)> {
        let enter = |membership: Membership| {
            let room = self.rooms.enter(membership.channel.id, membership.channel.last_seq);
            room.learn(&membership.channel, Some(membership.last_at));
            (room, membership)
        };
        let rooms: Vec<_> = memberships.into_iter().map(enter).collect();
        let behind = rooms.iter().filter(|(room, membership)| !room.reaches(membership.channel.last_seq, began));
        let compare = |(room, membership): &(Arc<Room>, Membership)| {
            let (room, head) = (Arc::clone(room), membership.channel.last_seq);
            async move {
                if let Err(error) = self.compare(&room, began).await {
                    // Not the whole welcome for one channel: what is missing comes, or a gap is told.
                    tracing::warn!(%error, channel = %room.id, "a channel is welcomed as far as it was delivered");
                    self.catch_up(&room, head);
                }
            }
        };
        let compare: Vec<_> = behind.map(compare).collect();
        stream::iter(compare).buffer_unordered(fill::CONCURRENCY).for_each(|()| std::future::ready(())).await;
        rooms
    }

    fn features(&self) -> BTreeMap<&'static str, bool> {
        let features = &self.config.features;
        BTreeMap::from([
            ("groups", features.groups),
            ("media", false),
            ("receipts", features.receipts),
            ("search", features.search),
            ("typing", features.typing),
        ])
    }
}

/// A channel in a list; `last_seq` is where the reader's stream begins.
pub(super) fn summary(membership: Membership, last_seq: Seq) -> ChannelSummary {
    let Membership { mut channel, delivered_seq, read_seq, delivered_by_all, read_by_all, last_at: _ } = membership;
    channel.last_seq = last_seq;
    ChannelSummary {
        unread: last_seq.saturating_sub(read_seq.max(channel.purged_seq)),
        channel,
        delivered_seq,
        read_seq,
        delivered_by_all,
        read_by_all,
        messages: None,
    }
}

fn error(code: ErrorCode, message: String) -> Error {
    Error { reference: None, code, message, retry: true, retry_after_ms: Some(1000) }
}

impl Gateway {
    /// A user's channels, for lists outside of a connection.
    pub async fn channels(
        &self,
        user: &crate::message::Username,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<ChannelSummary>, StoreError> {
        let memberships = self.store.channels_of(user, offset, limit).await?;
        let summaries = memberships.into_iter().map(|membership| {
            let stored = membership.channel.last_seq;
            summary(membership, stored)
        });
        Ok(summaries.collect())
    }
}
