//! Frames as a client reads and writes them (RFC 6455 §5): what comes is unmasked, what goes is masked.

/// What a frame is (§11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn of(bits: u8) -> Result<Self, &'static str> {
        match bits {
            1 => Ok(Self::Text),
            2 => Ok(Self::Binary),
            8 => Ok(Self::Close),
            9 => Ok(Self::Ping),
            10 => Ok(Self::Pong),
            0 => Err("a continuation frame"),
            _ => Err("a frame with a reserved opcode"),
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub opcode: Opcode,
    /// Of the header itself.
    pub length: usize,
    pub payload: usize,
}

impl Header {
    /// The header at the start of `bytes`; none if they don't hold all of it.
    ///
    /// Errors: what it is that a client can't take.
    pub fn parse(bytes: &[u8], max_payload: usize) -> Result<Option<Self>, &'static str> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & 0x80 == 0 {
            return Err("a fragmented message");
        }
        if first & 0x70 != 0 {
            return Err("a frame with reserved bits");
        }
        if second & 0x80 != 0 {
            return Err("a masked frame");
        }
        let opcode = Opcode::of(first & 0x0f)?;
        let (length, payload) = match second & 0x7f {
            126 => {
                let Some(bytes) = rest.first_chunk::<2>() else { return Ok(None) };
                (4, u64::from(u16::from_be_bytes(*bytes)))
            }
            127 => {
                let Some(bytes) = rest.first_chunk::<8>() else { return Ok(None) };
                (10, u64::from_be_bytes(*bytes))
            }
            short => (2, u64::from(short)),
        };
        match usize::try_from(payload) {
            Ok(payload) if payload <= max_payload => Ok(Some(Self { opcode, length, payload })),
            _ => Err("a frame larger than is taken"),
        }
    }

    pub const fn frame_length(&self) -> usize {
        self.length + self.payload
    }
}

/// Appends a whole frame to `out`.
pub(super) fn encode(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    out.push(0x80 | opcode.bits());
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    let begin = out.len();
    out.extend_from_slice(payload);
    let mask8 = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (words, rest) = out[begin..].as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ mask8).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    // Eight is twice four: the rest begins at the mask's beginning, and has at most seven bytes.
    if let Some(tail) = rest.get_mut(4..) {
        for (byte, mask) in tail.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_any_length_is_masked_byte_by_byte() {
        let mask = [1, 2, 3, 4];
        for length in [0usize, 1, 3, 4, 5, 7, 8, 9, 12, 15, 125, 126, 65_535, 65_536] {
            let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let mut out = Vec::new();
            encode(&mut out, Opcode::Text, &payload, mask);
            let header = if length < 126 {
                6
            } else if length <= 65_535 {
                8
            } else {
                14
            };
            assert_eq!(out.len(), header + length, "{length}");
            assert_eq!(out[0], 0x81);
            let unmasked: Vec<u8> =
                out[header..].iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]).collect();
            assert_eq!(unmasked, payload, "{length}");
        }
    }

    #[test]
    fn a_cut_header_is_waited_for_and_a_strange_one_refused() {
        let parse = |bytes: &[u8]| Header::parse(bytes, 70_000);
        assert_eq!(parse(&[0x82]), Ok(None));
        assert_eq!(parse(&[0x82, 126, 1]), Ok(None));
        assert_eq!(parse(&[0x82, 5]), Ok(Some(Header { opcode: Opcode::Binary, length: 2, payload: 5 })));
        assert_eq!(parse(&[0x81, 126, 1, 0]), Ok(Some(Header { opcode: Opcode::Text, length: 4, payload: 256 })));
        for strange in
            [&[0x01, 1][..], &[0x80, 1], &[0x83, 1], &[0xc1, 1], &[0x81, 0x81], &[0x81, 127, 0, 0, 0, 0, 1, 0, 0, 0]]
        {
            assert!(parse(strange).is_err(), "{strange:?}");
        }
    }
}
