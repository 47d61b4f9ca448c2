#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use uuid::Uuid;

use super::*;
use crate::message::{Kind, Millis};

fn message(seq: Seq) -> Message {
    Message {
        channel: ChannelId(Uuid::nil()),
        seq,
        id: Uuid::from_u128(u128::from(seq)),
        sender: Username::new("ada").unwrap(),
        client_id: Uuid::from_u128(u128::from(seq)),
        kind: Kind::Text,
        body: String::new(),
        at: Millis(0),
    }
}

fn room() -> Room {
    Room::new(ChannelId(Uuid::nil()), 0, 8)
}

fn deliver(room: &Room, seq: Seq) -> Delivered {
    room.deliver(Arc::new(message(seq)))
}

#[test]
fn a_redelivery_is_dropped_and_a_hole_waits_to_be_filled() {
    let room = room();
    assert_eq!(deliver(&room, 1), Delivered::To(0));
    assert_eq!(deliver(&room, 1), Delivered::Again);
    assert_eq!(deliver(&room, 4), Delivered::Missing { after: 1, before: 4 });
    assert_eq!(deliver(&room, 5), Delivered::Waits);
    assert_eq!(room.fill(vec![message(2)]), Some((2, 4)));
    assert_eq!(room.fill(vec![message(3)]), None);
    assert_eq!(room.last_seq(), 5);
    assert_eq!(deliver(&room, 6), Delivered::To(0));
}

#[test]
fn what_found_no_place_to_wait_is_fetched_too() {
    let room = room();
    let last = MAX_AHEAD as Seq + 11;
    assert_eq!(deliver(&room, 2), Delivered::Missing { after: 0, before: 2 });
    for seq in 3..=last {
        assert_eq!(deliver(&room, seq), Delivered::Waits);
    }
    let waited_to = MAX_AHEAD as Seq + 1;
    assert_eq!(room.fill(vec![message(1)]), Some((waited_to, last + 1)));
    assert_eq!(room.fill((waited_to + 1..=last).map(message).collect()), None);
    assert_eq!(room.last_seq(), last);
}

#[test]
fn a_hole_that_stays_is_skipped() {
    let room = room();
    assert_eq!(deliver(&room, 3), Delivered::Missing { after: 0, before: 3 });
    assert_eq!(deliver(&room, 6), Delivered::Waits);
    assert_eq!(room.skip(), Some((3, 6)));
    assert_eq!(room.skip(), None);
    assert_eq!(room.last_seq(), 6);
}
