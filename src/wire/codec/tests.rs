#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::message::{ChannelId, Kind};

fn msgpack(value: &serde_json::Value) -> Vec<u8> {
    to_msgpack(value).unwrap()
}

#[test]
fn both_encodings_decode_to_the_same_request() {
    let channel = uuid::Uuid::now_v7();
    let frames = [
        json!({"op":"send","ref":12,"channel":channel,"client_id":channel,"kind":"text","body":"hé","future":[1,{"a":2}]}),
        json!({"op":"resume","ref":1,"channels":{channel.to_string():41}}),
        json!({"op":"search","ref":2,"query":"x","from":"ada","before":"2026-11-22T19:45:53.120Z"}),
        json!({"op":"create_channel","kind":"group","name":"n","members":["bob"]}),
        json!({"op":"ping"}),
    ];
    for frame in frames {
        let from_json = decode_json(frame.to_string().as_bytes()).unwrap();
        let from_msgpack = decode_msgpack(&msgpack(&frame)).unwrap();
        assert_eq!(from_json, from_msgpack);
        assert!(from_json.request.is_ok(), "{from_json:?}");
    }
}

#[test]
fn a_send_has_defaults() {
    let id = uuid::Uuid::nil();
    let frame = json!({"op":"send","channel":id,"client_id":id,"body":"b"}).to_string();
    let Ok(Request::Send(send)) = decode_json(frame.as_bytes()).unwrap().request else { panic!("not a send") };
    assert_eq!((send.channel, send.kind, send.retry), (ChannelId(id), Kind::Text, false));
}

#[test]
fn a_wrong_type_is_an_answer_and_not_a_closed_socket() {
    let bad = [
        json!({"op":"send","ref":3,"channel":{"$ne":null},"client_id":"x","body":"b"}),
        json!({"op":"history","ref":3,"channel":uuid::Uuid::nil(),"limit":-1}),
        json!({"op":"history","ref":3,"channel":uuid::Uuid::nil(),"limit":4294967296u64}),
        json!({"op":"read","ref":3,"channel":uuid::Uuid::nil(),"seq":1.5}),
        json!({"op":"create_channel","ref":3,"kind":"group","members":["../etc"]}),
    ];
    for frame in bad {
        for incoming in [decode_json(frame.to_string().as_bytes()), decode_msgpack(&msgpack(&frame))] {
            let incoming = incoming.unwrap();
            assert_eq!(incoming.reference, Some(3), "{frame}");
            assert!(matches!(incoming.request, Err(Unusable::Invalid(_))), "{frame}: {incoming:?}");
        }
    }
    for frame in [json!({"op":{"$ne":1}}), json!({"ref":1}), json!(17), json!({"op":"ping","ref":"x"})] {
        for incoming in [decode_json(frame.to_string().as_bytes()), decode_msgpack(&msgpack(&frame))] {
            assert!(matches!(incoming.unwrap().request, Err(Unusable::Invalid(_))), "{frame}");
        }
    }
    let huge = br#"{"op":"history","ref":3,"channel":"00000000-0000-0000-0000-000000000000","limit":1e999}"#;
    assert!(matches!(decode_json(huge).unwrap().request, Err(Unusable::Invalid(_))));
}

#[test]
fn an_unknown_op_is_named_and_cut() {
    let frame = json!({"op":"x".repeat(1000),"ref":9}).to_string();
    let incoming = decode_json(frame.as_bytes()).unwrap();
    assert_eq!(incoming.request, Err(Unusable::UnknownOp("x".repeat(32))));
}

#[test]
fn bytes_that_are_no_frame_are_malformed() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for bytes in [b"".as_slice(), b"{", b"{\"op\":\"ping\"}x", b"\xff\xfe", deep.as_bytes()] {
        // An array where a map is expected may be refused before its depth is seen.
        assert!(!matches!(decode_json(bytes), Ok(Incoming { request: Ok(_), .. })), "{bytes:?}");
    }
    let deep_inside = format!("{{\"op\":\"ping\",\"x\":{deep}}}");
    let _either_is_cheap = decode_json(deep_inside.as_bytes());

    let four_gib_text = [0x81, 0xa2, b'o', b'p', 0xdb, 0xff, 0xff, 0xff, 0xff];
    let four_gib_map = [0xdf, 0xff, 0xff, 0xff, 0xff];
    let mut nested = vec![0x82, 0xa2, b'o', b'p', 0xa4, b'p', b'i', b'n', b'g', 0xa1, b'x'];
    nested.extend(std::iter::repeat_n(0x91, 10_000));
    nested.push(0xc0);
    for bytes in [four_gib_text.as_slice(), &four_gib_map, &nested, b"", b"\xc1"] {
        assert!(decode_msgpack(bytes).is_err(), "{:?}", &bytes[..bytes.len().min(12)]);
    }
    let mut trailing = msgpack(&json!({"op":"ping"}));
    trailing.push(0xc0);
    assert!(decode_msgpack(&trailing).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode_json(&bytes);
        let _ = decode_msgpack(&bytes);
    }
}
