//! Answers that wait a moment for company.
//!
//! Who sends a message hears that it was accepted, and right behind that gets it as a member of the channel: one write
//! says both. The channel's owner is quick, but it is another's thread that knows of the first, and that thread does
//! better to write the log than to sockets.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::session::Session;
use crate::wire::Frame;

/// How long an answer waits for a frame that takes it along, at most.
const MOMENT: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Answers {
    /// Each has a request that was just answered: they are no more than those.
    waiting: Mutex<Vec<Arc<Session>>>,
    came: Notify,
}

impl Answers {
    /// Puts an answer where the session's next frame takes it along.
    pub(super) fn put(&self, session: &Arc<Session>, answer: &Frame) {
        if !session.hold(answer) {
            return;
        }
        let mut waiting = self.waiting.lock();
        waiting.push(Arc::clone(session));
        if waiting.len() == 1 {
            self.came.notify_one();
        }
    }

    /// Writes those that nothing came for, until it is dropped.
    pub(super) async fn write_when_due(&self) {
        let mut due = Vec::new();
        loop {
            self.came.notified().await;
            tokio::time::sleep(MOMENT).await;
            std::mem::swap(&mut *self.waiting.lock(), &mut due);
            due.drain(..).for_each(|session: Arc<Session>| session.outbox.write_held());
        }
    }
}
