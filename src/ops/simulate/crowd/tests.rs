//! What a crowd counts, without a server.

use std::sync::mpsc::channel;

use super::person::Pending;
use super::*;
use crate::message::{Kind, Millis};
use crate::ops::simulate::plan::{Account, Settings};
use crate::oracle::frame::Message;

const MEMBERS: u32 = 3;

/// One room with everybody in it, and a message each hundredth of a second for ten seconds.
fn crowd() -> Crowd {
    let text = format!(
        "about: x\nclients: {MEMBERS}\nrate: 100\narrival: even\nchannels: [{{shape: room}}]\n\
         phases: [{{phase: hold, duration: 10s}}]\n"
    );
    let scenario = crate::ops::simulate::scenario::read(&text).unwrap();
    let settings = Settings { scenario, run: "r".to_owned(), seed: 7, are_accounts_given: false };
    let account = |index| Account { name: format!("u{index}"), token: String::new() };
    let plan = Arc::new(Plan::new(settings, (0..MEMBERS).map(account).collect()));
    let target = Target { address: ([127, 0, 0, 1], 1).into(), host: String::new() };
    let setup = Setup { plan, share: Share { index: 0, of: 1 }, target, record: None };
    let ((_, orders), (reports, _)) = (channel(), channel());
    Crowd::new(setup, orders, reports).unwrap().0
}

/// A message of the first client, sent and not answered yet; its body.
fn sent(crowd: &mut Crowd, client_id: Uuid) -> String {
    let body = crowd.filling.body(1, &body::word("r", 0, 0), 60, &mut crowd.rng);
    crowd.people[0].pending.push_back(Pending {
        client_id,
        channel: 0,
        scheduled: 1,
        number: 0,
        body: body.clone().into_boxed_str(),
        reference: 1,
        attempts: 1,
        at: 1,
        is_accepted: false,
        is_unheard: false,
        is_under_way: true,
        is_counted: false,
    });
    body
}

#[test]
fn a_message_is_to_reach_its_sender_as_well() {
    let mut crowd = crowd();
    let client_id = Uuid::from_u128(9);
    let body = sent(&mut crowd, client_id);
    crowd.accepted(0, 1, 5);
    assert_eq!((crowd.meter.expected, crowd.meter.received), (u64::from(MEMBERS), 0));
    let message = Message {
        channel: None,
        seq: 2,
        id: Uuid::from_u128(10),
        sender: "u0".into(),
        client_id: Some(client_id),
        kind: Kind::Text,
        body: body.into(),
        at: Millis(0),
    };
    for (client, received) in [(2, 1), (1, 2)] {
        crowd.take(client, 0, &message, 6);
        assert_eq!(crowd.meter.received, received);
    }
    // The sender's own copy is missed while it has not come.
    crowd.take(0, 0, &message, 7);
    assert_eq!((crowd.meter.expected, crowd.meter.received), (u64::from(MEMBERS), u64::from(MEMBERS)));
    // How long it took is told of the others.
    let stages = crowd.meter.pack();
    assert_eq!(stages[super::super::measured::Stage::SendToReceive as usize].micros.read().unwrap().len(), 2);
}

#[test]
fn what_is_rejected_is_expected_by_nobody() {
    let mut crowd = crowd();
    let client_id = Uuid::from_u128(9);
    sent(&mut crowd, client_id);
    crowd.accepted(0, 1, 5);
    crowd.rejected(0, client_id);
    assert_eq!(crowd.meter.expected, 0);
}

#[test]
fn what_fell_due_and_was_not_come_to_is_counted() {
    let begun = || {
        let mut crowd = crowd();
        crowd.act = Act::Running;
        assert!(crowd.advance(true));
        crowd
    };
    // Half of the time is over, and nothing was written.
    let mut crowd = begun();
    crowd.stop_writing(5 * SECOND);
    let offered = crowd.meter.offered;
    assert_eq!((offered.planned, offered.unwritten, offered.attempted), (500, 500, 0));
    assert!((4_990_000..=5_000_000).contains(&offered.late_us), "{offered:?}");
    assert!(offered.fell_behind());
    // What is planned for later is nobody's fault; and there is no more than what was planned.
    let mut crowd = begun();
    crowd.stop_writing(60 * SECOND);
    assert_eq!(crowd.meter.offered.unwritten, 1_000);
    // A run that is settling has counted it already.
    crowd.act = Act::Settling;
    crowd.stop_writing(61 * SECOND);
    assert_eq!(crowd.meter.offered.unwritten, 1_000);
}
