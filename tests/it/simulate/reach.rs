//! Reach counts every member of a channel, the sender of a message among them.

use super::*;

fn number(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {report}"))
}

/// What was planned was offered, but for what the tool itself did not come to.
fn assert_offered(report: &Value) {
    let [planned, attempted, unwritten] =
        ["planned", "attempted", "unwritten"].map(|name| number(report, &format!("/offered/{name}")));
    assert_eq!(planned, attempted + unwritten, "{report}");
    assert_eq!(attempted, number(report, "/verdict/attempts"), "{report}");
}

#[test]
fn in_a_room_each_message_reaches_everybody() {
    let words = ["--scenario", "big-room", "--clients", "12", "--rate", "20", "--duration", "3s"];
    let (status, report, err) = simulate(&words);
    assert_eq!(status.code(), Some(0), "{err}");
    assert_clean(&report);
    assert_offered(&report);
    let sent = number(&report, "/verdict/acknowledged");
    assert!(sent > 20, "{report}");
    assert_eq!(number(&report, "/expected"), 12 * sent);
    // The stage is of the others.
    assert_eq!(count(&report, "send_to_receive"), 11 * sent);
}

#[test]
fn in_conversations_and_groups_it_does_as_well() {
    let words = ["--scenario", "chat", "--clients", "20", "--rate", "40", "--duration", "3s"];
    let (status, report, err) = simulate(&words);
    assert_eq!(status.code(), Some(0), "{err}");
    assert_clean(&report);
    assert_offered(&report);
    let (sent, expected) = (number(&report, "/verdict/acknowledged"), number(&report, "/expected"));
    assert!((2 * sent..=10 * sent).contains(&expected), "{report}");
    assert_eq!(expected - sent, count(&report, "send_to_receive"), "{report}");
}

#[test]
fn where_nothing_is_said_nothing_is_expected() {
    let (status, report, err) = simulate(&["--scenario", "idle", "--clients", "20", "--duration", "1s"]);
    assert_eq!(status.code(), Some(0), "{err}");
    assert_eq!((number(&report, "/expected"), number(&report, "/received")), (0, 0), "{report}");
    assert_eq!(number(&report, "/offered/planned"), 0, "{report}");
}
