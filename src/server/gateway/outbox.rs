use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use rustix::net::{SendFlags, send};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Frames in one system call, at most.
const MAX_VECTORED: usize = 64;

/// What goes to a socket together is copied into one piece up to so many bytes. More goes frame by frame: an outbox that
/// is nearly full takes what it can, and what waits for company is no answers then but a page, whose reader's task is
/// about to write it.
pub const MAX_PIECE: usize = 16 << 10;

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

/// The way of frames to one socket.
///
/// While the socket takes them, a frame is written right away by whoever has it, with those that were held for it: no
/// buffer, no task to be woken. What the socket doesn't take waits here, bounded by number and by bytes, and the
/// connection's task writes it when it can. Empty, an outbox holds no heap memory.
pub struct Outbox {
    state: Mutex<State>,
    changed: Notify,
    max_frames: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    /// `None` until the connection has said its first words, and after its end: then frames wait.
    socket: Option<Arc<TcpStream>>,
    /// Of the first, a part may be written already. What goes to a whole room at once may be several in one piece.
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// A part of the first frame is written: it must be written to its end before anything else is.
    is_begun: bool,
    /// The socket took no more: the connection's task waits until it does.
    is_blocked: bool,
    /// Frames that have left, ever.
    written: u64,
    page: Page,
    closing: Option<Closing>,
}

/// Frames that the connection has asked for, in one piece: they say nothing about the reader, and don't count against
/// the bounds until all of them have left.
#[derive(Default)]
struct Page {
    end: u64,
    frames: usize,
    bytes: usize,
}

/// What [`Outbox::drain`] has left over.
pub struct Drained {
    /// The socket didn't take everything: what waits before this number is to be flushed.
    pub rest: Option<u64>,
    /// Why the connection is to be closed, once that is written.
    pub closing: Option<Closing>,
}

