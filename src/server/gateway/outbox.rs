use std::borrow::Cow;
use std::collections::VecDeque;

use axum::extract::ws::Message as WsMessage;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Why a connection is to be closed (RFC 6455 §7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    pub code: u16,
    pub reason: Cow<'static, str>,
}

impl Closing {
    pub const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }
}

/// 1013, "try again later": it reads too slowly, and can resume when it is back.
pub const SLOW_CONSUMER: Closing = Closing::new(1013, "slow consumer: reconnect and resume");

/// The frames that wait for one connection, bounded by number and by bytes. Empty, it holds no heap memory.
pub struct Outbox {
    state: Mutex<State>,
    changed: Notify,
    max_frames: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    frames: VecDeque<WsMessage>,
    bytes: usize,
    closing: Option<Closing>,
}

impl Outbox {
    pub fn new(max_frames: usize, max_bytes: usize) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), max_frames, max_bytes }
    }

    /// Puts a frame at the end. When there is no room the connection is closed instead: it must never miss a frame
    /// in the middle.
    pub fn push(&self, frame: WsMessage) {
        let mut state = self.state.lock();
        if state.closing.is_some() {
            return;
        }
        // One frame may go beyond the bytes: a reply that is larger than the outbox says nothing about the reader.
        if state.frames.len() >= self.max_frames || state.bytes >= self.max_bytes {
            metrics::counter!("aula_slow_consumers_total").increment(1);
            state.frames = VecDeque::new();
            state.bytes = 0;
            state.closing = Some(SLOW_CONSUMER);
        } else {
            state.bytes += length(&frame);
            state.frames.push_back(frame);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Closes the connection after the frames that wait already. The first reason stands.
    pub fn close(&self, closing: Closing) {
        self.state.lock().closing.get_or_insert(closing);
        self.changed.notify_one();
    }

    /// Moves all frames to `frames`; says whether to close after them.
    pub fn take(&self, frames: &mut Vec<WsMessage>) -> Option<Closing> {
        let mut state = self.state.lock();
        state.bytes = 0;
        frames.extend(std::mem::take(&mut state.frames));
        state.closing.clone()
    }

    pub fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.frames.is_empty() && state.closing.is_none()
    }

    /// Whether so much may be pushed at once, and leave room for what comes meanwhile.
    pub fn fits(&self, frames: &[WsMessage]) -> bool {
        let bytes: usize = frames.iter().map(length).sum();
        frames.len() <= 1 || (frames.len() <= self.max_frames / 2 && bytes <= self.max_bytes / 2)
    }

    /// Whether the connection is lost to slowness, so that a write under way may be given up.
    pub fn is_overrun(&self) -> bool {
        self.state.lock().closing.as_ref() == Some(&SLOW_CONSUMER)
    }

    /// Resolves when something was pushed or closed since the last time; for one waiter.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn length(frame: &WsMessage) -> usize {
    match frame {
        WsMessage::Text(text) => text.len(),
        WsMessage::Binary(bytes) | WsMessage::Ping(bytes) | WsMessage::Pong(bytes) => bytes.len(),
        WsMessage::Close(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> WsMessage {
        WsMessage::Text(text.into())
    }

    #[test]
    fn a_full_outbox_closes_rather_than_leaves_a_frame_out() {
        for outbox in [Outbox::new(2, 1000), Outbox::new(100, 5)] {
            outbox.push(frame("one"));
            outbox.push(frame("22"));
            assert!(!outbox.is_overrun());
            outbox.push(frame("3"));
            outbox.push(frame("4"));
            let mut frames = Vec::new();
            assert_eq!(outbox.take(&mut frames), Some(SLOW_CONSUMER));
            assert!(frames.is_empty());
        }
    }

    #[test]
    fn what_waits_goes_out_before_the_close() {
        let outbox = Outbox::new(10, 1000);
        outbox.push(frame("one"));
        outbox.close(Closing::new(1000, "bye"));
        outbox.close(Closing::new(1001, "later"));
        outbox.push(frame("two"));
        let mut frames = Vec::new();
        assert_eq!(outbox.take(&mut frames), Some(Closing::new(1000, "bye")));
        assert_eq!(frames, [frame("one")]);
    }
}
