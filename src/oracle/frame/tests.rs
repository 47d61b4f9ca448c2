use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Received, Sent, decode};
use crate::message::{ChannelId, ChannelKind, Kind, Message, Millis, Username};
use crate::oracle::record::{Record, Seen};
use crate::oracle::{Recorder, check};
use crate::wire::codec::{to_json, to_msgpack};
use crate::wire::frame::{ChannelInfo, ChannelSummary, Error, Reply, Resumed, Status, Welcome};
use crate::wire::{ErrorCode, Frame};

const CHANNEL: ChannelId = ChannelId(Uuid::from_u128(7));

fn ada() -> Username {
    Username::new("ada").unwrap()
}

fn message(seq: u64, kind: Kind, body: &str) -> Arc<Message> {
    let (id, client_id) = (Uuid::from_u128(u128::from(seq) + 100), Uuid::from_u128(u128::from(seq) + 200));
    let at = Millis(1_795_377_600_120);
    Arc::new(Message { channel: CHANNEL, seq, id, sender: ada(), client_id, kind, body: body.to_owned(), at })
}

/// One of each frame that the oracle judges, as the server writes them.
fn frames() -> Vec<Frame> {
    let channel = ChannelInfo {
        id: CHANNEL,
        kind: ChannelKind::Group,
        name: Some("lunch".to_owned()),
        members: vec![ada()],
        member_count: 1,
        last_seq: 2,
        purged_seq: 0,
    };
    let created = r#"{"created":{"members":["ada","bob"]}}"#;
    let messages = vec![message(1, Kind::System, created), message(2, Kind::Text, "naïve \"☃\"\n")];
    let summary = ChannelSummary {
        channel: channel.clone(),
        delivered_seq: 2,
        read_seq: 1,
        unread: 1,
        delivered_by_all: 2,
        read_by_all: 0,
        messages: Some(messages.clone()),
    };
    let welcome = Welcome {
        session: Uuid::nil(),
        username: ada(),
        server: "aula/0".to_owned(),
        features: BTreeMap::new(),
        channels: vec![summary],
    };
    let (client_id, seq) = (Uuid::from_u128(202), 2);
    let refused = Error {
        reference: Some(6),
        code: ErrorCode::RateLimited,
        message: "slower".to_owned(),
        retry: true,
        retry_after_ms: Some(5),
    };
    let resumed = Resumed { complete: true, last_seq: 2, code: None };
    vec![
        Frame::Welcome(Box::new(welcome)),
        Frame::ChannelCreated { reference: Some(1), channel },
        Frame::Message(messages[1].clone()),
        Frame::Ok(Reply { reference: Some(3), status: Some("accepted"), ..Reply::default() }),
        Frame::Status(Status::Persisted { channel: CHANNEL, seq, client_id }),
        Frame::Status(Status::Rejected { channel: CHANNEL, client_id, code: ErrorCode::NotAMember }),
        Frame::Status(Status::Delivered { channel: CHANNEL, seq }),
        Frame::Status(Status::Read { channel: CHANNEL, seq }),
        Frame::Ok(Reply {
            reference: Some(4),
            channel: Some(CHANNEL),
            messages: Some(messages),
            more: Some(false),
            ..Reply::default()
        }),
        Frame::Ok(Reply {
            reference: Some(5),
            channels: Some(BTreeMap::from([(CHANNEL, resumed)])),
            ..Reply::default()
        }),
        Frame::Error(refused),
        Frame::Gap { channel: CHANNEL, after: 0, last_seq: 2 },
        Frame::Pong { reference: None },
        Frame::Reconnect { after_ms: 5 },
    ]
}

