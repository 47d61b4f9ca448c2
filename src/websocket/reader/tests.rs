//! Checked against frames that another implementation makes, and reads.

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};

use super::super::frame::{close_frame, frame, put_masked};
use super::*;

/// An [`Item`] that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Item<'_>> for Owned {
    fn from(item: Item<'_>) -> Self {
        match item {
            Item::Text(text) => Self::Text(text.to_owned()),
            Item::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Item::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Item::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Item::Close(goodbye) => Self::Close(goodbye.map(|(code, reason)| (code, reason.to_owned()))),
        }
    }
}

/// What a reader makes of bytes that come in pieces of these sizes.
fn read(role: Role, bytes: &[u8], pieces: &[usize]) -> Result<Vec<Owned>, Violation> {
    let (mut reader, mut items, mut rest) = (Reader::new(role, 1000), Vec::new(), bytes.to_vec());
    let mut pieces = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
    while !rest.is_empty() {
        let piece = pieces.next().unwrap().clamp(1, rest.len());
        let mut head: Vec<u8> = rest.drain(..piece).collect();
        reader.read(&mut head, |item| {
            items.push(item.into());
            Ok::<_, Violation>(())
        })?;
    }
    if reader.cut.is_empty() {
        assert_eq!(reader.cut.capacity(), 0, "memory is held between messages");
    }
    Ok(items)
}

fn theirs(item: &Owned, cuts: &[usize], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let (data, mut rest) = match item {
        Owned::Text(text) => (Data::Text, text.as_bytes()),
        Owned::Binary(bytes) => (Data::Binary, &bytes[..]),
        Owned::Ping(bytes) => return put(Frame::ping(bytes.clone()), mask, out),
        Owned::Pong(bytes) => return put(Frame::pong(bytes.clone()), mask, out),
        Owned::Close(goodbye) => {
            let goodbye =
                goodbye.clone().map(|(code, reason)| CloseFrame { code: CloseCode::from(code), reason: reason.into() });
            return put(Frame::close(goodbye), mask, out);
        }
    };
    let mut opcode = OpCode::Data(data);
    for cut in cuts {
        let (part, behind) = rest.split_at((*cut).min(rest.len()));
        put(Frame::message(part.to_vec(), opcode, false), mask, out);
        // Control frames may come between fragments.
        put(Frame::pong(b"between".to_vec()), mask, out);
        (rest, opcode) = (behind, OpCode::Data(Data::Continue));
    }
    put(Frame::message(rest.to_vec(), opcode, true), mask, out);
}

fn put(mut frame: Frame, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    frame.header_mut().mask = mask;
    frame.format(out).unwrap();
}

fn any_item() -> impl Strategy<Value = Owned> {
    let bytes = |most: usize| prop::collection::vec(any::<u8>(), 0..=most);
    prop_oneof![
        "\\PC{0,200}".prop_map(Owned::Text),
        bytes(1000).prop_map(Owned::Binary),
        bytes(125).prop_map(Owned::Ping),
        bytes(125).prop_map(Owned::Pong),
    ]
}