impl Outbox {
    pub fn new(max_frames: usize, max_bytes: usize) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), max_frames, max_bytes }
    }

    /// From now on frames go to `socket`: `first` before those that wait.
    pub fn open(&self, socket: Arc<TcpStream>, first: Bytes) {
        let mut state = self.state.lock();
        state.bytes += first.len();
        state.page = Page { end: state.written + 1, frames: 1, bytes: first.len() };
        state.frames.push_front(first);
        state.socket = Some(socket);
        drop(state);
        self.changed.notify_one();
    }

    /// Writes a frame, or puts it at the end of those that wait. When there is no room the connection is closed
    /// instead: it must never miss a frame in the middle.
    pub fn push(&self, frame: &Bytes) {
        self.push_all(std::slice::from_ref(frame));
    }

    /// The same for several, in one system call.
    pub fn push_all(&self, frames: &[Bytes]) {
        if frames.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let mut begun = 0;
        let mut rest = frames;
        let with_held;
        if state.is_writable() {
            if state.bytes > MAX_PIECE {
                self.put(&mut state, frames, 0);
                self.write(state);
                return;
            }
            if !state.frames.is_empty() {
                with_held = [state.take_held_with(frames)];
                rest = &with_held;
            }
            let count = rest.len();
            while !rest.is_empty() && begun == 0 {
                let Some(socket) = &state.socket else { break };
                // An error is the connection's task's to see.
                let Ok((left, written)) = write_now(socket, rest) else { break };
                (rest, begun) = (left, written);
            }
            state.written += (count - rest.len()) as u64;
            if rest.is_empty() {
                return;
            }
            state.is_blocked = true;
        }
        self.put(&mut state, rest, begun);
        drop(state);
        self.changed.notify_one();
    }

    /// Puts a frame where the next one takes it along, or else [`Outbox::write_held`]. Whether it is the first that
    /// waits.
    pub fn hold(&self, frame: &Bytes) -> bool {
        let mut state = self.state.lock();
        let is_first = state.frames.is_empty() && state.closing.is_none();
        self.put(&mut state, std::slice::from_ref(frame), 0);
        // What waits by choice must leave room for what doesn't.
        if state.frames.len() >= MAX_VECTORED.min(self.max_frames / 2) || state.bytes >= self.max_bytes / 2 {
            self.write(state);
        }
        is_first
    }

    /// Writes what was held.
    pub fn write_held(&self) {
        self.write(self.state.lock());
    }

    /// Writes what waits, unless that is the connection's task's to do; which is told of what is left.
    fn write(&self, mut state: MutexGuard<'_, State>) {
        // An error is the connection's task's to see.
        if state.is_writable() && !matches!(state.flush(u64::MAX), Ok(true)) {
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Puts frames at the end of those that wait. Of the first, `begun` bytes are written.
    fn put(&self, state: &mut State, frames: &[Bytes], mut begun: usize) {
        if state.closing.is_some() {
            return;
        }
        for frame in frames {
            let Page { frames, bytes, .. } = state.page;
            if state.frames.len() >= self.max_frames + frames || state.bytes >= self.max_bytes + bytes {
                metrics::counter!("aula_slow_consumers_total").increment(1);
                state.give_up(SLOW_CONSUMER);
                self.changed.notify_one();
                return;
            }
            let mut frame = frame.clone();
            state.is_begun |= begun > 0;
            frame.advance(std::mem::take(&mut begun));
            state.bytes += frame.len();
            // A large reply says nothing about the reader.
            if frame.len() > self.max_bytes / 4 && state.page.frames == 0 {
                let end = state.written + state.frames.len() as u64 + 1;
                state.page = Page { end, frames: 1, bytes: frame.len() };
            }
            state.frames.push_back(frame);
        }
    }

    /// Puts what the connection has asked for behind the frames that wait, however much it is. The caller must see it
    /// written before it asks for more.
    pub fn push_page(&self, frames: impl Iterator<Item = Bytes>) {
        let mut state = self.state.lock();
        if state.closing.is_some() {
            return;
        }
        let mut page = Page::default();
        for frame in frames {
            page.frames += 1;
            page.bytes += frame.len();
            state.frames.push_back(frame);
        }
        state.bytes += page.bytes;
        page.end = state.written + state.frames.len() as u64;
        state.page = page;
    }

    /// Closes the connection after the frames that wait already. The first reason stands.
    pub fn close(&self, closing: Closing) {
        self.state.lock().closing.get_or_insert(closing);
        self.changed.notify_one();
    }

    /// Writes what waits now, as far as the socket takes it; nothing where the connection is lost to slowness.
    ///
    /// Errors: the socket's.
    pub fn drain(&self) -> io::Result<Drained> {
        let mut state = self.state.lock();
        let closing = state.closing.clone();
        if closing.as_ref() == Some(&SLOW_CONSUMER) {
            return Ok(Drained { rest: None, closing });
        }
        let end = state.written + state.frames.len() as u64;
        let rest = (!state.flush(end)?).then_some(end);
        Ok(Drained { rest, closing })
    }

    /// Writes what waits, as far as the socket takes it now. Whether everything before `end` has left.
    ///
    /// Errors: the socket's.
    pub fn flush(&self, end: u64) -> io::Result<bool> {
        self.state.lock().flush(end)
    }

    /// The connection ends: nothing is written here any more, and the socket is let go. Returns what must be written
    /// before a close can be, the rest of a frame that was begun.
    pub fn finish(&self) -> Option<Bytes> {
        let mut state = self.state.lock();
        let rest = state.is_begun.then(|| state.frames.pop_front()).flatten();
        *state = State { closing: Some(Closing::new(1006, "")), ..State::default() };
        rest
    }

    /// Whether nothing waits, not even a close.
    pub fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.frames.is_empty() && state.closing.is_none()
    }

    /// Whether so much may be pushed at once, and leave room for what comes meanwhile.
    pub fn fits(&self, frames: &[Bytes]) -> bool {
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        frames.len() <= 1 || (frames.len() <= self.max_frames / 2 && bytes <= self.max_bytes / 2)
    }

    /// Whether the connection is lost to slowness, so that a write under way may be given up.
    pub fn is_overrun(&self) -> bool {
        self.state.lock().closing.as_ref() == Some(&SLOW_CONSUMER)
    }

    /// Resolves when something waits or is closed since the last time; for one waiter.
    pub fn changed(&self) -> impl Future<Output = ()> {
        self.changed.notified()
    }

    /// All frames that wait, where there is no socket; and whether it is being closed.
    #[cfg(test)]
    pub fn take(&self) -> (Vec<Bytes>, Option<Closing>) {
        let mut state = self.state.lock();
        state.bytes = 0;
        (std::mem::take(&mut state.frames).into(), state.closing.clone())
    }
}

