use bytes::{BufMut, Bytes, BytesMut};

/// The longest payload of a ping, pong or close (RFC 6455 §5.5).
const MAX_CONTROL: usize = 125;
/// Of a masked frame: two bytes, eight of length, four of mask (§5.2).
pub(super) const LONGEST_HEAD: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// What a frame is (RFC 6455 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    pub(super) const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// A frame's head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub is_final: bool,
    pub opcode: Opcode,
    pub mask: Option<[u8; 4]>,
    /// Of the head itself, in bytes.
    pub size: usize,
    /// Of the payload, in bytes.
    pub length: u64,
}

impl Head {
    /// `None` if there are not enough bytes; an error that names what is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err("a reserved bit is set");
        }
        let opcode = Opcode::of(first & 0x0f).ok_or("a reserved opcode")?;
        let is_final = first & FIN != 0;
        let rest = &bytes[2..];
        let (length, wide) = match second & !MASKED {
            LENGTH_16 => match rest.first_chunk::<2>() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 2),
                None => return Ok(None),
            },
            LENGTH_64 => match rest.first_chunk::<8>() {
                Some(length) => (u64::from_be_bytes(*length), 8),
                None => return Ok(None),
            },
            length => (u64::from(length), 0),
        };
        if (wide == 2 && length < u64::from(LENGTH_16)) || (wide == 8 && length <= u64::from(u16::MAX)) {
            return Err("a length that is not written in the shortest way");
        }
        if opcode.is_control() && (!is_final || length > MAX_CONTROL as u64) {
            return Err("a control frame that is fragmented or longer than 125 bytes");
        }
        let (mask, masked) = match second & MASKED {
            0 => (None, 0),
            _ => match rest[wide..].first_chunk::<4>() {
                Some(mask) => (Some(*mask), 4),
                None => return Ok(None),
            },
        };
        Ok(Some(Self { is_final, opcode, mask, size: 2 + wide + masked, length }))
    }
}

/// Masks or unmasks (§5.3).
pub(super) fn mask(bytes: &mut [u8], mask: [u8; 4]) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte ^= mask[index & 3];
    }
}

fn put_head(out: &mut impl BufMut, opcode: Opcode, length: usize, masked: u8) {
    out.put_u8(FIN | opcode as u8);
    match length {
        0..=125 => out.put_u8(masked | length as u8),
        126..=0xffff => {
            out.put_u8(masked | LENGTH_16);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(masked | LENGTH_64);
            out.put_u64(length as u64);
        }
    }
}

/// A whole message as a server sends it: in one frame, unmasked.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(LONGEST_HEAD + payload.len());
    put_head(&mut out, opcode, payload.len(), 0);
    out.put_slice(payload);
    out.freeze()
}

/// Appends a whole message as a client sends it: in one frame, masked with `key`, which should be random (§5.3).
pub fn put_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    out.reserve(LONGEST_HEAD + payload.len());
    put_head(out, opcode, payload.len(), MASKED);
    out.extend_from_slice(&key);
    let begin = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[begin..], key);
}

/// A server's close. A reason that is too long is cut at a character (§5.5.1).
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL - 2)];
    let mut payload = Vec::with_capacity(MAX_CONTROL);
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    frame(Opcode::Close, &payload)
}
