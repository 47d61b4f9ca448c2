use std::str;

use super::frame::{Head, Opcode, mask};

/// Which end reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads masked frames.
    Server,
    /// Reads frames that must not be masked.
    Client,
}

/// A whole message or control frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// Nothing is read behind it. The code and the reason, if there are any.
    Close(Option<(u16, &'a str)>),
}

/// Why the other end must be left (RFC 6455 §7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// 1002
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// 1007
    #[error("a text frame that is not UTF-8")]
    NotUtf8,
    /// 1009
    #[error("the frame is too large")]
    TooLarge,
}

impl Violation {
    /// The code to close with.
    pub const fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge => 1009,
        }
    }
}

/// Makes messages of the bytes of one connection. Between messages it holds no heap memory; within one, at most
/// `max_message` bytes and one read.
#[derive(Debug)]
pub struct Reader {
    max_message: usize,
    /// The beginning of a frame whose rest has not come.
    cut: Vec<u8>,
    /// The payload so far of a message in several frames.
    fragments: Option<(Opcode, Vec<u8>)>,
    role: Role,
    /// Nothing is understood any more: the other end has closed, or broken a rule.
    is_closed: bool,
}

impl Reader {
    pub const fn new(role: Role, max_message: usize) -> Self {
        Self { max_message, cut: Vec::new(), fragments: None, role, is_closed: false }
    }

    /// Takes what was read; calls `each` for each message that is complete, in order. The bytes are changed.
    ///
    /// Errors: a [`Violation`] of the other end, or what `each` returned. What is read after one is passed over: where
    /// the next frame begins is not known.
    pub fn read<E: From<Violation>>(
        &mut self,
        bytes: &mut [u8],
        mut each: impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let read = self.understand(bytes, &mut each);
        if read.is_err() {
            (self.cut, self.fragments, self.is_closed) = (Vec::new(), None, true);
        }
        read
    }

    fn understand<E: From<Violation>>(
        &mut self,
        bytes: &mut [u8],
        each: &mut impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.cut.is_empty() {
            let used = self.frames(bytes, each)?;
            self.cut.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.cut);
        joined.extend_from_slice(bytes);
        let used = self.frames(&mut joined, each)?;
        if used == 0 {
            self.cut = joined;
        } else {
            self.cut.extend_from_slice(&joined[used..]);
        }
        Ok(())
    }

    /// How many bytes were whole frames.
    fn frames<E: From<Violation>>(
        &mut self,
        bytes: &mut [u8],
        each: &mut impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut used = 0;
        while !self.is_closed {
            let rest = &mut bytes[used..];
            let Some(head) = Head::parse(rest).map_err(Violation::Protocol)? else { return Ok(used) };
            let length = self.allowed(&head)?;
            let Some(payload) = rest.get_mut(head.size..head.size + length) else { return Ok(used) };
            if let Some(key) = head.mask {
                mask(payload, key);
            }
            self.frame(&head, payload, each)?;
            used += head.size + length;
        }
        // Whatever comes behind a close is not read (§5.5.1).
        Ok(bytes.len())
    }

    /// The payload's length, if such a frame may come now.
    fn allowed(&self, head: &Head) -> Result<usize, Violation> {
        match (self.role, head.mask) {
            (Role::Server, None) => return Err(Violation::Protocol("a client's frame that is not masked")),
            (Role::Client, Some(_)) => return Err(Violation::Protocol("a server's frame that is masked")),
            _ => {}
        }
        match (head.opcode, &self.fragments) {
            (Opcode::Continuation, None) => return Err(Violation::Protocol("a continuation of nothing")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::Protocol("a new message within a fragmented one"));
            }
            _ => {}
        }
        let before = match &self.fragments {
            Some((_, fragments)) if !head.opcode.is_control() => fragments.len(),
            _ => 0,
        };
        let length = usize::try_from(head.length).map_err(|_| Violation::TooLarge)?;
        if !head.opcode.is_control() && length > self.max_message.saturating_sub(before) {
            return Err(Violation::TooLarge);
        }
        Ok(length)
    }

    fn frame<E: From<Violation>>(
        &mut self,
        head: &Head,
        payload: &[u8],
        each: &mut impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match head.opcode {
            Opcode::Ping => each(Item::Ping(payload)),
            Opcode::Pong => each(Item::Pong(payload)),
            Opcode::Close => {
                let goodbye = goodbye(payload)?;
                self.is_closed = true;
                each(Item::Close(goodbye))
            }
            opcode @ (Opcode::Text | Opcode::Binary) if head.is_final => each(message(opcode, payload)?),
            opcode @ (Opcode::Text | Opcode::Binary) => {
                self.fragments = Some((opcode, payload.to_vec()));
                Ok(())
            }
            Opcode::Continuation => {
                let Some((opcode, mut fragments)) = self.fragments.take() else { return Ok(()) };
                fragments.extend_from_slice(payload);
                if head.is_final {
                    each(message(opcode, &fragments)?)
                } else {
                    self.fragments = Some((opcode, fragments));
                    Ok(())
                }
            }
        }
    }
}

fn message(opcode: Opcode, payload: &[u8]) -> Result<Item<'_>, Violation> {
    match opcode {
        Opcode::Text => str::from_utf8(payload).map(Item::Text).map_err(|_| Violation::NotUtf8),
        _ => Ok(Item::Binary(payload)),
    }
}

/// §5.5.1 and, for the codes that may be on the wire, §7.4.
fn goodbye(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::Protocol("a close with half a code")) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Protocol("a close with a code that may not be sent"));
    }
    let reason = str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
    Ok(Some((code, reason)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