fn recorded(received: impl Fn(&Frame, &mut dyn FnMut(Received<'_>))) -> Record {
    let mut recorder = Recorder::new(1000);
    let user = recorder.user("ada");
    let connection = recorder.open(user, 1);
    for (frame, at) in frames().iter().zip(2..) {
        received(frame, &mut |frame| recorder.received(connection, at, &frame));
    }
    recorder.into_record().unwrap()
}

#[test]
fn both_encodings_and_values_are_the_same_to_the_oracle() {
    let from_json = recorded(|frame, take| {
        let text = to_json(frame).unwrap();
        take(Received::from_json(text.as_bytes()).unwrap());
    });
    let from_msgpack = recorded(|frame, take| {
        let bytes = to_msgpack(frame).unwrap();
        take(Received::from_msgpack(&bytes).unwrap());
    });
    let from_value = recorded(|frame, take| {
        let value = serde_json::to_value(frame).unwrap();
        take(Received::from_value(&value).unwrap());
    });
    assert_eq!(from_json, from_msgpack);
    assert_eq!(from_json, from_value);
    let seen: Vec<&Seen> = from_json.connections[0].events.iter().map(|event| &event.seen).collect();
    // All but channel_created, pong and reconnect; none of them malformed.
    assert_eq!(seen.len(), frames().len() - 3);
    assert!(!seen.iter().any(|seen| matches!(seen, Seen::Malformed(_))), "{seen:?}");
    assert_eq!(from_json.users, ["ada", "bob"]);
    assert_eq!(from_json.entries.len(), 2);
    assert_eq!(from_json.changes.len(), 1);
}

/// The look for the op that is spared must meet what the server writes.
#[test]
fn a_message_begins_as_it_is_looked_for() {
    let frame = Frame::Message(message(1, Kind::Text, "hello"));
    assert!(to_json(&frame).unwrap().as_bytes().starts_with(decode::JSON_MESSAGE));
    assert!(to_msgpack(&frame).unwrap()[1..].starts_with(decode::MSGPACK_MESSAGE));
}

#[test]
fn what_the_protocol_does_not_have_is_malformed() {
    let cases = [
        json!({"op": "shout"}),
        json!({"op": "message", "channel": CHANNEL, "id": Uuid::nil(), "sender": "ada"}),
        json!({"op": "ok", "status": "accepted"}),
        json!({"op": "status", "status": "lost", "channel": CHANNEL}),
        json!({"op": "error", "code": "not_a_code", "retry": false}),
        json!({"op": "channel_created"}),
        json!({"op": "gap", "channel": "lunch", "last_seq": 1}),
    ];
    for case in cases {
        assert!(Received::from_value(&case).is_err(), "{case}");
        assert!(Received::from_json(case.to_string().as_bytes()).is_err(), "{case}");
    }
    assert!(Received::from_json(b"{").is_err());
    assert!(Received::from_msgpack(&[0xc1]).is_err());
}

#[test]
fn requests_are_taken_as_they_are_sent() {
    let client_id = Uuid::from_u128(9);
    let send = json!({"op": "send", "ref": 1, "channel": CHANNEL, "client_id": client_id, "body": "hello"});
    assert!(matches!(Sent::from_value(&send).unwrap(), Sent::Send(send) if send.client_id == client_id));
    let resume = json!({"op": "resume", "ref": 2, "channels": {CHANNEL.to_string(): 4}});
    let asks = |value: &Value, expected: u64| match Sent::from_value(value).unwrap() {
        Sent::Resume { reference, channels } => (reference, channels[&CHANNEL]) == (expected, 4),
        _ => false,
    };
    assert!(asks(&resume, 2));
    assert!(asks(&json!({"op": "auth", "ref": 3, "token": "…", "resume": {CHANNEL.to_string(): 4}}), 3));
    let newest = json!({"op": "history", "ref": 4, "channel": CHANNEL, "limit": 5});
    assert!(matches!(Sent::from_value(&newest).unwrap(), Sent::Newest { reference: 4, channel: CHANNEL }));
    let older = json!({"op": "history", "ref": 4, "channel": CHANNEL, "before": 5});
    assert!(matches!(Sent::from_value(&older).unwrap(), Sent::Other));
}

/// What has no room is told, and nothing is judged.
#[test]
fn a_full_recorder_gives_no_record() {
    let mut recorder = Recorder::new(3);
    let user = recorder.user("ada");
    let connection = recorder.open(user, 1);
    for at in 2..4 {
        recorder.see(connection, at, Seen::Accepted { reference: at });
    }
    assert!(!recorder.is_full());
    recorder.see(connection, 4, Seen::Accepted { reference: 4 });
    assert!(recorder.is_full());
    let another = recorder.open(user, 5);
    recorder.see(another, 5, Seen::Accepted { reference: 5 });
    assert_eq!(recorder.into_record().unwrap_err().max_events, 3);
    assert!(check(&Recorder::new(3).into_record().unwrap()).is_clean());
}
