#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use uuid::Uuid;

use super::*;
use crate::message::{ChannelKind, Kind, Millis};

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

fn room() -> Arc<Room> {
    Arc::new(Room::new(ChannelId(Uuid::nil()), 0, 8))
}

fn deliver(room: &Arc<Room>, seq: Seq) -> Delivered {
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
    assert_eq!(room.skip(0), Some((3, 6)));
    assert_eq!(room.skip(0), Some((3, 6)), "that hole is no more: the next one stays");
    assert_eq!(room.skip(3), None);
    assert_eq!(room.last_seq(), 6);
}

#[test]
fn what_is_said_of_the_log_makes_a_hole_once() {
    let room = room();
    assert_eq!(room.expect(0), None);
    assert_eq!(room.expect(3), Some((0, 4)));
    assert_eq!(room.expect(5), None, "it is being filled");
    assert_eq!(room.fill((1..=3).map(message).collect()), Some((3, 6)));
    assert_eq!(room.fill(vec![message(4), message(5)]), None);
    assert_eq!(room.last_seq(), 5);
    assert_eq!((room.expect(5), room.expect(2)), (None, None));
    assert_eq!(deliver(&room, 6), Delivered::To(0));
}

#[test]
fn what_is_delivered_meanwhile_waits_behind_what_is_expected() {
    let room = room();
    assert_eq!(room.expect(2), Some((0, 3)));
    assert_eq!(deliver(&room, 5), Delivered::Waits);
    assert_eq!(deliver(&room, 3), Delivered::Waits);
    assert_eq!(room.expect(4), None);
    assert_eq!(room.fill(vec![message(1), message(2)]), Some((2, 5)));
    assert_eq!(room.fill(vec![message(3), message(4)]), None);
    assert_eq!(room.last_seq(), 5);
}

#[test]
fn what_is_expected_and_stays_away_is_skipped() {
    let room = room();
    assert_eq!(room.expect(3), Some((0, 4)));
    assert_eq!(room.skip(0), None);
    assert_eq!(room.last_seq(), 3);
    assert_eq!(room.skip(3), None);
    assert_eq!(deliver(&room, 4), Delivered::To(0));
}

fn info(last_seq: Seq, members: &[&str]) -> ChannelInfo {
    let members: Vec<_> = members.iter().map(|name| Username::new(name).unwrap()).collect();
    let member_count = members.len();
    let (id, kind) = (ChannelId(Uuid::nil()), ChannelKind::Group);
    ChannelInfo { id, kind, name: None, members, member_count, last_seq, purged_seq: 0 }
}

fn change(seq: Seq, change: Change) -> Arc<Message> {
    Arc::new(Message { kind: Kind::System, body: change.to_body(), ..message(seq) })
}

#[test]
fn only_what_is_sure_is_known() {
    let room = room();
    assert_eq!(room.known(), None);
    room.learn(&info(0, &["ada", "bob"]), None);
    assert_eq!(room.known(), None, "when it was last active is not known yet");
    room.learn(&info(0, &["ada", "bob"]), Some(Millis(5)));
    let known = room.known().unwrap();
    assert_eq!((known.info, known.last_at), (info(0, &["ada", "bob"]), Millis(5)));

    // Entries count at once, watermarks too.
    room.deliver(Arc::new(Message { at: Millis(9), ..message(1) }));
    room.deliver(Arc::new(Message { at: Millis(7), ..message(2) }));
    room.raise(Some(2), Some(1));
    let known = room.known().unwrap();
    assert_eq!((known.info, known.last_at), (info(2, &["ada", "bob"]), Millis(9)));
    assert_eq!((known.delivered_by_all, known.read_by_all), (2, 1));

    // Older news changes nothing.
    room.learn(&info(2, &["ada", "bob"]), None);
    room.learn(&info(1, &["ada"]), Some(Millis(3)));
    assert_eq!(room.known().unwrap().info, info(2, &["ada", "bob"]));

    let cyd = [Username::new("cyd").unwrap()];
    room.deliver(change(3, Change::Added { members: cyd.to_vec() }));
    assert_eq!(room.known(), None, "a change is not stored yet");
    room.learn(&info(3, &["ada", "bob", "cyd"]), None);
    assert_eq!(room.known(), None);
    room.settle(3, &cyd, &[]);
    assert_eq!(room.known().unwrap().info, info(3, &["ada", "bob", "cyd"]));

    assert_eq!(deliver(&room, 5), Delivered::Missing { after: 3, before: 5 });
    assert_eq!(room.known(), None, "something is missing");
    assert_eq!(room.fill(vec![message(4)]), None);
    assert_eq!(room.known().unwrap().info.last_seq, 5);

    room.doubt();
    assert_eq!(room.known(), None);
    room.learn(&info(4, &["ada", "bob"]), Some(Millis(9)));
    assert_eq!(room.known().unwrap().info, info(5, &["ada", "bob"]));
}

#[test]
fn what_is_stored_is_told_once_and_only_of_sends() {
    let room = room();
    let seqs = |messages: Vec<Arc<Message>>| messages.iter().map(|message| message.seq).collect::<Vec<_>>();
    room.deliver(change(1, Change::Created { members: Vec::new() }));
    (2..=5).for_each(|seq| assert_eq!(deliver(&room, seq), Delivered::To(0)));
    assert_eq!(seqs(room.take_untold(3)), [2, 3]);
    assert_eq!(seqs(room.take_untold(3)), [0; 0]);
    assert_eq!(seqs(room.take_untold(2)), [0; 0]);
    assert_eq!(seqs(room.take_untold(4)), [4]);
    assert_eq!(seqs(room.take_untold(9)), [5]);
    (6..=9).for_each(|seq| assert_eq!(deliver(&room, seq), Delivered::To(0)));
    assert_eq!(seqs(room.take_untold(9)), [6, 7, 8, 9]);
}

#[test]
fn changes_are_unsettled_up_to_a_head() {
    let room = room();
    let [bob, cyd] = ["bob", "cyd"].map(|name| Username::new(name).unwrap());
    room.deliver(change(1, Change::Added { members: vec![bob.clone(), cyd.clone()] }));
    room.deliver(change(2, Change::Removed { members: vec![cyd.clone()] }));
    assert_eq!(room.unsettled(0), []);
    assert_eq!(room.unsettled(1), std::slice::from_ref(&bob));
    room.settle(1, &[bob], &[]);
    assert_eq!((room.unsettled(1), room.unsettled(2)), (vec![], vec![cyd.clone()]));
    assert!(room.idle_since().is_none());
    room.settle(2, &[cyd], &[]);
    assert!(room.idle_since().is_some());
}
