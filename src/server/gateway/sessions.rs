use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use uuid::Uuid;

use super::session::Session;
use crate::message::Username;

/// All authenticated connections of this gateway.
#[derive(Default)]
pub struct Sessions {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    by_id: HashMap<Uuid, Arc<Session>>,
    by_user: HashMap<Username, Vec<Arc<Session>>>,
}

impl Sessions {
    /// `false`, and nothing is changed, if the user has `max_per_user` already.
    pub fn add(&self, session: &Arc<Session>, max_per_user: usize) -> bool {
        let mut state = self.state.write();
        // Most users have one.
        let of_user = state.by_user.entry(session.username().clone()).or_insert_with(|| Vec::with_capacity(1));
        if of_user.len() >= max_per_user {
            return false;
        }
        of_user.push(Arc::clone(session));
        state.by_id.insert(session.id, Arc::clone(session));
        true
    }

    pub fn remove(&self, session: &Arc<Session>) {
        let mut state = self.state.write();
        state.by_id.remove(&session.id);
        if let Some(of_user) = state.by_user.get_mut(session.username()) {
            of_user.retain(|other| other.id != session.id);
            if of_user.is_empty() {
                state.by_user.remove(session.username());
            }
        }
    }

    pub fn by_id(&self, id: Uuid) -> Option<Arc<Session>> {
        self.state.read().by_id.get(&id).cloned()
    }

    /// Calls `each` for every session of a user.
    pub fn of(&self, user: &Username, mut each: impl FnMut(&Arc<Session>)) {
        let state = self.state.read();
        for session in state.by_user.get(user).into_iter().flatten() {
            each(session);
        }
    }

    /// Everybody who has a connection here.
    pub fn users(&self) -> Vec<Username> {
        self.state.read().by_user.keys().cloned().collect()
    }

    pub fn all(&self) -> Vec<Arc<Session>> {
        self.state.read().by_id.values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.state.read().by_id.len()
    }
}