proptest! {
    #[test]
    fn reads_what_another_implementation_writes(
        items in prop::collection::vec((any_item(), prop::collection::vec(0..300_usize, 0..3)), 0..6),
        goodbye in prop::option::of(prop::option::of((prop_oneof![Just(1000_u16), 3000..5000_u16], "[a-z]{0,60}"))),
        pieces in prop::collection::vec(1..400_usize, 0..40),
        mask in prop::option::of(any::<[u8; 4]>()),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (item, cuts) in &items {
            theirs(item, cuts, mask, &mut bytes);
            if matches!(item, Owned::Text(_) | Owned::Binary(_)) {
                expected.extend(cuts.iter().map(|_| Owned::Pong(b"between".to_vec())));
            }
            expected.push(item.clone());
        }
        if let Some(goodbye) = goodbye {
            theirs(&Owned::Close(goodbye.clone()), &[], mask, &mut bytes);
            expected.push(Owned::Close(goodbye));
            // Nothing behind a close is read.
            bytes.extend_from_slice(b"\xff\xff\xff");
        }
        let role = if mask.is_some() { Role::Server } else { Role::Client };
        prop_assert_eq!(read(role, &bytes, &pieces), Ok(expected));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), pieces in prop::collection::vec(1..50_usize, 0..10)) {
        // The same, however they are cut.
        for role in [Role::Server, Role::Client] {
            prop_assert_eq!(read(role, &bytes, &pieces), read(role, &bytes, &[]));
        }
    }

    #[test]
    fn both_ends_understand_each_other(payload in prop::collection::vec(any::<u8>(), 0..1000), key in any::<[u8; 4]>()) {
        let mut masked = Vec::new();
        put_masked(&mut masked, Opcode::Binary, &payload, key);
        prop_assert_eq!(read(Role::Server, &masked, &[]), Ok(vec![Owned::Binary(payload.clone())]));
        prop_assert_eq!(read(Role::Client, &frame(Opcode::Binary, &payload), &[]), Ok(vec![Owned::Binary(payload)]));
    }
}

#[test]
fn what_must_not_be_sent_is_refused() {
    let protocol = |bytes: &[u8]| matches!(read(Role::Client, bytes, &[]), Err(Violation::Protocol(_)));
    let cases: &[(&str, &[u8])] = &[
        ("a reserved bit", &[0xc1, 0]),
        ("a reserved opcode", &[0x83, 0]),
        ("a fragmented ping", &[0x09, 0]),
        ("a long ping", &[0x89, 126, 0, 126]),
        ("a long way to say 5", &[0x82, 126, 0, 5]),
        ("a longer way to say 5", &[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 5]),
        ("a continuation of nothing", &[0x80, 0]),
        ("a message within a message", &[0x01, 0, 0x81, 0]),
        ("half a close code", &[0x88, 1, 3]),
        ("a close code that may not be sent", &[0x88, 2, 0x03, 0xed]),
        ("a mask from a server", &[0x81, 0x80, 0, 0, 0, 0]),
    ];
    for (name, bytes) in cases {
        assert!(protocol(bytes), "{name}");
    }
    assert!(matches!(read(Role::Server, &[0x81, 0], &[]), Err(Violation::Protocol(_))), "no mask from a client");
    assert_eq!(read(Role::Client, &[0x81, 1, 0xff], &[]), Err(Violation::NotUtf8));
    assert_eq!(read(Role::Client, &[0x88, 3, 0x03, 0xe8, 0xff], &[]), Err(Violation::NotUtf8));
}

#[test]
fn what_is_too_large_is_refused_by_its_head() {
    let too_large = frame(Opcode::Binary, &[0; 1001]);
    assert_eq!(read(Role::Client, &too_large[..4], &[]), Err(Violation::TooLarge));
    let mut fragments = vec![0x02, 126];
    fragments.extend(900_u16.to_be_bytes());
    fragments.extend([0; 900]);
    fragments.extend([0x80, 101]);
    assert_eq!(read(Role::Client, &fragments, &[]), Err(Violation::TooLarge));
}

#[test]
fn what_comes_behind_a_violation_is_passed_over() {
    let mut reader = Reader::new(Role::Client, 1000);
    let too_large = frame(Opcode::Binary, &[0xff; 5000]);
    let (mut head, mut rest) = (too_large[..100].to_vec(), too_large[100..].to_vec());
    let each = |item: Item<'_>| -> Result<(), Violation> { panic!("{item:?}") };
    assert_eq!(reader.read(&mut head, each), Err(Violation::TooLarge));
    assert_eq!(reader.read(&mut rest, each), Ok(()));
}

#[test]
fn a_reason_is_cut_at_a_character() {
    let frame = close_frame(1008, &"ä".repeat(100));
    assert_eq!(read(Role::Client, &frame, &[]), Ok(vec![Owned::Close(Some((1008, "ä".repeat(61))))]));
}
