use uuid::Uuid;

use super::*;
use crate::message::{ChannelKind, Millis};
use crate::wire::frame::ChannelInfo;

fn id(number: u128) -> ChannelId {
    ChannelId(Uuid::from_u128(number))
}

fn learn(room: &Room) {
    let (id, kind, last_seq) = (room.id, ChannelKind::Group, room.last_seq());
    let info = ChannelInfo { id, kind, name: None, members: Vec::new(), member_count: 0, last_seq, purged_seq: 0 };
    room.learn(&info, Some(Millis(1)));
}

#[test]
fn a_room_is_made_once() {
    let rooms = Rooms::new(8, 8);
    assert!(rooms.get(id(1)).is_none() && rooms.channel(id(1)).is_none());
    let room = rooms.enter(id(1), 5);
    assert!(Arc::ptr_eq(&room, &rooms.enter(id(1), 9)) && room.last_seq() == 5);
    assert!(rooms.channel(id(1)).is_none());
    learn(&room);
    assert_eq!(rooms.channel(id(1)).unwrap().info.last_seq, 5);
}

#[test]
fn in_doubt_rooms_of_nobody_are_forgotten_and_nothing_is_known() {
    let rooms = Rooms::new(8, 8);
    for number in 1..=4 {
        learn(&rooms.enter(id(number), 5));
    }
    // One that somebody is about to enter, and one where something is under way.
    let held = rooms.enter(id(1), 0);
    assert_eq!(rooms.enter(id(2), 0).expect(7), Some((5, 8)));
    let mut kept: Vec<_> = rooms.doubt().iter().map(|room| room.id).collect();
    kept.sort_unstable();
    assert_eq!(kept, [id(1), id(2)]);
    assert_eq!(rooms.len(), 2);
    assert!((1..=4).all(|number| rooms.channel(id(number)).is_none()));
    learn(&held);
    assert!(rooms.channel(id(1)).is_some());
    // What is forgotten begins at the stored head again.
    assert_eq!(rooms.enter(id(3), 9).last_seq(), 9);
}

#[test]
fn rooms_of_nobody_are_no_more_than_configured_however_fast_they_come() {
    let rooms = Rooms::new(8, 100);
    let held = rooms.enter(id(0), 5);
    for number in 1..=5000 {
        rooms.enter(id(number), 5);
        assert!(rooms.len() <= 102, "{number}: {}", rooms.len());
    }
    assert!(rooms.get(id(5000)).is_some() && rooms.get(id(1)).is_none());
    assert!(Arc::ptr_eq(&held, &rooms.enter(id(0), 9)), "somebody is about to enter it");
    // What was said of a channel lately may have been forgotten: the store must be asked.
    let room = rooms.enter(id(1), 7);
    assert!(!room.reaches(7, Instant::now()));
    room.is_compared(Instant::now());
    assert!(room.reaches(7, Instant::now()) && !room.reaches(8, Instant::now()));
}
