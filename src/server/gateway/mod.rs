//! Stages 2 and 6: what clients ask for, and what they are told.

mod answers;
mod connect;
mod encoded;
mod fanout;
mod fill;
mod joining;
mod outbox;
mod page;
mod repair;
mod requests;
mod resume;
mod room;
mod rooms;
mod session;
mod sessions;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub(super) mod testing;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use super::auth::{Auth, Revocation};
use super::events::EventBus;
use super::queue::TaskQueue;
use super::receipts::Receipts;
use super::search::Search;
use super::store::Store;
use crate::config::Config;
use crate::wire::Frame;

use answers::Answers;
pub use connect::Connected;
pub use encoded::encode;
pub use fanout::count_refusal;
use joining::Joining;
pub use outbox::{Closing, Drained, SLOW_CONSUMER};
pub use requests::{MAX_PAGE, Resume, history_page, search_limit};
pub use resume::Step;
use rooms::Rooms;
pub use session::Session;
use sessions::Sessions;

/// Events under way to other gateways, at most.
const MAX_TELLING: usize = 256;

/// All that the connections of this process share.
pub struct Gateway {
    this: Weak<Self>,
    config: Arc<Config>,
    auth: Auth,
    queue: Arc<dyn TaskQueue>,
    store: Arc<dyn Store>,
    search: Arc<dyn Search>,
    receipts: Arc<Receipts>,
    /// The way to the other gateways, where there may be any.
    others: Option<Arc<dyn EventBus>>,
    /// What is on its way to them.
    telling: Arc<Semaphore>,
    sessions: Sessions,
    rooms: Rooms,
    joining: Joining,
    answers: Answers,
    /// Asks for a [`repair`](Gateway::repair_when_asked).
    repairs: Notify,
    /// How often events may have been missed.
    misses: AtomicU64,
    /// Reads for rooms that are behind, which may be under way at the same time.
    fetches: Semaphore,
    /// Welcomes that may be prepared at the same time.
    welcomes: Semaphore,
}

impl Gateway {
    pub fn new(
        config: Arc<Config>,
        auth: Auth,
        queue: Arc<dyn TaskQueue>,
        store: Arc<dyn Store>,
        search: Arc<dyn Search>,
        others: Option<Arc<dyn EventBus>>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            receipts: Arc::new(Receipts::new(config.receipts.interval)),
            others,
            telling: Arc::new(Semaphore::new(MAX_TELLING)),
            sessions: Sessions::default(),
            joining: Joining::default(),
            answers: Answers::default(),
            repairs: Notify::new(),
            misses: AtomicU64::new(0),
            fetches: Semaphore::new(fill::CONCURRENCY),
            welcomes: Semaphore::new(config.welcome.concurrency),
            rooms: Rooms::new(config.channels.ring_frames, config.channels.max_cached_rooms),
            config,
            auth,
            queue,
            store,
            search,
        })
    }

    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    pub fn queue(&self) -> &Arc<dyn TaskQueue> {
        &self.queue
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn search(&self) -> &Arc<dyn Search> {
        &self.search
    }

    pub fn receipts(&self) -> &Arc<Receipts> {
        &self.receipts
    }

    /// Writes the answers that nothing takes along, until it is dropped.
    pub async fn write_answers(self: Arc<Self>) {
        self.answers.write_when_due().await;
    }

    /// Authenticated connections now.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Channels held now.
    pub fn room_count(&self) -> usize {
        self.rooms.len()
    }

    /// Closes the sockets that a revocation concerns, as far as they have no right to stay any more.
    pub async fn revoke(&self, revocation: &Revocation) {
        let mut concerned = Vec::new();
        self.sessions.of(&revocation.username, |session| {
            let by_session = revocation.session.is_none_or(|id| id == session.identity.session_id);
            let by_token = revocation.token.is_none_or(|id| id == session.identity.token_id);
            if by_session && by_token {
                concerned.push(Arc::clone(session));
            }
        });
        for session in concerned {
            let identity = &session.identity;
            let standing =
                self.auth.accounts().standing(&identity.username, identity.session_id, identity.token_id).await;
            // A revocation of the whole user may be older than this log-in; one that can't be looked up is believed.
            if !matches!(standing, Ok(super::auth::Standing::Active)) {
                session.close(Closing::new(1008, "the token was revoked or the account disabled"));
            }
        }
    }

    /// Tells everybody that the server goes away, and when to come back: each after a moment of its own.
    pub fn announce_drain(&self) {
        let jitter = self.config.server.reconnect_jitter.as_millis().max(1) as u64;
        for session in self.sessions.all() {
            let after_ms = 100 + Uuid::new_v4().as_u128() as u64 % jitter;
            session.push(&Frame::Reconnect { after_ms });
        }
    }

    /// Closes all connections.
    pub fn send_away(&self) {
        for session in self.sessions.all() {
            session.close(Closing::new(1012, "the server restarts"));
        }
    }
}