/// One piece is written more cheaply than several.
pub fn in_one_piece<'f>(frames: impl Iterator<Item = &'f Bytes> + Clone) -> Bytes {
    let mut piece = BytesMut::with_capacity(frames.clone().map(Bytes::len).sum());
    frames.for_each(|frame| piece.extend_from_slice(frame));
    piece.freeze()
}

/// What is left of `frames`, and how much of the first of these is written.
fn write_now<'a>(socket: &TcpStream, frames: &'a [Bytes]) -> io::Result<(&'a [Bytes], usize)> {
    let mut written = match frames {
        // Asked of the kernel itself: what the runtime knows of a socket's readiness is somewhere else in memory, and who
        // writes to a thousand sockets pays for each look at it.
        [frame] => send(socket, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?,
        _ => {
            let mut slices = [IoSlice::new(&[]); MAX_VECTORED];
            slices.iter_mut().zip(frames).for_each(|(slice, frame)| *slice = IoSlice::new(frame));
            socket.try_write_vectored(&slices[..frames.len().min(MAX_VECTORED)])?
        }
    };
    let whole = frames.iter().take_while(|frame| {
        let is_whole = written >= frame.len();
        written -= if is_whole { frame.len() } else { 0 };
        is_whole
    });
    let whole = whole.count();
    Ok((&frames[whole..], written))
}

impl State {
    /// Whether who has a frame writes it.
    fn is_writable(&self) -> bool {
        self.socket.is_some() && self.closing.is_none() && !self.is_blocked
    }

    /// What was held, and `frames` behind it.
    fn take_held_with(&mut self, frames: &[Bytes]) -> Bytes {
        (self.bytes, self.page) = (0, Page::default());
        in_one_piece(std::mem::take(&mut self.frames).iter().chain(frames))
    }

    /// See [`Outbox::flush`].
    fn flush(&mut self, end: u64) -> io::Result<bool> {
        let Some(socket) = self.socket.clone() else { return Ok(self.frames.is_empty()) };
        while self.written < end && !self.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_VECTORED];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&self.frames) {
                *slice = IoSlice::new(frame);
                count += 1;
            }
            match socket.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        if self.frames.is_empty() {
            self.is_blocked = false;
            // Most connections never wait again.
            self.frames = VecDeque::new();
        }
        Ok(self.written >= end || self.frames.is_empty())
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(first) = self.frames.front_mut() {
            if written < first.len() {
                first.advance(written);
                self.is_begun |= written > 0;
                return;
            }
            written -= first.len();
            self.frames.pop_front();
            self.is_begun = false;
            self.written += 1;
        }
        if self.written >= self.page.end {
            self.page = Page::default();
        }
    }

    /// Forgets what waits, but for the rest of a frame that was begun.
    fn give_up(&mut self, closing: Closing) {
        let rest = self.is_begun.then(|| self.frames.pop_front()).flatten();
        self.bytes = rest.as_ref().map_or(0, Bytes::len);
        self.frames = rest.into_iter().collect();
        self.closing = Some(closing);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
